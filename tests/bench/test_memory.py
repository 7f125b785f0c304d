"""bench/memory.py: what a training and a sampling need, told from shapes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from bench import memory
from bench.bases import add_random_lora, build_transformer
from bench.flux2_shape import Flux2Shape
from tests.bench.mini_shape import MINI_SHAPE
from tests.conftest import MINI_SEQUENCE_LENGTH
from utils.config.schema import Config
from utils.models.base import Base
from utils.models.velocity import Velocity

NARROW = {"resolution": 32, "max_sequence_length": 12, "rank": 2, "device": "cpu", "batch_size_gen": 2}


MINI_FLUX2 = Flux2Shape(double_blocks=1, single_blocks=1, heads=2, head_size=16, axes=(4, 4, 4, 4), text=8)


def needs(**keys: object) -> dict[str, int]:
    return memory.needs(replace(Config(), **{**NARROW, **keys}), MINI_SHAPE)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_memory_of_shapes_is_that_of_tensors(quantization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"quantization": quantization, "joint_passes": False}
    computed = needs(**keys)
    monkeypatch.setattr(memory, "FakeTensorMode", lambda **_: nullcontext())
    assert needs(**keys) == pytest.approx(computed, rel=0.01)
    weights = sum(weight.nbytes for weight in build_transformer(MINI_SHAPE).bfloat16().parameters())
    if quantization == "none":
        assert weights <= computed["the base"] < 1.5 * weights  # small tensors are rounded up


def test_memory_follows_the_settings() -> None:
    step = "a training step"
    plain = needs(joint_passes=False)
    assert needs(joint_passes=True)[step] > plain[step]
    assert needs(joint_passes=False, gradient_checkpointing=True)[step] < plain[step]
    fp8, nf4 = (needs(quantization=name)["the base"] for name in ("fp8", "nf4"))
    assert nf4 < fp8 < plain["the base"]
    assert needs(batch_size_gen=4)["sampling"] > plain["sampling"]


def test_memory_of_true_guidance_is_that_of_two_velocities() -> None:
    keys = {**NARROW, "batch_size_gen": 64, "max_sequence_length": 64}
    config = replace(Config(), **keys, base="flux2_klein_4b")
    plain, guided = (
        memory.needs(replace(config, guidance_scale=scale), MINI_FLUX2)["sampling"] for scale in (1.0, 4.0)
    )
    assert 1.5 * plain < guided < 2.5 * plain


def test_no_tensor_without_values_stays_behind(mini_flux_loaded: Base) -> None:
    needs()
    add_random_lora(mini_flux_loaded, "semantic", replace(Config(), rank=2), 0)
    model = Velocity(mini_flux_loaded, mini_flux_loaded.encode_prompts([""], MINI_SEQUENCE_LENGTH), 3.5)
    with torch.no_grad():
        velocity = model.scaled({"semantic": 1.0})(torch.ones(2, 16, 4, 4), torch.zeros(2))
    assert velocity.isfinite().all()


def test_the_memory_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        memory.main(["--base", "flux_dev_12gb", "resolution=32", "max_sequence_length=12"], MINI_SHAPE) == 0
    )
    printed = capsys.readouterr().out
    assert "flux_dev_12gb" in printed
    assert "a training step" in printed
