"""What can be measured between images before and after an edit, by name, and what it takes.

A measure is a plain function (before, after) -> (B,); one that lacks its weights is an `Unavailable` that
says why, and stays in the tables as that. Judges bring measures of their own, see judges.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from utils.data.pairs import ImagePair
from utils.generation.gallery_reader import ImageSeries
from utils.measure.encoders import Unavailable, cosine, direction_similarity, text_score
from utils.measure.instruments import Tools, stacked
from utils.measure.judges import Judge
from utils.measure.metrics import pixel_change, psnr, ssim

Measure = Callable[[Tensor, Tensor], Tensor]
"""Images before and after, (B, 3, H, W) in [-1, 1] each -> (B,)."""

Measures = Mapping[str, Measure | Unavailable]


def strength_measures(
    tools: Tools, pairs: Sequence[ImagePair], prompt: str = "", judge: Judge | None = None
) -> Measures:
    """How far an edit has got.

    Args:
        tools: with "clip".
        pairs: those it was learned from.
        prompt: what the edited image should look like, for the CLIP score; "" leaves that out.
        judge: for its strength, if it has a name for it.
    """
    clip = tools["clip"]
    if isinstance(clip, Unavailable):
        measures: dict[str, Measure | Unavailable] = {"CLIP direction": clip}
        if prompt:
            measures["CLIP score"] = clip
    else:
        sources, targets = (clip.embed(side) for side in stacked(pairs))

        def direction(before: Tensor, after: Tensor) -> Tensor:
            return direction_similarity(sources, targets, clip.embed(before), clip.embed(after))

        measures = {"CLIP direction": direction}
        if prompt:
            text = clip.embed_text([prompt])[0]
            measures["CLIP score"] = lambda before, after: text_score(clip.embed(after), text)
    if judge is not None and judge.names[0]:
        measures[judge.names[0]] = judge.strength
    return measures


def preservation_measures(tools: Tools, judge: Judge | None = None) -> Measures:
    """What is left of the image before: distances grow, similarities fall with the damage.

    Args:
        tools: with all of ENCODERS.
        judge: for its distance and damage, if it has names for them.
    """

    def embedded(name: str) -> Measure | Unavailable:
        encoder = tools[name]
        if isinstance(encoder, Unavailable):
            return encoder
        return lambda before, after: cosine(encoder.embed(before), encoder.embed(after))

    def perceptual(name: str, resolution: int | None = None) -> Measure | Unavailable:
        lpips = tools[name]
        if isinstance(lpips, Unavailable):
            return lpips
        return lambda before, after: lpips.distance(before, after, resolution)

    measures: dict[str, Measure | Unavailable] = {
        "pixel change": lambda before, after: pixel_change(after, before),
        "PSNR": lambda before, after: psnr(after, before),
        "SSIM": lambda before, after: ssim(after, before),
        "LPIPS alex": perceptual("lpips_alex"),
        "LPIPS alex, 64 px": perceptual("lpips_alex", 64),
        "LPIPS vgg": perceptual("lpips_vgg"),
        "DINOv2": embedded("dinov2"),
        "ArcFace": embedded("arcface"),
    }
    if judge is not None and judge.names[2]:
        measures[judge.names[2]] = judge.distance
    if judge is not None and judge.names[1]:
        measures[judge.names[1]] = judge.damage
    return measures


def distance_measure(tools: Tools, judge: Judge | None = None) -> Measure | Unavailable:
    """The perceptual distance for slider metrics: the judge's where it has one, else LPIPS alex."""
    if judge is not None and judge.names[2]:
        return judge.distance
    return preservation_measures(tools)["LPIPS alex"]


def evaluate(series: ImageSeries, measures: Measures) -> dict[float, dict[str, Tensor | Unavailable]]:
    """Every measure of the images at each scale against those at scale 0.

    Returns:
        {scale other than 0: {measure: (B,), or why it is not available}}.
    """
    before = series.images[0.0]
    return {
        scale: {
            name: measure if isinstance(measure, Unavailable) else measure(before, after)
            for name, measure in measures.items()
        }
        for scale, after in series.images.items()
        if scale != 0
    }


def pairwise_distances(series: ImageSeries, distance: Measure, judge: Judge | None = None) -> Tensor:
    """(B, n, n) distances between the images of each identity at all n scales.

    Args:
        series: the images.
        distance: as of `distance_measure`.
        judge: the one that it is of, if it has one: all are then in the unit of the images at scale 0.
    """
    if judge is not None and judge.names[2]:
        distance = partial(judge.distance, among=series.images[0.0])
    stacks = list(series.images.values())
    distances = torch.zeros(len(series.names), len(stacks), len(stacks))
    for i, one in enumerate(stacks):
        for j in range(i + 1, len(stacks)):
            distances[:, i, j] = distances[:, j, i] = distance(one, stacks[j])
    return distances
