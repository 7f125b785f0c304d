"""A device's memory that does not suffice: one line that says what to do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import TRAIN
from utils.config.load import load_config
from utils.config.schema import Config, choices
from utils.models.families import presets_beside
from utils.models.memory import BITS, out_of_memory

PLAIN = "gradient_checkpointing=1 or joint_passes=0"


@pytest.mark.parametrize(
    ("first", "model"),
    [
        ("flux_dev", "black-forest-labs/FLUX.1-dev"),
        ("flux2_klein_4b", "black-forest-labs/FLUX.2-klein-base-4B"),
    ],
)
def test_every_preset_is_there_and_smaller_than_the_one_before(first: str, model: str) -> None:
    presets = presets_beside(first)
    configs = [load_config("train_image", [f"base={base}"], TRAIN / "config") for base in presets]
    assert [*presets.values()] == sorted(presets.values(), reverse=True)
    sizes = [
        (BITS[config.quantization], not config.gradient_checkpointing, config.joint_passes)
        for config in configs
    ]
    assert set(BITS) == set(choices("quantization"))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    for config in configs:
        assert config.pretrained_model_name_or_path == model
        assert (config.resolution, config.rank, config.train_iteration) == (512, 16, 500)


@pytest.mark.parametrize(
    ("base", "has", "advice", "overrides"),
    [
        ("flux_dev", 80, "base=flux_dev_24gb", []),
        ("flux_dev", 25.4, "base=flux_dev_24gb", []),
        ("flux_dev", 16.9, "base=flux_dev_16gb", []),
        ("flux_dev", 8, "base=flux_dev_12gb", []),
        ("flux_dev_24gb", 24, "base=flux_dev_16gb", []),
        ("flux_dev_12gb", 12, "a smaller resolution", []),
        ("flux_dev", 40, "base=flux_dev_12gb", ["quantization=nf4"]),
        ("flux_dev_24gb", 24, "base=flux_dev_12gb", ["gradient_checkpointing=1"]),
        ("flux2_klein_4b", 17, "base=flux2_klein_4b_16gb", []),
        ("flux2_klein_4b_16gb", 16, "base=flux2_klein_4b_12gb", []),
        ("flux2_klein_4b_12gb", 8, "batch_size_gen=1 or a smaller resolution", []),
        ("mine", 12, f"{PLAIN} or batch_size_gen=1 or a smaller resolution", []),
    ],
)
def test_advice_is_the_next_preset_that_fits(
    monkeypatch, base: str, has: float, advice: str, overrides: list[str]
) -> None:
    properties = SimpleNamespace(total_memory=has * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    config = replace(Config(), base=base)
    if base != "mine":
        config = load_config("train_image", [f"base={base}", *overrides], TRAIN / "config")
    line = out_of_memory(config, torch.device("cuda", 0))
    assert line == f"out of memory with base={base} on a card of {has:.0f} GB; {advice} needs less"


def test_a_run_out_of_memory_is_a_failed_run_with_advice(script, monkeypatch) -> None:
    def train_run(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("utils.training.trainer.train_run", train_run)
    status, _, errors = script("train_image_script", "--c=mini")
    assert status == 2
    assert errors.count(f"out of memory with base=mini; {PLAIN}") == 2
    assert "Traceback" not in errors


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
def test_a_base_out_of_memory_says_so_before_any_run(script, monkeypatch, part: str) -> None:
    import utils.models.flux1

    def load_parts(pipeline: object, every: tuple[str, ...], names: tuple[str, ...], base: object) -> dict:
        if part in names:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loaded(pipeline, every, names, base)

    loaded = utils.models.flux1.load_parts
    monkeypatch.setattr(utils.models.flux1, "load_parts", load_parts)
    status, _, errors = script("train_image_script", "--c=mini")
    assert status == 2
    assert "error: out of memory with base=mini" in errors
