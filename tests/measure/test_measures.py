"""What measures.py measures by hand: images of one colour, and encoders that see one channel of it."""

import math

import pytest
import torch

from tests.measure.colours import LACKING, PAIRS, PROBE, TOOLS, Lpips, flat, read
from utils.config.schema import Config
from utils.generation.gallery_reader import ImageSeries
from utils.measure.encoders import ENCODERS, Unavailable
from utils.measure.instruments import Probe, load_tools
from utils.measure.judges import ProbeJudge
from utils.measure.measures import (
    distance_measure,
    evaluate,
    pairwise_distances,
    preservation_measures,
    strength_measures,
)

JUDGE = ProbeJudge(PROBE, PAIRS)


def series(**scales):
    """An `ImageSeries` of one colour an identity at each scale: s_1=[...] is scale -1, s1=[...] scale 1."""
    images = {float(name[1:].replace("_", "-")): flat(*colours) for name, colours in scales.items()}
    return ImageSeries([str(i) for i in range(len(images[0.0]))], dict(sorted(images.items())))


# tools


def test_each_tool_is_loaded_from_its_own_key(monkeypatch):
    for name in ENCODERS:
        monkeypatch.setitem(
            ENCODERS, name, (lambda source, device, name=name: (name, source, device.type), "")
        )
    config = Config(**{f"{name}_weights": f"folder of {name}" for name in ENCODERS})
    tools = load_tools(config, torch.device("cpu"))
    assert tools == {name: (name, f"folder of {name}", "cpu") for name in ENCODERS}
    assert list(load_tools(config, torch.device("cpu"), ["dinov2"])) == ["dinov2"]


def test_a_tool_without_weights_says_so():
    config = Config(**{f"{name}_weights": "" for name in ENCODERS})
    tools = load_tools(config, torch.device("cpu"))
    assert set(tools) == set(ENCODERS)
    for name, tool in tools.items():
        assert isinstance(tool, Unavailable)
        assert (tool.name, tool.reason) == (name, "no weights named")


# measures


def test_how_far_an_edit_has_got_by_hand():
    measures = strength_measures(TOOLS, PAIRS, "an old person", JUDGE)
    assert list(measures) == ["CLIP direction", "CLIP score", "age, moved"]
    before = flat((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0))
    after = flat((1, 0, 0), (2 / 3, 0, 0), (-1, 0, 0), (0, 1, 1))
    found = {name: measure(before, after).tolist() for name, measure in measures.items()}
    # edits of 90, 60 and -90 degrees, and one that CLIP does not see; the pairs' chord points at 135 degrees
    cos15 = math.cos(math.radians(15))
    assert found["CLIP direction"] == pytest.approx([1, cos15, 0, 0], abs=1e-6)
    assert found["CLIP score"] == pytest.approx([100, 100 * math.sin(math.radians(60)), 0, 0], abs=1e-4)
    assert found["age, moved"] == pytest.approx([1, 2 / 3, -1, 0])


def test_what_is_not_asked_for_is_left_out():
    assert list(strength_measures(TOOLS, PAIRS)) == ["CLIP direction"]
    assert list(strength_measures(LACKING, PAIRS, "", JUDGE)) == ["CLIP direction", "age, moved"]
    assert "leak" not in preservation_measures(TOOLS)


def test_what_is_left_of_an_image_by_hand():
    measures = preservation_measures(TOOLS, JUDGE)
    before, after = flat((0, 0, 0), (0, 0, 0)), flat((0, 0, 0), (0.2, 1 / 3, 2 / 3))
    found = {name: measure(before, after).tolist() for name, measure in measures.items()}
    error = (0.2**2 + (1 / 3) ** 2 + (2 / 3) ** 2) / 3
    mean, c1 = [(colour + 1) / 2 for colour in (0.2, 1 / 3, 2 / 3)], 0.01**2
    assert found.pop("SSIM") == pytest.approx(
        [1, sum((x + c1) / (0.25 + x * x + c1) for x in mean) / 3], abs=1e-6
    )
    expected = {
        "pixel change": [0, 0.2],
        "PSNR": [math.inf, 10 * math.log10(4 / error)],
        "LPIPS alex": [0, 2 / 3],
        "LPIPS alex, 64 px": [64, 64 + 2 / 3],
        "LPIPS vgg": [0, 2 / 3],
        "DINOv2": [1, math.cos(math.radians(30))],
        "ArcFace": [1, math.cos(math.radians(60))],
        "probe distance": [0, math.hypot(0.2, 1 / 3, 2 / 3)],
        "leak": [0, (1 / 6 + 1 / 3) / 2],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-5), name


def test_before_and_after_are_not_swapped(monkeypatch):
    """Of measures that are symmetric nobody would see it; the order is the networks' as well."""
    calls = []

    class Ordered(Lpips):
        def distance(self, a, b, resolution):
            calls.append((a[0, 0, 0, 0].item(), b[0, 0, 0, 0].item()))
            return super().distance(a, b, resolution)

    tools = {**TOOLS, "lpips_alex": Ordered()}
    preservation_measures(tools)["LPIPS alex"](flat((0, 0, 0)), flat((1, 0, 0)))
    distance_measure(tools)(flat((0, 0, 0)), flat((1, 0, 0)))
    assert calls == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("tool", "measures"),
    [
        ("clip", ["CLIP direction", "CLIP score"]),
        ("dinov2", ["DINOv2"]),
        ("arcface", ["ArcFace"]),
        ("lpips_alex", ["LPIPS alex", "LPIPS alex, 64 px"]),
        ("lpips_vgg", ["LPIPS vgg"]),
    ],
)
def test_a_measure_that_lacks_its_network_stays_and_says_why(tool, measures):
    tools = {**TOOLS, tool: LACKING[tool]}
    both = {**strength_measures(tools, PAIRS, "old", JUDGE), **preservation_measures(tools, JUDGE)}
    assert [name for name, measure in both.items() if measure is LACKING[tool]] == measures
    everything = strength_measures(TOOLS, PAIRS, "old", JUDGE), preservation_measures(TOOLS, JUDGE)
    assert both.keys() == everything[0].keys() | everything[1].keys()
    found = evaluate(series(s0=[(0, 0, 0)], s1=[(1, 0, 0)]), both)[1.0]
    assert [name for name, value in found.items() if value is LACKING[tool]] == measures
    assert all(value.shape == (1,) for name, value in found.items() if name not in measures)


def test_the_leak_is_of_what_should_have_stayed():
    before, after = flat((0, 0, 0)), flat((1, 0.4, -0.8))
    assert JUDGE.damage(before, after).item() == pytest.approx((0.2 + 0.4) / 2)
    on_purpose = Probe(PROBE.read, PROBE.features, "age", ("beard",))
    assert ProbeJudge(on_purpose, PAIRS).damage(before, after).item() == pytest.approx(0.2)
    assert JUDGE.damage(before, flat((1, 0, 0))).item() == 0


def test_the_probes_distance_is_euclidean_and_carries_no_gradient():
    weight = torch.ones((), requires_grad=True)
    probe = Probe(read, lambda images: images.mean(dim=(2, 3)) * weight, "age")
    images = flat((0, 0, 0), (1, 1, 1)), flat((0.3, 0, -0.4), (1, 1, 1))
    found = ProbeJudge(probe, PAIRS).distance(*images)
    assert found.tolist() == pytest.approx([0.5, 0])
    assert not found.requires_grad
    apart = Probe(probe.read, probe.features, "age", strangers=0.25)
    assert ProbeJudge(apart, PAIRS).distance(*images).tolist() == pytest.approx([2, 0])


def test_the_sliders_distance_is_the_probes_or_lpips():
    before, after = flat((0, 0, 0)), flat((0.3, 0, -0.4))
    assert distance_measure(LACKING, JUDGE)(before, after).item() == pytest.approx(0.5)
    assert distance_measure(TOOLS)(before, after).item() == pytest.approx(0.4)
    assert distance_measure(LACKING) is LACKING["lpips_alex"]


# of a whole series


def test_every_scale_is_measured_against_scale_0():
    of_slider = series(
        s_1=[(-0.5, 0, 0), (0, 0, 0)], s0=[(0, 0, 0), (0.5, 0, 0)], s2=[(1, 0, 0), (0.6, 0, 0)]
    )
    red = {"red": lambda before, after: (after - before)[:, 0, 0, 0], "none": LACKING["clip"]}
    found = evaluate(of_slider, red)
    assert list(found) == [-1.0, 2.0]
    assert found[-1.0]["red"].tolist() == pytest.approx([-0.5, -0.5])
    assert found[2.0]["red"].tolist() == pytest.approx([1, 0.1])
    assert found[-1.0]["none"] is found[2.0]["none"] is LACKING["clip"]


def test_pairwise_distances_are_symmetric_with_zeros_on_the_diagonal():
    of_slider = series(
        s_1=[(-0.5, 0, 0), (0, 0, 0)], s0=[(0, 0, 0), (0.5, 0, 0)], s2=[(1, 0, 0), (0.6, 0, 0)]
    )
    found = pairwise_distances(of_slider, JUDGE.distance)
    expected = [
        [[0, 0.5, 1.5], [0.5, 0, 1], [1.5, 1, 0]],
        [[0, 0.5, 0.6], [0.5, 0, 0.1], [0.6, 0.1, 0]],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


# the ends of the scales


def test_a_perfect_editor_and_one_that_does_nothing():
    people = [(0, 0.2, -0.3), (0, 0.5, 0.1), (0, -0.8, 0.7)]
    edited = [(1, *rest) for _, *rest in people]
    measures = strength_measures(TOOLS, PAIRS, "", JUDGE) | preservation_measures(TOOLS, JUDGE)
    found = evaluate(series(s0=people, s1=edited, s2=people), measures)
    perfect, idle = found[1.0], found[2.0]
    for name in ("CLIP direction", "age, moved", "DINOv2", "ArcFace"):
        assert perfect[name].tolist() == pytest.approx([1] * 3, abs=1e-6), name
    assert perfect["leak"].tolist() == [0] * 3
    for name in ("CLIP direction", "age, moved", "pixel change", "LPIPS alex", "LPIPS vgg", "leak"):
        assert idle[name].tolist() == [0] * 3, name
    assert idle["probe distance"].tolist() == [0] * 3
    assert idle["PSNR"].tolist() == [math.inf] * 3
    for name in ("SSIM", "DINOv2", "ArcFace"):
        assert idle[name].tolist() == pytest.approx([1] * 3, abs=1e-6), name
