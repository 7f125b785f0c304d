"""Who is in the face world: named attributes, people drawn from a seed, and the captions that describe them.

Every attribute is a number in [0, 1]; `hair_style` is an index into HAIR_STYLES. Yes/no attributes are 0 or 1
in the world, but the renderer accepts any value between (half-grown elf ears), which is what a slider is for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

EDITS_YES_NO = ("glasses", "beard", "elf_ears", "lipstick")
EDITS_CONTINUOUS = ("age", "smile", "big_eyes", "chubby")
STYLES = ("pixel_art", "sketch")
EDITS = EDITS_CONTINUOUS + EDITS_YES_NO
IDENTITY_CONTINUOUS = (
    "skin",
    "hair_tone",
    "face_shape",
    "eye_colour",
    "clothes",
    "background",
    "turn",
    "tilt",
    "scale",
)
IDENTITY_YES_NO = ("male",)
HAIR_STYLES = ("short", "spiky", "curly", "bob", "long")
LONG_HAIR = ("bob", "long")

YES_NO = EDITS_YES_NO + STYLES + IDENTITY_YES_NO
CONTINUOUS = EDITS_CONTINUOUS + IDENTITY_CONTINUOUS
ATTRIBUTES = YES_NO + CONTINUOUS
COLOURS = ("skin", "hair_tone", "eye_colour", "clothes", "background")
"""Attributes that a sketch, being grey, hides."""

People = dict[str, Tensor]
"""Attribute name -> (B,) float tensor; 'hair_style' -> (B,) long tensor."""

# One number per attribute is drawn from each seed; their order is part of the world and must not change.
_DRAWS = (*ATTRIBUTES, "hair_style", "lipstick_strength", "style", "young")


def sample_people(seeds: Sequence[int]) -> People:
    """Draw one person per seed. Equal seeds give equal people, whatever else is in the batch.

    Correlations as in life: beards grow on men and lipstick is mostly on women, glasses and age go together,
    hair styles differ. Men and women are equally frequent.
    """
    draws = np.stack([np.random.Generator(np.random.Philox(key=seed)).random(len(_DRAWS)) for seed in seeds])
    u = {name: torch.tensor(draws[:, i], dtype=torch.float32) for i, name in enumerate(_DRAWS)}
    male = (u["male"] < 0.5).float()

    def yes(name: str, chance: Tensor | float) -> Tensor:
        return (u[name] < chance).float()

    people: People = {name: u[name] for name in IDENTITY_CONTINUOUS}
    people["male"] = male
    people["age"] = u["age"]
    people["smile"] = u["smile"]
    people["big_eyes"] = u["big_eyes"] ** 2
    people["chubby"] = u["chubby"] ** 2
    people["glasses"] = yes("glasses", 0.15 + 0.3 * people["age"])
    people["beard"] = yes("beard", 0.45 * male)
    people["elf_ears"] = yes("elf_ears", 0.15)
    people["lipstick"] = yes("lipstick", 0.4 - 0.37 * male)
    people["pixel_art"] = (u["style"] < 0.07).float()
    people["sketch"] = ((u["style"] >= 0.07) & (u["style"] < 0.14)).float()
    men = torch.tensor([0.45, 0.70, 0.88, 0.92])
    women = torch.tensor([0.10, 0.15, 0.35, 0.65])
    steps = torch.where(male[:, None] > 0.5, men, women)
    people["hair_style"] = (u["hair_style"][:, None] > steps).sum(dim=1)
    return people


def sample_independent(seeds: Sequence[int]) -> People:
    """Draw one person per seed with every attribute uniform and independent of the others.

    No attribute tells anything of another here, and yes/no attributes take every value between: what an
    instrument must be trained on that is to catch leaks and to follow a slider. A quarter of the yes/no
    values lies strictly between 0 and 1; a style is there in one image out of five.
    """
    draws = np.stack(
        [np.random.Generator(np.random.Philox(key=seed)).random((2, len(_DRAWS))) for seed in seeds]
    )
    u = {name: torch.tensor(draws[:, 0, i], dtype=torch.float32) for i, name in enumerate(_DRAWS)}
    between = {name: torch.tensor(draws[:, 1, i], dtype=torch.float32) for i, name in enumerate(_DRAWS)}
    people: People = {name: u[name] for name in (*EDITS_CONTINUOUS, *IDENTITY_CONTINUOUS)}
    people["male"] = (u["male"] < 0.5).float()
    for name in EDITS_YES_NO:
        people[name] = torch.where(between[name] < 0.25, u[name], (u[name] < 0.5).float())
    for name, low in zip(STYLES, (0.0, 0.1), strict=True):
        drawn = (u["style"] >= low) & (u["style"] < low + 0.1)
        people[name] = torch.where(between["style"] < 0.3, u["young"], 1.0) * drawn
    people["hair_style"] = (u["hair_style"] * len(HAIR_STYLES)).long()
    return people


def stack_people(batch: Sequence[People]) -> People:
    """Concatenate people along the batch."""
    return {name: torch.cat([people[name] for people in batch]) for name in batch[0]}


def take(people: People, index: Tensor | slice | list[int]) -> People:
    """The people at `index`."""
    return {name: value[index] for name, value in people.items()}


def with_attribute(people: People, name: str, value: float | Tensor) -> People:
    """The same people with one attribute set to `value`: the ground truth of an edit.

    Raises:
        KeyError: `name` is not an attribute.
    """
    if name not in people:
        raise KeyError(f"no attribute {name!r}; the world has {', '.join(people)}")
    changed = torch.as_tensor(value, dtype=people[name].dtype).expand_as(people[name]).clone()
    return {**people, name: changed}
