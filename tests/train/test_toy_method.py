"""A method is one class and one row: a toy one goes through every command, no module touched for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Script
from tests.train.test_study_script import compare, results  # noqa: F401
from utils.flow.mixes import Mix
from utils.flow.objectives import PairObjective
from utils.flow.passes import PairBatch, Pass, VelocityModel
from utils.flow.schedules import RectifiedFlow
from utils.training.methods import METHODS, Method
from utils.training.sources import ImagePairs

ABOUT = "toy: straight to the target, half as sure"


@dataclass(frozen=True)
class Toy(PairObjective):
    """semantic loss  1/2 || v(x_t; semantic) - (velocity + eta (x_0_source - x_0_target)) ||^2"""

    eta: float
    adapters = ("semantic",)
    saved = "semantic"

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
        x_t = self.schedule.add_noise(batch.source, batch.noise, batch.sigma)
        velocity = self.schedule.velocity(batch.source, batch.noise)
        velocity_target = velocity + self.eta * (batch.source - batch.target)
        mix = Mix({"semantic": 1.0}, train=("semantic",))
        return [Pass("toy", mix, x_t, batch.sigma, velocity_target, weight=0.5)]


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Method(ABOUT, ImagePairs, lambda eta: Toy(RectifiedFlow(), eta))
    monkeypatch.setitem(METHODS, "train_toy", toy)


def test_a_toy_method_is_trained_generated_and_described(script: Script) -> None:
    study = ("--c=mini", "python_name=train_toy", "datasets=age")
    status, _, err = script("train_image_script", *study)
    assert status == 0, err
    (card,) = Path("output/models").rglob("README.md")
    assert "`train_toy`" in card.read_text()
    assert ABOUT in card.read_text()
    (log,) = Path("output/models").rglob("losses.jsonl")
    assert '"toy"' in log.read_text()
    status, _, err = script("gen_image_script", *study)
    assert status == 0, err
    assert list(Path("output/eval").rglob("6666.png"))

    status, out, _ = script("train_image_script", "--help")
    assert f"train_toy: {ABOUT}" in " ".join(out.split())


def test_a_toy_method_is_compared(compare: Callable) -> None:  # noqa: F811
    status, _, err = compare("methods=[train_toy]", "noise_scales={}", "etas={train_toy: [1]}")
    assert status == 0, err
    assert list(results()) == ["train_toy"]
    status, _, err = compare("methods=[train_toy]", "noise_scales={train_toy: [1]}", "etas={}")
    assert (status, "found train_toy, which knows none" in err) == (2, True)
