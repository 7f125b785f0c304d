"""The world's people: drawn from seeds, correlated as in life, described by what they have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tinyflux.captions import present
from tinyflux.people import (
    ATTRIBUTES,
    CONTINUOUS,
    EDITS,
    EDITS_CONTINUOUS,
    EDITS_YES_NO,
    HAIR_STYLES,
    IDENTITY_CONTINUOUS,
    STYLES,
    YES_NO,
    People,
    sample_independent,
    sample_people,
    stack_people,
    take,
    with_attribute,
)
from tinyflux.seeds import HELD_OUT

COUNT = 8000
SAMPLERS = [sample_people, sample_independent]


@pytest.fixture(scope="module")
def world() -> People:
    return sample_people(HELD_OUT[:COUNT])


@pytest.fixture(scope="module")
def independent() -> People:
    return sample_independent(HELD_OUT[:COUNT])


def near(value: float, count: int = COUNT) -> object:
    """A share, to within four standard errors."""
    return pytest.approx(value, abs=4 * (value * (1 - value) / count) ** 0.5)


def rate(values: torch.Tensor) -> float:
    return values.float().mean().item()


def test_attributes_are_each_of_one_kind() -> None:
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 20
    assert set(YES_NO) == {*EDITS_YES_NO, *STYLES, "male"}
    assert set(CONTINUOUS) == {*EDITS_CONTINUOUS, *IDENTITY_CONTINUOUS}
    assert set(EDITS) == {"age", "smile", "glasses", "beard", "elf_ears", "big_eyes", "chubby", "lipstick"}


@pytest.mark.parametrize("sample", SAMPLERS)
def test_a_seed_is_a_person_whatever_the_batch(sample) -> None:
    together = sample([7, 3, 7, 2_000_001])
    for i, seed in enumerate((7, 3, 7, 2_000_001)):
        alone = sample([seed])
        assert set(alone) == {*ATTRIBUTES, "hair_style"}
        for name, value in alone.items():
            assert torch.equal(together[name][i : i + 1], value)
            assert value.dtype == (torch.int64 if name == "hair_style" else torch.float32)
    assert not torch.equal(together["skin"][0], together["skin"][1])


def test_the_world_stays_as_it_was() -> None:
    """The shipped weights and images are of these very people."""
    person = {name: value.item() for name, value in sample_people([HELD_OUT[0]]).items()}
    generator = np.random.Generator(np.random.Philox(key=2_000_000))
    draws = generator.random(24)
    assert person["skin"] == pytest.approx(draws[ATTRIBUTES.index("skin")])
    assert person["big_eyes"] == pytest.approx(draws[ATTRIBUTES.index("big_eyes")] ** 2)
    assert person["male"] == float(draws[6] < 0.5)
    assert ATTRIBUTES[:11] == (
        *("glasses", "beard", "elf_ears", "lipstick", "pixel_art", "sketch", "male"),
        *("age", "smile", "big_eyes", "chubby"),
    )


@pytest.mark.parametrize("sample", SAMPLERS)
def test_values_are_in_range(sample, world: People, independent: People) -> None:
    people = world if sample is sample_people else independent
    for name in ATTRIBUTES:
        assert people[name].min() >= 0
        assert people[name].max() <= 1
    assert people["hair_style"].unique().tolist() == list(range(len(HAIR_STYLES)))
    if sample is sample_people:
        assert all(set(people[name].tolist()) == {0.0, 1.0} for name in YES_NO)


def test_beards_and_lipstick_go_with_sex(world: People) -> None:
    men, women = world["male"] > 0.5, world["male"] < 0.5
    assert rate(men) == near(0.5)
    assert world["beard"][women].sum() == 0
    assert rate(world["beard"][men]) == near(0.45, COUNT // 2)
    assert rate(world["lipstick"][women]) == near(0.40, COUNT // 2)
    assert rate(world["lipstick"][men]) == near(0.03, COUNT // 2)


def test_glasses_go_with_age(world: People) -> None:
    for low in (0.0, 0.25, 0.5, 0.75):
        of_age = (world["age"] >= low) & (world["age"] < low + 0.25)
        assert rate(world["glasses"][of_age]) == near(0.15 + 0.3 * (low + 0.125), COUNT // 4)


def test_elf_ears_and_styles_are_rare_and_styles_exclude_each_other(world: People) -> None:
    assert rate(world["elf_ears"]) == near(0.15)
    assert rate(world["pixel_art"]) == near(0.07)
    assert rate(world["sketch"]) == near(0.07)
    assert (world["pixel_art"] * world["sketch"]).sum() == 0


def test_hair_goes_with_sex(world: People) -> None:
    shares = {1.0: (0.45, 0.25, 0.18, 0.04, 0.08), 0.0: (0.10, 0.05, 0.20, 0.30, 0.35)}
    for male, expected in shares.items():
        styles = world["hair_style"][world["male"] == male]
        for style, share in enumerate(expected):
            assert rate(styles == style) == near(share, COUNT // 2)


def test_continuous_attributes_are_uniform_but_big_eyes_and_chubby_are_rare(world: People) -> None:
    for name in CONTINUOUS:
        power = 2 if name in ("big_eyes", "chubby") else 1
        for share in (0.1, 0.5, 0.9):
            assert rate(world[name] < share**power) == near(share)


def test_independent_people_are_decorrelated(world: People, independent: People) -> None:
    def correlations(people: People) -> dict[frozenset[str], float]:
        table = torch.corrcoef(torch.stack([people[name] for name in ATTRIBUTES]))
        pairs = itertools.combinations(range(len(ATTRIBUTES)), 2)
        return {frozenset((ATTRIBUTES[i], ATTRIBUTES[j])): table[i, j].item() for i, j in pairs}

    in_life, free = correlations(world), correlations(independent)
    assert in_life[frozenset(("male", "beard"))] > 0.4
    assert in_life[frozenset(("male", "lipstick"))] < -0.4
    assert in_life[frozenset(("age", "glasses"))] > 0.15
    styles = frozenset(STYLES)
    assert free.pop(styles) < -0.05  # an image has one style
    assert max(abs(value) for value in free.values()) < 4.5 / COUNT**0.5
    hair = torch.corrcoef(torch.stack([independent["hair_style"].float(), independent["male"]]))[0, 1]
    assert abs(hair) < 4.5 / COUNT**0.5


def test_independent_people_take_every_value(independent: People) -> None:
    for name in EDITS_YES_NO:
        values = independent[name]
        between = (values > 0) & (values < 1)
        assert rate(between) == near(0.25)
        assert rate(values[between] < 0.5) == near(0.5, COUNT // 4)
        assert rate(values[~between]) == near(0.5, COUNT * 3 // 4)
    for name in STYLES:
        drawn = independent[name] > 0
        assert rate(drawn) == near(0.1)
        assert rate(independent[name][drawn] < 1) == near(0.3, COUNT // 10)
    assert (independent["pixel_art"] * independent["sketch"]).sum() == 0
    for name in CONTINUOUS:
        assert rate(independent[name] < 0.3) == near(0.3)
    for style in range(len(HAIR_STYLES)):
        assert rate(independent["hair_style"] == style) == near(0.2)


def test_with_attribute_changes_one(world: People) -> None:
    few = take(world, slice(0, 3))
    for value in (1.0, 0.25, torch.tensor([0.1, 0.2, 0.3])):
        changed = with_attribute(few, "smile", value)
        torch.testing.assert_close(changed["smile"], torch.as_tensor(value).expand(3))
        assert all(torch.equal(changed[name], few[name]) for name in few if name != "smile")
    assert torch.equal(few["smile"], world["smile"][:3])
    assert with_attribute(few, "hair_style", 4)["hair_style"].dtype == torch.int64
    with pytest.raises(KeyError, match=r"no attribute 'smiles'; the world has .*smile"):
        with_attribute(few, "smiles", 1.0)


def test_take_and_stack_are_inverse(world: People) -> None:
    few = take(world, slice(0, 5))
    again = stack_people([take(few, [0, 1]), take(few, torch.tensor([2])), take(few, slice(3, 5))])
    assert all(torch.equal(again[name], few[name]) for name in few)


def test_what_counts_as_present(world: People) -> None:
    for name in ("glasses", "sketch"):
        assert torch.equal(present(world, name), world[name] == 1)
    assert rate(present(world, "age")) == near(0.38)
    assert rate(present(world, "smile")) == near(0.45)
    assert rate(present(world, "chubby")) == near(1 - 0.45**0.5)
