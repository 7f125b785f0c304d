"""Eyes are read by drawing: what was drawn is found again, and eyes that differ are told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from tinyflux.evaluate import pixels_of
from tinyflux.eyes import Eyes, read_eyes, share_agreeing, who_is_there
from tinyflux.frame import frame_of
from tinyflux.people import People, sample_people, take
from tinyflux.people import with_attribute as with_
from tinyflux.probe import Probe, load_probe
from tinyflux.seeds import HELD_OUT


@pytest.fixture(scope="module")
def probe() -> Probe:
    return load_probe()


@pytest.fixture(scope="module")
def people() -> People:
    """Four who are drawn in no style."""
    some = sample_people(HELD_OUT[:12])
    return take(some, ((some["sketch"] + some["pixel_art"]) == 0).nonzero()[:4, 0])


@pytest.fixture(scope="module")
def pixels(people: People) -> Tensor:
    return pixels_of(people)


def test_what_was_drawn_is_found(probe: Probe, people: People, pixels: Tensor) -> None:
    eyes = read_eyes(probe, pixels)
    assert (eyes.size - people["big_eyes"][:, None]).abs().mean() < 0.08
    assert (eyes.colour - people["eye_colour"][:, None]).abs().mean() < 0.1
    assert eyes.height.abs().max() <= 1
    assert eyes.agree().float().mean() >= 3 / 4
    assert (who_is_there(probe, pixels)["hair_style"] == people["hair_style"]).float().mean() >= 3 / 4


@pytest.mark.parametrize("fault", ["size", "colour", "height", "smeared", "gone"])
def test_eyes_that_differ_do_not_agree(probe: Probe, people: People, pixels: Tensor, fault: str) -> None:
    """The face's left half is that of another drawing."""
    other = {
        "size": lambda: pixels_of(with_(people, "big_eyes", (people["big_eyes"] + 0.5) % 1)),
        "colour": lambda: pixels_of(with_(people, "eye_colour", (people["eye_colour"] < 0.5).float())),
        "height": lambda: pixels.roll(3, dims=2),
        "smeared": lambda: gaussian_blur(pixels, 13, 4.0),
        "gone": lambda: pixels.roll(14, dims=2),
    }[fault]()
    left = (frame_of(people, 128).feature_x < 0).float()[:, None]
    assert share_agreeing(probe, pixels * (1 - left) + other * left) <= 1 / 4


def test_two_eyes_agree_within_what_is_allowed() -> None:
    def eyes(**differing: tuple[float, float]) -> bool:
        values = {"size": (0.5, 0.5), "colour": (0.5, 0.5), "height": (0.0, 0.0), "distance": (0.1, 0.1)}
        return bool(Eyes(**{k: torch.tensor([v]) for k, v in (values | differing).items()}).agree())

    assert eyes()
    assert eyes(size=(0.25, 0.5), colour=(1 / 6, 0.5), height=(1.0, 0.0), distance=(0.17, 0.25))
    assert not eyes(size=(0.125, 0.5))
    assert not eyes(colour=(0.0, 0.5))
    assert not eyes(height=(-1.0, 1.0))
    assert not eyes(distance=(0.1, 0.2))
    assert not eyes(distance=(0.26, 0.26))


def test_styles_are_left_out(probe: Probe, people: People, pixels: Tensor) -> None:
    sketches = pixels_of(with_(people, "sketch", 1.0))
    assert share_agreeing(probe, torch.cat([sketches, pixels[:1]])) == 1
    with pytest.raises(ValueError, match="only images in a style"):
        share_agreeing(probe, sketches)
