"""The probe: what it reads of known logits, what it is told to read, its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinyflux.people import ATTRIBUTES, COLOURS, HAIR_STYLES, People, sample_people, with_attribute
from tinyflux.probe import READINGS, Probe, load_probe, probe_losses, save_probe, truth, visible
from tinyflux.seeds import HELD_OUT

CPU = torch.device("cpu")


class Fixed(Probe):
    """A probe that gives the same logits for every image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def logits_of(values: dict[str, float], hair: list[float]) -> Tensor:
    """Logits (1, attributes + hair styles) whose sigmoids are `values`."""
    return torch.tensor([[*(math.log(values[n] / (1 - values[n])) for n in ATTRIBUTES), *hair]])


@pytest.fixture(scope="module")
def probe() -> Probe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Probe().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_readings_are_the_sigmoids_in_the_attributes_order(images: Tensor) -> None:
    values = {name: (i + 1) / 25 for i, name in enumerate(ATTRIBUTES)}
    # softmax of (short, spiky, curly, bob, long): 1, 1, 2, 3, 3 of 10
    hair = [math.log(share) for share in (1, 1, 2, 3, 3)]
    readings = Fixed(logits_of(values, hair)).read(images)
    assert tuple(readings) == READINGS == (*ATTRIBUTES, "long_hair")
    for name, value in {**values, "long_hair": 0.6}.items():
        torch.testing.assert_close(readings[name], torch.full((5,), value))


def test_readings_are_in_range_and_do_not_depend_on_the_batch(probe: Probe, images: Tensor) -> None:
    readings = probe.read(images)
    for name, value in probe.read(images, batch_size=2).items():
        assert value.shape == (5,)
        assert value.min() >= 0
        assert value.max() <= 1
        torch.testing.assert_close(value, readings[name], atol=1e-5, rtol=1e-5)
    assert readings["age"].std() > 0
    assert not readings["age"].requires_grad


@pytest.mark.parametrize("shape", [(3, 128, 128), (1, 3, 64, 64), (1, 1, 128, 128)])
def test_other_shapes_are_refused(probe: Probe, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"probe: expected images \(B, 3, 128, 128\), found \("):
        probe.read(torch.zeros(shape))


def test_features_feed_the_readings(probe: Probe, images: Tensor) -> None:
    features = probe.features(images)
    assert features.shape == (5, 64)
    assert torch.equal(probe.head(features), probe(images))
    assert probe(images).shape == (5, len(ATTRIBUTES) + len(HAIR_STYLES))


def test_the_file_holds_the_weights_in_half_precision(probe: Probe, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "new" / "probe.safetensors"
    save_probe(probe, path)
    loaded = load_probe(path)
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, probe.state_dict()[name].half().float())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, value in loaded.read(images).items():
        torch.testing.assert_close(value, probe.read(images)[name], atol=2e-3, rtol=0)
    parameters = sum(parameter.numel() for parameter in probe.parameters())
    assert 2 * parameters < path.stat().st_size < 2 * parameters + 10_000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_probe(tmp_path / "nowhere.safetensors")


def test_truth_is_the_attributes_and_whether_hair_hangs_down() -> None:
    people = sample_people(HELD_OUT[:200])
    true = truth(people)
    assert tuple(true) == READINGS
    assert all(torch.equal(true[name], people[name]) for name in ATTRIBUTES)
    hangs = {"short": 0.0, "spiky": 0.0, "curly": 0.0, "bob": 1.0, "long": 1.0}
    assert true["long_hair"].tolist() == [hangs[HAIR_STYLES[i]] for i in people["hair_style"]]


def test_only_a_sketch_hides_and_only_colours() -> None:
    people = with_attribute(sample_people(HELD_OUT[:3]), "sketch", torch.tensor([0.0, 1.0, 0.4]))
    shown = visible(people)
    assert shown.shape == (3, len(ATTRIBUTES))
    assert torch.equal(shown[[0, 2]], torch.ones(2, len(ATTRIBUTES)))
    assert {name for name, value in zip(ATTRIBUTES, shown[1], strict=True) if value == 0} == set(COLOURS)


# --- losses ---

LOW = dict.fromkeys(ATTRIBUTES, 0.0)


def crowd(**values: float) -> People:
    """Four like people: every attribute 0 but those given, short hair."""
    return {
        **{name: torch.full((4,), {**LOW, **values}[name]) for name in ATTRIBUTES},
        "hair_style": torch.zeros(4, dtype=torch.long),
    }


def losses_at(people: People, logits: Tensor) -> dict[str, float]:
    blank = torch.zeros(4, 3, 128, 128, dtype=torch.uint8)
    losses = probe_losses(Fixed(logits), blank, people, 3, CPU)
    return {name: value.item() for name, value in losses(0, torch.Generator().manual_seed(0)).items()}


def sure(people: People, hair: int = 0) -> Tensor:
    """Logits of a probe that is right and sure of it."""
    values = torch.tensor([[40.0 if people[name][0] > 0.5 else -40.0 for name in ATTRIBUTES]])
    styles = torch.full((1, len(HAIR_STYLES)), -40.0)
    styles[0, hair] = 40.0
    return torch.cat([values, styles], dim=1)


def test_perfect_logits_cost_nothing() -> None:
    people = crowd(glasses=1.0, age=1.0, scale=1.0)
    assert losses_at(people, sure(people)) == pytest.approx({"square": 0, "cross": 0, "hair": 0}, abs=1e-6)


def test_one_wrong_reading_costs_its_share() -> None:
    people = crowd(glasses=1.0)
    wrong = sure(crowd(glasses=0.0))
    # of 20 attributes one is off by 1; its cross entropy at a logit of -40 is 40
    assert losses_at(people, wrong) == pytest.approx(
        {"square": 4 / 20, "cross": 0.2 * 40 / 20, "hair": 0}, abs=1e-5
    )


def test_a_wrong_hair_style_costs_the_log_of_its_chance() -> None:
    people = crowd()
    assert losses_at(people, sure(people, hair=3))["hair"] == pytest.approx(0.1 * 80)


def test_soft_targets_are_best_met_by_their_own_logit() -> None:
    people = crowd(glasses=0.3)
    right = sure(people)
    right[0, ATTRIBUTES.index("glasses")] = math.log(0.3 / 0.7)
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert losses_at(people, right)["square"] == pytest.approx(0, abs=1e-6)
    assert losses_at(people, right)["cross"] == pytest.approx(0.2 * entropy / 20, abs=1e-6)


def test_the_colours_of_a_sketch_are_not_asked_for() -> None:
    colours = dict.fromkeys(COLOURS, 1.0)
    wrong = sure(crowd(sketch=1.0))
    hidden, seen = losses_at(crowd(sketch=1.0, **colours), wrong), losses_at(crowd(**colours), sure(crowd()))
    assert hidden == pytest.approx({"square": 0, "cross": 0, "hair": 0}, abs=1e-6)
    assert seen["square"] == pytest.approx(4 * len(COLOURS) / 20)
    assert seen["cross"] == pytest.approx(0.2 * 40 * len(COLOURS) / 20)


def test_images_go_with_their_people() -> None:
    """Images whose brightness is the person's age: a probe that reads brightness is right about age."""
    people = {**crowd(), "age": torch.tensor([0.0, 1.0, 1.0, 0.0])}
    images = (people["age"] * 255).to(torch.uint8)[:, None, None, None].expand(-1, 3, 128, 128)

    class Brightness(Probe):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = sure(crowd()).repeat(len(pixels), 1)
            logits[:, ATTRIBUTES.index("age")] = 40 * pixels.mean(dim=(1, 2, 3)).sign()
            return logits

    losses = probe_losses(Brightness(), images, people, 16, CPU)
    named = losses(0, torch.Generator().manual_seed(0))
    assert named["square"].item() == pytest.approx(0, abs=1e-6)


def test_every_parameter_learns(probe: Probe) -> None:
    people = sample_people(HELD_OUT[:2])
    images = torch.randint(0, 255, (2, 3, 128, 128), generator=torch.Generator().manual_seed(0)).byte()
    named = probe_losses(probe, images, people, 2, CPU)(0, torch.Generator().manual_seed(0))
    sum(named.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in probe.parameters())
    probe.zero_grad()
