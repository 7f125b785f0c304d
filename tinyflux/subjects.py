"""Captioned images that ship with the repository: three people, five pictures of each, and a style.

`python -m tinyflux.datasets` writes them: train/datasets/NAME/N.png, and N.txt with what is said of it. In a
person's pictures everything is the same that says who it is; head, mood, shirt and background vary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tinyflux.captions import HUES, NAMED_ABOVE, in_frame, word_of
from tinyflux.faces import to_uint8
from tinyflux.people import People, sample_people, take, with_attribute
from tinyflux.render import render
from tinyflux.seeds import SUBJECTS
from tinyflux.styles import sketch

PEOPLE = {"anna": 0, "ben": 1, "cleo": 2}
"""Dataset name -> position of its person in the seeds' range."""
STYLE = "blueprint"
PICTURES = 5
WHO = (
    *("male", "age", "big_eyes", "chubby", "beard", "elf_ears"),
    *("skin", "hair_tone", "face_shape", "eye_colour", "long_hair"),
)
"""What says who somebody is, by the probe's names; all else may differ from picture to picture."""
_VARIES = ("turn", "tilt", "scale", "clothes", "background", "smile")
_PLAIN = ("glasses", "lipstick", "pixel_art", "sketch")
_BLUE, _CHALK = (0.10, 0.24, 0.52), (0.93, 0.96, 1.0)


def people_of(name: str, count: int = PICTURES) -> People:
    """The person of a dataset as often as there are pictures, or different people for the style."""
    if name == STYLE:
        seeds = [SUBJECTS[10_000 + i] for i in range(count)]
        people = sample_people(seeds)
    else:
        number = PEOPLE[name]
        moods = sample_people([SUBJECTS[100 * (number + 1) + i] for i in range(count)])
        one = take(sample_people([SUBJECTS[_FACES[number]]]), [0] * count)
        people = {key: (moods if key in _VARIES else one)[key] for key in one}
    for edit in _PLAIN:
        people = with_attribute(people, edit, 0.0)
    return people


_FACES = (6, 11, 18)
"""Chosen by eye: unlike each other in sex, age, skin, hair and eyes."""


def pictures_of(name: str, people: People) -> Tensor:
    """Images (B, 3, 128, 128) in [0, 1]; of the style, drawn in it."""
    images = render(people)
    return blueprint(images) if name == STYLE else images


def blueprint(images: Tensor) -> Tensor:
    """A drawing in chalk on blue paper, (B, 3, H, W) in [0, 1]: a style new to the small FLUX."""
    dark = 1 - sketch(images).mean(dim=1, keepdim=True)
    line = (dark * 1.6).clamp(0, 1)
    paper, chalk = (torch.tensor(each, device=images.device)[None, :, None, None] for each in (_BLUE, _CHALK))
    return torch.lerp(paper, chalk, line)


def caption_of(name: str, person: People) -> str:
    """What is said of a picture: the subject by [trigger] and its class, and what varies by its words."""
    shirt = in_frame("in {a} shirt", word_of(person["clothes"].item(), HUES)[0])
    background = in_frame("on {a} background", word_of(person["background"].item(), HUES)[0])
    smiling = ["smiling"] if person["smile"].item() > NAMED_ABOVE["smile"] else []
    if name == STYLE:
        who = "man" if person["male"].item() > 0.5 else "woman"
        return ", ".join([f"a [trigger] drawing of a {who}", *smiling])
    return ", ".join(["a photo of [trigger] person", *smiling, shirt, background])


def all_captioned() -> Iterator[tuple[Path, Tensor, str]]:
    """Every picture, relative to the datasets' folder: its path, uint8 pixels (3, H, W), its caption."""
    for name in (*PEOPLE, STYLE):
        people = people_of(name)
        pixels = to_uint8(pictures_of(name, people))
        for i in range(PICTURES):
            yield Path(name) / f"{i + 1}.png", pixels[i], caption_of(name, take(people, [i]))
