"""bench/: the plain loops do the same as this framework, and both commands say what they measured."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import reference, sample, train
from bench.bases import add_random_lora, pipeline_of
from bench.measuring import OURS, REFERENCE, Comparison, Measured, Side, compare, forwards_counted
from bench.options import parse
from tests.bench.mini_shape import MINI_SHAPE
from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from utils.config.runs import expand_real_runs
from utils.data.pairs import load_pairs
from utils.data.photos import load_photo
from utils.errors import UserError
from utils.generation.sweep import edit_photo, sweep_images
from utils.models.adapters import adapter_names
from utils.models.base import Base
from utils.training.batches import PairBatches
from utils.training.methods import build_objective
from utils.training.trainer import train as train_run

MINI = [
    *(f"resolution={MINI_RESOLUTION}", f"max_sequence_length={MINI_SEQUENCE_LENGTH}", "rank=2"),
    *("num_inference_steps=4", "end_step=3", "skips=1", "scales=0,0.5,1", "device=cpu"),
]


def test_the_reference_has_our_losses(mini_flux_loaded: Base, tmp_path: Path) -> None:
    base = mini_flux_loaded
    options = parse(["--steps=1", *MINI, "log_every=1", "lr=0.01"], "bench.train", "")
    run = train.bench_run(options)
    config = replace(run.config, output_folder=str(tmp_path))
    run = replace(run, config=config)
    pairs = load_pairs(run.source_folder, run.target_folder, MINI_RESOLUTION)
    embeds = base.encode_prompts([""], MINI_SEQUENCE_LENGTH)
    objective = build_objective("train_image", config.cfg_eta, run.noise_scale)
    train_run(run, base, PairBatches(base, pairs, config), objective, {"": embeds})
    ours = [json.loads(line) for line in run.log_path.read_text().splitlines()]
    with closing(reference.ReferenceTraining(pipeline_of(base), run)) as training:
        theirs = [training.step() for _ in ours]
    assert adapter_names(base.transformer) == []
    assert len(ours) == train.WARM_UP + 2
    for name in ("content", "semantic"):
        expected = [line[name] for line in ours]
        assert [losses[name] for losses in theirs] == pytest.approx(expected, rel=1e-4)
        assert len(set(expected)) == len(expected)


def test_what_a_calibration_leaves_open_is_sampled_at_scales() -> None:
    config = sample.at_scales(parse([], "bench.sample", "").config("train_image"))
    assert len(config.scales) == 6


@pytest.mark.parametrize("gradient_checkpointing", [0, 1])
def test_a_reference_step_trains_each_adapter_by_its_own_loss(
    mini_flux_loaded: Base, gradient_checkpointing: int
) -> None:
    base = mini_flux_loaded
    overrides = [*MINI, f"gradient_checkpointing={gradient_checkpointing}"]
    run = train.bench_run(parse(overrides, "bench.train", ""))
    with (
        forwards_counted(base.transformer) as batches,
        closing(reference.ReferenceTraining(pipeline_of(base), run)) as training,
    ):
        weights = [weight for group in training.optimizer.param_groups for weight in group["params"]]
        before = [weight.clone() for weight in weights]
        training.step()
        moved = [not torch.equal(a, b) for a, b in zip(before, weights, strict=True)]
    assert batches == [1, 1]
    assert len(moved) == 2 * len(training.content)
    assert all(moved[1::2])  # every B, of both adapters; the gradient of A is zero while B is


def test_the_plain_sweep_has_our_images(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    config = sample.first_skip(parse(MINI, "bench.sample", "").config("train_image"))
    add_random_lora(base, "semantic", config, 0)
    with forwards_counted(base.transformer) as batches:
        theirs = reference.sweep_images(pipeline_of(base), "a cat", 3, config)
    assert batches == [1] * 3 * 4
    embeds = base.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH)
    ours = sweep_images(base, embeds, [3], [1], config.scales, config)[1]
    assert list(theirs) == list(ours) == [0.0, 0.5, 1.0]
    for scale, image in theirs.items():
        torch.testing.assert_close(image, ours[scale], rtol=0, atol=1e-4)
    assert (ours[1.0] - ours[0.0]).abs().max() > 1e-3


@pytest.mark.parametrize(("inversion", "forwards"), [("flowedit", 3 * 3 * 2), ("lora", 4 + 2 * (1 + 3 * 3))])
def test_the_plain_edit_of_a_photograph_has_our_images(
    mini_flux_loaded: Base, inversion: str, forwards: int
) -> None:
    base = mini_flux_loaded
    options = parse([*MINI, f"inversion={inversion}"], "bench.sample", "")
    run = expand_real_runs(options.config("train_image_real"))[0]
    for seed, name in enumerate(("semantic", "inversion")):
        add_random_lora(base, name, run.config, seed)
    with forwards_counted(base.transformer) as batches:
        theirs = reference.edit_photo(pipeline_of(base), run.photograph, "a cat", 3, run.config)
    assert batches == [1] * forwards
    embeds = base.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH)
    ours = edit_photo(run, base, load_photo(run.photograph, MINI_RESOLUTION), 3, embeds)[1]
    for scale, image in theirs.items():
        torch.testing.assert_close(image, ours[scale], rtol=0, atol=1e-4)
    assert (ours[1.0] - ours[0.0]).abs().max() > 1e-4


def measured(path: Path) -> dict[str, Any]:
    """What a command wrote, once what all of them write is checked."""
    content = json.loads(path.read_text())
    assert content["machine"]["device"].startswith("CPU ")
    assert content["machine"]["torch"] == torch.__version__
    assert "commit" in content["machine"]["software"]
    assert content["config"]["resolution"] == MINI_RESOLUTION
    for comparison in content["measured"].values():
        for side in comparison["sides"].values():
            assert len(side["seconds"]) == 2
            assert min(side["seconds"]) > 0
            assert side["peak_bytes"] > 2**20
            assert side["flops_per_second"] == pytest.approx(side["flops"] / side["median_seconds"])
            assert 0 < side["share_of_matmul_peak"] < 1
    return content["measured"]


def test_the_training_command(mini_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "train.json"
    arguments = ["--steps=2", "--repeats=2", f"--out={out}", *MINI, "log_every=2"]
    assert train.main([*arguments, f"pretrained_model_name_or_path={mini_flux}"]) == 0
    step = measured(out)["training step"]
    assert list(step["sides"]) == [OURS, REFERENCE]
    assert {name: side["forwards"] for name, side in step["sides"].items()} == {OURS: 1, REFERENCE: 2}
    assert all(side["images"] == 2 for side in step["sides"].values())
    assert step["sides"][REFERENCE]["flops"] > step["sides"][OURS]["flops"]  # the images' encoding
    assert len(step["ratio"]["pairs"]) == 2
    assert max(step["agreement"].values()) < 1e-4
    printed = capsys.readouterr().out
    assert f"| training step, {OURS} " in printed
    assert str(out) in printed


def test_the_sampling_command_on_random_weights(tmp_path: Path) -> None:
    out = tmp_path / "sample.json"
    assert sample.main(["--random-weights", "--repeats=2", f"--out={out}", *MINI], MINI_SHAPE) == 0
    sweep, photograph = measured(out).values()
    assert (sweep["sides"][OURS]["images"], sweep["sides"][REFERENCE]["images"]) == (4 + 2 * 3, 3 * 4)
    assert (sweep["sides"][OURS]["forwards"], sweep["sides"][REFERENCE]["forwards"]) == (4, 3 * 4)
    assert photograph["sides"][REFERENCE]["forwards"] == 3 * 3 * 2
    assert photograph["sides"][OURS]["forwards"] == 3
    assert photograph["sides"][OURS]["images"] < photograph["sides"][REFERENCE]["images"]
    for comparison in (sweep, photograph):
        assert max(comparison["agreement"].values()) < 1e-3


def test_without_the_reference(mini_flux: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.json"
    arguments = ["--skip-reference", "--steps=1", "--repeats=2", f"--out={out}", *MINI]
    train.main([*arguments, f"pretrained_model_name_or_path={mini_flux}"])
    step = measured(out)["training step"]
    assert list(step["sides"]) == [OURS]
    assert "ratio" not in step


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["python_name=train_image_fm"], "python_name: expected train_image, found train_image_fm"),
        (["noise_scales=1,2"], "expected one run, found 2"),
        (["stepz=1"], "unknown key 'stepz'"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        train.main([*MINI, *arguments])


def test_an_inversion_without_a_plain_loop(mini_flux_loaded: Base) -> None:
    run = expand_real_runs(parse([*MINI, "inversion=euler"], "", "").config("train_image_real"))[0]
    with pytest.raises(UserError, match="inversion: expected flowedit, or lora"):
        reference.edit_photo(pipeline_of(mini_flux_loaded), run.photograph, "", 1, run.config)


def test_turns_and_ratios(mini_flux_loaded: Base) -> None:
    turns: list[str] = []
    seconds = {OURS: [9.0, 1.0, 2.0], REFERENCE: [9.0, 3.0, 4.0]}  # the first to warm up

    def side(name: str) -> Side:
        return Side(lambda: turns.append(name) or seconds[name][turns.count(name) - 1])

    sides = {name: side(name) for name in seconds}
    compared = compare("work", sides, 2, mini_flux_loaded, lambda: {"results": 0.5})
    assert turns == [OURS, REFERENCE] * 3
    assert compared.sides[OURS].seconds == [1.0, 2.0]
    assert compared.ratios == [3.0, 2.0]
    ratio = compared.summary()["ratio"]
    assert (ratio["of_medians"], ratio["median_of_pairs"]) == (3.5 / 1.5, 2.5)
    assert [row[2] for row in compared.rows()] == ["2.50 (2.00 to 3.00)", "1"]


def test_operations_are_those_of_the_transformer(mini_flux_loaded: Base) -> None:
    """A linear of m x n on b rows is 2 b m n operations."""
    layer = mini_flux_loaded.transformer.x_embedder

    def go() -> float:
        layer(torch.ones(5, layer.in_features))
        return 1.0

    compared = compare("product", {OURS: Side(go, units=2)}, 1, mini_flux_loaded, dict)
    assert compared.sides[OURS].flops == 5 * layer.in_features * layer.out_features
    row = Comparison("product", {OURS: Measured([2.0], None, 1, 1, 4e12)}, 8e12, {}).rows()[0]
    assert row[1:] == ["2", "", "1", "", "2", "25%"]
