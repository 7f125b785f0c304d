"""Measures of a learned subject: is it that one, are prompts followed, has its class moved, do images differ?

    identity    images of the subject against its reference images
    followed    whether an image shows what its prompt asks for beside the subject
    drift       images of the class, of one seed, with and without the LoRA
    diversity   mean distance between two images of one prompt, in units of that between two references

By a probe where there is one, and by whichever networks have weights (ArcFace, DINOv2, CLIP). What has none
is an `Unavailable` that says so, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.measure.encoders import Unavailable, cosine, text_score

Values = Tensor | Unavailable
FACES = ("arcface", "dinov2", "clip")
"""Networks by which two images are compared, by the names that weights go by."""


@dataclass(frozen=True)
class SubjectProbe:
    """What reads a rendered world, as far as subjects go.

    Attributes:
        error: (images (B, 3, H, W), references) -> (B,), how far off the subject, in units of ranges.
        change: (images, the same without the LoRA) -> (B,), how far who is there has changed.
        followed: (images, prompt) -> (B,) of 0 and 1, or None for a prompt that asks for nothing.
        described: references -> the subject in words.
        features: images -> (B, D), for distances.
        name: of `error`.
    """

    error: Callable[[Tensor, Tensor], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]
    followed: Callable[[Tensor, str], Tensor | None]
    described: Callable[[Tensor], str]
    features: Callable[[Tensor], Tensor]
    name: str


def identity(
    images: Tensor, references: Tensor, tools: Mapping[str, Any], probe: SubjectProbe | None
) -> dict[str, Values]:
    """How much the images (B, 3, H, W) are of the subject of the references (R, 3, H, W).

    Returns:
        The probe's error, lower is better; by each network the cosine to the mean of the references.
    """
    found: dict[str, Values] = {}
    if probe is not None:
        found[probe.name] = probe.error(images, references)
    for name, tool in _networks(tools):
        if isinstance(tool, Unavailable):
            found[f"{name} similarity"] = tool
        else:
            mean = tool.embed(references).mean(dim=0, keepdim=True)
            found[f"{name} similarity"] = cosine(tool.embed(images), mean.repeat(len(images), 1))
    return found


def followed(
    images: Tensor, prompt: str, tools: Mapping[str, Any], probe: SubjectProbe | None
) -> dict[str, Values]:
    """Whether images show what their prompt asks for: by the probe 0 or 1, by CLIP its score, 0 to 100."""
    found: dict[str, Values] = {}
    if probe is not None and (shown := probe.followed(images, prompt)) is not None:
        found["prompt followed"] = shown
    if (clip := tools.get("clip")) is not None:
        unavailable = isinstance(clip, Unavailable)
        score = clip if unavailable else text_score(clip.embed(images), clip.embed_text([prompt])[0])
        found["CLIPScore"] = score
    return found


def drift(
    images: Tensor, before: Tensor, tools: Mapping[str, Any], probe: SubjectProbe | None
) -> dict[str, Values]:
    """How far images of the class with the LoRA are from those without, seed by seed: 0 = not at all."""
    found: dict[str, Values] = {}
    if probe is not None:
        found["drift of the class"] = probe.change(images, before)
    for name, tool in _networks(tools):
        unavailable = isinstance(tool, Unavailable)
        found[f"{name} drift"] = tool if unavailable else 1 - cosine(tool.embed(images), tool.embed(before))
    return found


def diversity(
    images: Tensor, references: Tensor, tools: Mapping[str, Any], probe: SubjectProbe | None
) -> dict[str, Values]:
    """Mean distance between two images, in units of that between two references; (1,) each."""
    found: dict[str, Values] = {}
    if probe is not None:
        found["diversity"] = _spread(probe.features(images)) / _spread(probe.features(references))
    for name, tool in _networks(tools):
        unavailable = isinstance(tool, Unavailable)
        found[f"{name} diversity"] = (
            tool if unavailable else _spread(tool.embed(images)) / _spread(tool.embed(references))
        )
    return found


def _spread(features: Tensor) -> Tensor:
    """Mean distance of two of N features (N, D), N >= 2; (1,)."""
    return torch.pdist(features.detach().float()).mean().reshape(1)


def _networks(tools: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, tools[name]) for name in FACES if name in tools]
