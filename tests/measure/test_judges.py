"""The judges by hand: images of one colour, and encoders that see one channel of it."""

import math
from pathlib import Path

import pytest
import torch

from tests.measure.colours import LACKING, PAIRS, PROBE, TOOLS, Angle, flat, pair
from utils.config.schema import Config, choices
from utils.data.pairs import ImagePair
from utils.errors import UserError
from utils.generation.gallery_reader import ImageSeries
from utils.measure.instruments import Instruments, stacked
from utils.measure.judges import (
    JUDGES,
    ClipJudge,
    PairsJudge,
    ProbeJudge,
    build_judge,
    judge_lacks,
    judge_of,
)
from utils.measure.measures import pairwise_distances
from utils.measure.sliders import smoothness

TWO_PAIRS = [pair((0, 0, 0), (1, 0, 0)), pair((0, 0.2, 0), (2 / 3, 0.2, 0))]


def colours(images):
    """Two views of a base that sees colours: red and green at four corners, all three in the middle."""
    corners = images[:, :2].unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(4, 5))  # (B, 2, 2, 2)
    return [corners.flatten(2).transpose(1, 2), images.mean(dim=(2, 3))[:, None]]


BUILT = {
    "pairs": lambda: PairsJudge(colours, TWO_PAIRS),
    "probe": lambda: ProbeJudge(PROBE, TWO_PAIRS),
    "clip": lambda: ClipJudge(Angle(0), Angle(1), TWO_PAIRS),
}


@pytest.mark.parametrize("judge", BUILT)
def test_the_pairs_themselves_have_strength_1_and_damage_nothing(judge):
    found = BUILT[judge]()
    sources, targets = stacked(TWO_PAIRS)
    assert found.strength(sources, targets).mean().item() == pytest.approx(1, abs=1e-6)
    back = -2 if judge == "pairs" else -1  # by half the pairs' way, where an image has none left
    assert found.strength(targets, sources).mean().item() == pytest.approx(back, abs=1e-6)
    assert found.damage(sources, targets).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("judge", BUILT)
def test_an_editor_that_does_nothing_has_strength_0_and_damage_0(judge):
    found = BUILT[judge]()
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
    with pytest.raises(UserError, match="a difference, found none that CLIP tells apart"):
        ClipJudge(Angle(0), Angle(1), same)
    with pytest.raises(UserError, match="a difference, found none that the base tells apart"):
        PairsJudge(lambda images: colours(images[:, :1]), same).strength(flat((0, 0, 0)), flat((1, 0, 0)))
    with pytest.raises(UserError, match="a difference in 'age'"):
        ProbeJudge(PROBE, same)


def test_the_way_that_is_left_is_the_unit_of_the_pairs_judge():
    judge = PairsJudge(colours, [pair((0, 0, 0), (1, 0, 0))])
    before = flat((0.25, 0.5, 0), (0.25, -0.5, 1))  # a quarter of the way gone
    halfway, beside = before.clone(), before.clone()
    halfway[:, 0] += 0.375
    beside[:, 1] += 0.375
    assert judge.strength(before, halfway).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert judge.damage(before, halfway).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert judge.strength(before, beside).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert judge.damage(before, beside).min() > 0.1
    assert judge.distance(before, beside).tolist() == pytest.approx(judge.damage(before, beside).tolist())
    arrived = flat((0.9, 0.5, 0), (0.9, -0.5, 1))  # the unit is never less than half the pairs' way
    moved = arrived.clone()
    moved[:, 0] += 0.5
    assert judge.strength(arrived, moved).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_distances_along_a_slider_have_one_unit():
    """A straight way to the targets, on which people grow alike: steps add up."""
    before = flat((0, 0.5, 0), (0.5, -0.5, 1))
    target = flat((1, 0, 0), (1, 0, 0))
    images = {scale: torch.lerp(before, target, scale) for scale in (0.0, 0.5, 0.75)}
    judge = PairsJudge(colours, [pair((0, 0, 0), (1, 0, 0))])
    found = pairwise_distances(ImageSeries(["a", "b"], images), judge.distance, judge)
    torch.testing.assert_close(found[:, 0, 1], 2 * found[:, 1, 2])
    torch.testing.assert_close(found[:, 0, 2], found[:, 0, 1] + found[:, 1, 2])
    assert smoothness(found).tolist() == pytest.approx([0, 0], abs=1e-5)


def test_the_view_that_sees_less_of_an_edit_counts():
    """Half of the image is red: the corners see it at half of the places, the other view half as red."""

    def views(images):
        one, other = colours(images)
        return [one, other * torch.tensor([0.5, 1, 1]) + images[:, 1:2].mean(dim=(2, 3))[:, None] ** 2]

    judge = PairsJudge(views, PAIRS)
    before, after = flat((0, 0, 0), (0, 0.5, 0)), flat((1, 0, 0), (1, 0.5, 0))
    after[:, 0, :8] = 0
    by_view = [PairsJudge(lambda x, i=i: [views(x)[i]], PAIRS).strength(before, after) for i in (0, 1)]
    assert judge.strength(before, after).tolist() == torch.stack(by_view).amin(dim=0).tolist()


def test_the_support_is_where_the_pairs_change():
    """A change elsewhere counts for nothing."""
    source, target = flat((0, 0, 0), (0, 0, 0))
    target = target.clone()
    target[0, :8, :8] = 1
    judge = PairsJudge(lambda x: colours(x)[:1], [ImagePair("0", source, target, Path("a"), Path("b"))])
    before = flat((0, 0.1, 0), (0, -0.1, 0))
    here, elsewhere = before.clone(), before.clone()
    here[:, 0, :8, :8] += 1
    elsewhere[:, 0, 8:, 8:] += 1
    assert judge.strength(before, here).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert judge.strength(before, elsewhere).tolist() == [0, 0]
    assert judge.damage(before, elsewhere).tolist() == [0, 0]


def test_images_of_another_size_are_judged_at_the_pairs():
    judge, before = PairsJudge(colours, PAIRS), flat((0, 0.5, 0), (0, -0.5, 0))
    after = before.clone()
    after[:, 0] = 1
    larger = [images.repeat_interleave(2, 2).repeat_interleave(2, 3) for images in (before, after)]
    assert judge.strength(*larger).tolist() == pytest.approx(judge.strength(before, after).tolist(), abs=1e-5)


def test_images_of_another_ratio_are_judged_by_their_middle():
    judge, before = PairsJudge(colours, PAIRS), flat((0, 0.5, 0), (0, -0.5, 0))
    after = before.clone()
    after[:, 0] = 1
    beside = torch.rand_like(before)
    wide = [torch.cat([beside, images, beside], dim=3) for images in (before, after)]
    assert judge.strength(*wide).tolist() == judge.strength(before, after).tolist()


def test_pairs_of_several_sizes_are_stacked_at_the_most_common():
    tall = ImagePair("t", torch.rand(3, 32, 16), torch.rand(3, 32, 16), Path("a"), Path("b"))
    sources, targets = stacked([tall, *TWO_PAIRS])
    assert sources.shape == targets.shape == (3, 3, 16, 16)
    assert torch.equal(sources[0], tall.source[:, 8:24])
    assert torch.equal(targets[0], tall.target[:, 8:24])
    assert torch.equal(sources[1], TWO_PAIRS[0].source)


def test_every_judge_is_built_from_what_it_needs():
    assert {*JUDGES} == {*choices("judge")}
    with_probe, without = Instruments(LACKING, PROBE, colours), Instruments(TOOLS, None, colours)
    for name in JUDGES:
        judge = build_judge(Config(judge=name), Instruments(TOOLS, PROBE, colours), TWO_PAIRS)
        assert isinstance(judge, JUDGES[name])
    assert build_judge(Config(judge="probe"), with_probe, PAIRS).kind == "probe"
    # an edit that the probe does not know
    assert build_judge(Config(judge="probe"), without, PAIRS).kind == "pairs"
    assert judge_of(Config(judge="clip"), None) == "clip"
    only_needed = {**LACKING, "clip": Angle(0), "dinov2": Angle(1)}
    judge = build_judge(Config(judge="clip"), Instruments(only_needed), PAIRS)
    # of DINOv2, which sees green
    assert judge.damage(flat((0, 0, 0)), flat((0, 1, 0))).item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_a_judge_that_lacks_a_network_says_which(name):
    tools = {**TOOLS, name: LACKING[name]}
    assert judge_lacks("clip", tools) is LACKING[name]
    assert judge_lacks("pairs", tools) is None
    assert build_judge(Config(judge="clip"), Instruments(tools), PAIRS) is LACKING[name]


def test_a_judge_that_lacks_its_instrument_says_so():
    with pytest.raises(ValueError, match="judge probe: expected a probe, found none"):
        ProbeJudge.of(Instruments(TOOLS), PAIRS)
    with pytest.raises(ValueError, match="judge pairs: expected what the base sees, found nothing"):
        PairsJudge.of(Instruments(TOOLS), PAIRS)
