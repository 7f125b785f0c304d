"""What can be measured between images before and after an edit, by name, and what it takes.

A measure is a plain function (before, after) -> (B,); one that lacks its weights is an `Unavailable` that
says why, and stays in the tables as that. A judge says how far an edit has got, as a share of the pairs' own
change, and what it damaged on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.config.schema import Config
from utils.data.pairs import ImagePair
from utils.errors import UserError
from utils.generation.gallery_reader import ImageSeries
from utils.measure.encoders import ENCODERS, Unavailable, cosine, direction_similarity, load, text_score
from utils.measure.metrics import Readings, leakage, movement, pixel_change, psnr, ssim

Measure = Callable[[Tensor, Tensor], Tensor]
"""Images before and after, (B, 3, H, W) in [-1, 1] each -> (B,)."""

Measures = Mapping[str, Measure | Unavailable]


@dataclass(frozen=True)
class Probe:
    """What reads a rendered world.

    Attributes:
        read: images -> readings.
        features: images (B, 3, H, W) -> (B, D), for distances.
        edited: the attribute that the pairs edit.
        changed: further attributes that they change on purpose.
        strangers: mean distance between the features of two unrelated images, the unit of `probe_distance`.
    """

    read: Callable[[Tensor], Readings]
    features: Callable[[Tensor], Tensor]
    edited: str
    changed: Collection[str] = ()
    strangers: float = 1.0


LIMITS = {"probe": 0.1, "clip": 0.3}
"""By judge, the damage from which on an image counts as broken."""
DAMAGE = {"probe": "leak into other attributes", "clip": "DINOv2 distance"}
"""By judge, what its damage is."""
JUDGES_TOOLS: dict[str, tuple[str, ...]] = {"probe": (), "clip": ("clip", "dinov2")}
"""By judge, the networks it takes."""

Tools = Mapping[str, Any]
"""{name in ENCODERS: the loaded network, or Unavailable}."""


def load_tools(config: Config, device: torch.device, names: Collection[str] = ENCODERS) -> Tools:
    """Load the networks of `names` from the weights that the config names."""
    return {name: load(name, getattr(config, f"{name}_weights"), device) for name in names}


def strength_measures(
    tools: Tools, pairs: Sequence[ImagePair], prompt: str = "", probe: Probe | None = None
) -> Measures:
    """How far an edit has got.

    Args:
        tools: with "clip".
        pairs: those it was learned from.
        prompt: what the edited image should look like, for the CLIP score; "" leaves that out.
        probe: reads the edited attribute, if the images are of its world.
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
    if probe is not None:
        judge = ProbeJudge(probe, pairs)
        measures[f"{probe.edited}, moved"] = judge.strength
    return measures


def preservation_measures(tools: Tools, probe: Probe | None = None) -> Measures:
    """What is left of the image before: distances grow, similarities fall with the damage.

    Args:
        tools: with all of ENCODERS.
        probe: for the leak into other attributes, if the images are of its world.
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
    if probe is not None:
        measures["probe distance"] = probe_distance(probe)
        measures["leak"] = lambda before, after: leak(probe, before, after)
    return measures


def distance_measure(tools: Tools, probe: Probe | None = None) -> Measure | Unavailable:
    """The perceptual distance for slider metrics: the probe's where there is one, else LPIPS alex."""
    if probe is not None:
        return probe_distance(probe)
    return preservation_measures(tools)["LPIPS alex"]


def probe_distance(probe: Probe) -> Measure:
    """Distance of the probe's features, 1 as of strangers: perceptual in its world, no outside weights.

    d(x, y) = |f(x) - f(y)| / mean over strangers |f(a) - f(b)|
    """

    @torch.no_grad()
    def distance(before: Tensor, after: Tensor) -> Tensor:
        return (probe.features(after) - probe.features(before)).norm(dim=1).cpu() / probe.strangers

    return distance


def leak(probe: Probe, before: Tensor, after: Tensor) -> Tensor:
    """Mean movement (B,) of all attributes that should stay, in units of their ranges."""
    leaks = leakage(probe.read(before), probe.read(after), {probe.edited, *probe.changed})
    return torch.stack(list(leaks.values())).mean(dim=0)


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


def pairwise_distances(series: ImageSeries, distance: Measure) -> Tensor:
    """(B, n, n) distances between the images of each identity at all n scales."""
    stacks = list(series.images.values())
    distances = torch.zeros(len(series.names), len(stacks), len(stacks))
    for i, one in enumerate(stacks):
        for j in range(i + 1, len(stacks)):
            distances[:, i, j] = distances[:, j, i] = distance(one, stacks[j])
    return distances


class Judge(Protocol):
    """Says how far an edit has got and what it damaged."""

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) share of the pairs' own change: 0 = nothing, 1 = as far as the pairs."""
        ...

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) unintended change, 0 = none."""
        ...


class ProbeJudge:
    """Strength is the edited attribute's movement, damage the leak into all others (metrics.py)."""

    def __init__(self, probe: Probe, pairs: Sequence[ImagePair]) -> None:
        self.probe = probe
        source, target = (probe.read(side)[probe.edited].mean() for side in stacked(pairs))
        self.pair_difference = (target - source).item()

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        read, edited = self.probe.read, self.probe.edited
        return movement(read(before), read(after), edited, self.pair_difference)

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        return leak(self.probe, before, after)


class ClipJudge:
    """For images of any world: along the pairs' own direction in CLIP's space, and DINOv2's distance.

    strength = (E(b') - E(b)) . d / |d|^2, d the pairs' mean difference E(a') - E(a)
    damage   = 1 - cos(D(b), D(b'))
    with CLIP's E and DINOv2's D of unit norm. Strength 1 is the pairs' own change; it is the length of what
    `direction_similarity` gives the angle of.
    """

    def __init__(self, clip: Any, dinov2: Any, pairs: Sequence[ImagePair]) -> None:
        self.clip, self.dinov2 = clip, dinov2
        source, target = (clip.embed(side) for side in stacked(pairs))
        self.direction = (target - source).mean(dim=0)
        if not self.direction.any():
            raise ValueError("expected pairs that differ, found none that CLIP tells apart")

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        moved = self.clip.embed(after) - self.clip.embed(before)
        return moved @ self.direction / self.direction.square().sum()

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        return 1 - cosine(self.dinov2.embed(before), self.dinov2.embed(after))


def judge_lacks(config: Config, tools: Tools) -> Unavailable | None:
    """The network that the config's judge needs and that is not there; None if it has all."""
    return next(
        (tools[name] for name in JUDGES_TOOLS[config.judge] if isinstance(tools[name], Unavailable)), None
    )


def build_judge(config: Config, tools: Tools, pairs: Sequence[ImagePair], probe: Probe | None) -> Judge:
    """The config's judge.

    Raises:
        UserError: judge clip without the weights of CLIP or DINOv2, saying why they are not there.
        ValueError: judge probe without one.
    """
    if config.judge == "probe":
        if probe is None:
            raise ValueError("judge probe: expected a probe, found none")
        return ProbeJudge(probe, pairs)
    lacking = judge_lacks(config, tools)
    if lacking is not None:
        raise UserError(f"judge {config.judge}: {lacking}")
    return ClipJudge(tools["clip"], tools["dinov2"], pairs)


def stacked(pairs: Sequence[ImagePair]) -> tuple[Tensor, Tensor]:
    """Sources and targets, (P, 3, H, W) each."""
    return torch.stack([pair.source for pair in pairs]), torch.stack([pair.target for pair in pairs])
