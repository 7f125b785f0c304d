"""The judges by hand: images of one colour, and encoders that see one channel of it."""

import math

import pytest

from tests.measure.colours import LACKING, PAIRS, PROBE, TOOLS, Angle, flat, pair
from utils.config.schema import Config, choices
from utils.errors import UserError
from utils.measure.judges import JUDGES_TOOLS, ClipJudge, ProbeJudge, build_judge, judge_lacks, stacked

TWO_PAIRS = [pair((0, 0, 0), (1, 0, 0)), pair((0, 0.2, 0), (2 / 3, 0.2, 0))]
JUDGES = {
    "probe": lambda: ProbeJudge(PROBE, TWO_PAIRS),
    "clip": lambda: ClipJudge(Angle(0), Angle(1), TWO_PAIRS),
}


@pytest.mark.parametrize("judge", JUDGES)
def test_the_pairs_themselves_have_strength_1_and_damage_nothing(judge):
    found = JUDGES[judge]()
    sources, targets = stacked(TWO_PAIRS)
    assert found.strength(sources, targets).mean().item() == pytest.approx(1, abs=1e-6)
    assert found.strength(targets, sources).mean().item() == pytest.approx(-1, abs=1e-6)
    assert found.damage(sources, targets).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("judge", JUDGES)
def test_an_editor_that_does_nothing_has_strength_0_and_damage_0(judge):
    found = JUDGES[judge]()
    images = flat((0.1, 0.5, 0.9), (-0.7, 0, 0.3))
    assert found.strength(images, images.clone()).tolist() == [0, 0]
    assert found.damage(images, images.clone()).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_strength_and_damage_by_the_probe_by_hand():
    judge = ProbeJudge(PROBE, TWO_PAIRS)
    assert judge.pair_difference == pytest.approx(5 / 12)  # mean of 1/2 and 1/3
    before, after = flat((0, 0, 0)), flat((0.5, 0.2, -0.6))
    assert judge.strength(before, after).item() == pytest.approx(0.25 / (5 / 12))
    assert judge.damage(before, after).item() == pytest.approx((0.1 + 0.3) / 2)


def test_strength_and_damage_by_clip_by_hand():
    judge = ClipJudge(Angle(0), Angle(1), PAIRS)  # d = (-1, 1)
    before, after = flat((0, 0, 0), (0, 0, 0)), flat((2 / 3, 1, 0), (1, 2 / 3, 0))
    sixty = math.sin(math.radians(60))
    assert judge.strength(before, after).tolist() == pytest.approx([(0.5 + sixty) / 2, 1])
    assert judge.damage(before, after).tolist() == pytest.approx([1, 0.5], abs=1e-6)


def test_strength_by_clip_is_the_mean_pairs_own():
    judge = ClipJudge(Angle(0), Angle(1), TWO_PAIRS)
    sixty = math.sin(math.radians(60))
    assert judge.direction.tolist() == pytest.approx([-0.75, (1 + sixty) / 2])
    d2 = 0.75**2 + ((1 + sixty) / 2) ** 2
    assert judge.strength(*stacked(PAIRS)).item() == pytest.approx((0.75 + (1 + sixty) / 2) / d2)


def test_pairs_that_do_not_differ_have_no_unit():
    same = [pair((0.3, 0, 0), (0.3, 1, 1))]
    with pytest.raises(ValueError, match="expected pairs that differ, found none that CLIP tells apart"):
        ClipJudge(Angle(0), Angle(1), same)
    judge = ProbeJudge(PROBE, same)
    with pytest.raises(ValueError, match="expected pairs that differ in 'age'"):
        judge.strength(flat((0, 0, 0)), flat((1, 0, 0)))


def test_the_studys_judge():
    assert {*JUDGES_TOOLS} == {*choices("judge")}
    judge = build_judge(Config(judge="probe"), LACKING, PAIRS, PROBE)
    assert isinstance(judge, ProbeJudge)
    assert judge_lacks(Config(judge="probe"), LACKING) is None
    assert isinstance(build_judge(Config(judge="clip"), TOOLS, PAIRS, None), ClipJudge)
    assert judge_lacks(Config(judge="clip"), TOOLS) is None
    only_needed = {**LACKING, "clip": Angle(0), "dinov2": Angle(1)}
    assert build_judge(Config(judge="clip"), only_needed, PAIRS, None).damage(
        flat((0, 0, 0)), flat((0, 1, 0))
    ).item() == pytest.approx(1)  # of DINOv2, which sees green


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_a_judge_that_lacks_a_network_says_which(name):
    tools = {**TOOLS, name: LACKING[name]}
    assert judge_lacks(Config(judge="clip"), tools) is LACKING[name]
    with pytest.raises(UserError) as caught:
        build_judge(Config(judge="clip"), tools, PAIRS, None)
    assert str(caught.value) == (
        f"judge clip: {name}: not available: no weights named; to have it: set {name}"
    )


def test_a_judge_that_lacks_its_probe_says_so():
    with pytest.raises(ValueError, match="judge probe: expected a probe, found none"):
        build_judge(Config(judge="probe"), TOOLS, PAIRS, None)
