"""Judges: how far has an edit got, as a share of the pairs' own change, and what did it damage on the way?

    pairs    by what the base itself sees in images; for any edit, no outside weights
    probe    by a network that reads every attribute of a rendered world
    clip     by CLIP's and DINOv2's embeddings

Strength 0 is the image as it was, 1 as far as the pairs go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from utils.config.schema import Config
from utils.data.pairs import ImagePair
from utils.data.pixels import covering
from utils.errors import UserError
from utils.measure.encoders import Unavailable, cosine
from utils.measure.instruments import Instruments, Probe, Tools, Views, common_size, stacked
from utils.measure.metrics import Readings, leakage, movement


class Judge(ABC):
    """Says how far an edit has got and what it damaged.

    Attributes:
        kind: its name among the values of the key `judge`.
        names: of strength, damage and distance in tables; "" leaves one out.
        edited: which of its `readings` is the edit's.
        changed: which others the pairs change on purpose.
        pair_difference: how far the pairs move the edit's.
        reads, damages: what its strength and its damage are, in words.
        limit: the damage from which on an image counts as broken.
        reached: the strength at which an edit is as far as the pairs go; see `PairsJudge`.
        tools: the networks of ENCODERS that it takes.
    """

    kind: ClassVar[str]
    names: tuple[str, str, str] = ("", "", "")
    edited: str = "edit"
    changed: Collection[str] = ()
    pair_difference: float = 1.0
    reads: ClassVar[str]
    damages: ClassVar[str]
    limit: ClassVar[float]
    reached: ClassVar[float] = 0.9  # a slider only approaches the last few points
    tools: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def of(cls, instruments: Instruments, pairs: Sequence[ImagePair]) -> Judge:
        """The judge of an edit that these pairs teach; ValueError for an instrument that is not there."""

    @abstractmethod
    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) share of the pairs' own change: 0 = nothing, 1 = as far as the pairs."""

    @abstractmethod
    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) unintended change, 0 = none."""

    def distance(self, before: Tensor, after: Tensor, among: Tensor | None = None) -> Tensor:
        """(B,) how different two images look, 1 = as two of `among`, of `before` unless given."""
        raise NotImplementedError

    def readings(self, before: Tensor, after: Tensor) -> Readings:
        """What the images show after, for the table of an edit: by name, (B,) each."""
        return {self.edited: self.strength(before, after), "damage": self.damage(before, after)}


class ProbeJudge(Judge):
    """Strength is the edited attribute's movement, damage the leak into all others (metrics.py)."""

    kind = "probe"
    reads = "the attribute's, in units of its range"
    damages = "leak into other attributes"
    limit = 0.1

    def __init__(self, probe: Probe, pairs: Sequence[ImagePair]) -> None:
        self.probe = probe
        self.names = f"{probe.edited}, moved", "leak", "probe distance"
        self.edited, self.changed = probe.edited, probe.changed
        for pair in pairs:
            probe.check_size(pair.source.shape[2], pair.source.shape[1])
        source, target = (probe.read(side)[probe.edited].mean() for side in stacked(pairs))
        self.pair_difference = (target - source).item()
        if self.pair_difference == 0:
            raise UserError(f"pairs: expected a difference in {probe.edited!r}, found none")

    @classmethod
    def of(cls, instruments: Instruments, pairs: Sequence[ImagePair]) -> Judge:
        """See `Judge.of`."""
        if instruments.probe is None:
            raise ValueError("judge probe: expected a probe, found none")
        return cls(instruments.probe, pairs)

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        read, edited = self.probe.read, self.probe.edited
        return movement(read(before), read(after), edited, self.pair_difference)

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """Mean movement (B,) of all attributes that should stay, in units of their ranges."""
        read, probe = self.probe.read, self.probe
        leaks = leakage(read(before), read(after), {probe.edited, *probe.changed})
        return torch.stack(list(leaks.values())).mean(dim=0)

    def readings(self, before: Tensor, after: Tensor) -> Readings:
        """Of every attribute, in units of its range."""
        return self.probe.read(after)

    @torch.no_grad()
    def distance(self, before: Tensor, after: Tensor, among: Tensor | None = None) -> Tensor:
        """Of the probe's features, 1 as of strangers: perceptual in its world, no outside weights.

        d(x, y) = |f(x) - f(y)| / mean over strangers |f(a) - f(b)|
        """
        features, strangers = self.probe.features, self.probe.strangers
        return (features(after) - features(before)).norm(dim=1).cpu() / strangers


class ClipJudge(Judge):
    """For images of any world: along the pairs' own direction in CLIP's space, and DINOv2's distance.

    strength = (E(b') - E(b)) . d / |d|^2, d the pairs' mean difference E(a') - E(a)
    damage   = 1 - cos(D(b), D(b'))
    with CLIP's E and DINOv2's D of unit norm. Strength 1 is the pairs' own change; it is the length of what
    `direction_similarity` gives the angle of.
    """

    kind = "clip"
    reads = "1 is the pairs' own change in CLIP's space"
    damages = "DINOv2 distance"
    limit = 0.3
    tools = ("clip", "dinov2")

    def __init__(self, clip: Any, dinov2: Any, pairs: Sequence[ImagePair]) -> None:
        self.clip, self.dinov2 = clip, dinov2
        source, target = (clip.embed(side) for side in stacked(pairs))
        self.direction = (target - source).mean(dim=0)
        if not self.direction.any():
            raise UserError("pairs: expected a difference, found none that CLIP tells apart")

    @classmethod
    def of(cls, instruments: Instruments, pairs: Sequence[ImagePair]) -> Judge:
        """See `Judge.of`."""
        return cls(instruments.tools["clip"], instruments.tools["dinov2"], pairs)

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        moved = self.clip.embed(after) - self.clip.embed(before)
        return moved @ self.direction / self.direction.square().sum()

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        return 1 - cosine(self.dinov2.embed(before), self.dinov2.embed(after))


@dataclass(frozen=True)
class _View:
    """One of a base's views, through which images are compared with those before; see `PairsJudge`."""

    deviation: Tensor  # (D,)
    support: Tensor  # (N,), sums to 1
    direction: Tensor  # (D,)
    before: Tensor  # (B, D)
    unit: Tensor  # ()

    @classmethod
    def of(cls, source: Tensor, target: Tensor, before: Tensor) -> _View:
        """Of the pairs and of the images before, (P, N, D) and (B, N, D)."""
        deviation = before.flatten(0, 1).std(dim=0) + 1e-3
        change = ((target - source) / deviation).square().sum(dim=2).mean(dim=0).sqrt()  # (N,)
        if not change.any():
            raise UserError("pairs: expected a difference, found none that the base tells apart")
        support = change / change.sum()

        def pooled(view: Tensor) -> Tensor:
            return support @ (view / deviation)

        direction = (pooled(target) - pooled(source)).mean(dim=0)
        to_go = (pooled(target).mean(dim=0) - pooled(before).mean(dim=0)) @ direction
        unit = torch.maximum(to_go, LEAST_WAY * direction.square().sum())
        return cls(deviation, support, direction, pooled(before), unit)

    def moved(self, after: Tensor) -> Tensor:
        """(B, D) by which pooled images differ from those before."""
        return self.support @ (after / self.deviation) - self.before


LEAST_WAY = 0.5
"""Of the pairs' own way, what is left at least to images that begin close to the targets."""


class PairsJudge(Judge):
    """Along the pairs' own change in what the base sees, and across it.

    For each of the base's views, its latents and its features (utils/models/features.py), of N positions:

        phi(x)   = sum_n w_n h_n(x) / sigma
        w_n      ~ rms over pairs of |h_n(target) - h_n(source)| / sigma                the change's support
        sigma    = deviation of h over the images before, of each channel
        d        = mean over pairs of phi(target) - phi(source)
        strength = (phi(x') - phi(x)) . d / (mean phi(target) - mean phi(x)) . d

    The unit is the way from the images before to what the pairs' targets show, not the pairs' own: people
    who begin elsewhere have another way to go. Of the views the one that sees less of the edit counts, for
    each image: each alone takes some other change for the edit.

        damage   = |phi(x') - phi(x) - its part along d| / mean |phi(x_i) - phi(x_j)|,  in the features
        distance = |phi(x') - phi(x)| / mean |phi(x_i) - phi(x_j)|
    """

    kind = "pairs"
    names = ("moved", "across", "base distance")
    reads = "1 is as far as the pairs go, by what the base sees"
    damages = "change across the pairs' own, 1 as between strangers"
    limit = 0.6
    reached = 0.75  # where a probe has 0.9 of ten edits; beyond, the edit is stronger, not more there

    def __init__(self, views: Views, pairs: Sequence[ImagePair]) -> None:
        """Raises `UserError` for pairs that do not differ, when images are first compared."""
        self.views, self.pairs = views, pairs
        self._seen: tuple[Tensor, list[_View]] | None = None

    @classmethod
    def of(cls, instruments: Instruments, pairs: Sequence[ImagePair]) -> Judge:
        """See `Judge.of`."""
        if instruments.views is None:
            raise ValueError("judge pairs: expected what the base sees, found nothing")
        return cls(instruments.views, pairs)

    def strength(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        by_view = [moved @ view.direction / view.unit for view, moved in self._moved(before, after)]
        return torch.stack(by_view).amin(dim=0)

    def damage(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Judge`."""
        view, moved = self._moved(before, after)[-1]
        along = view.direction / view.direction.norm()
        across = moved - (moved @ along)[:, None] * along
        return across.norm(dim=1) / self._strangers(view)

    def distance(self, before: Tensor, after: Tensor, among: Tensor | None = None) -> Tensor:
        """See `Judge`."""
        unit = before if among is None else among
        view, moved = self._moved(unit, after)[-1]
        moved = moved if unit is before else moved - self._moved(unit, before)[-1][1]
        return moved.norm(dim=1) / self._strangers(view)

    def _moved(self, before: Tensor, after: Tensor) -> list[tuple[_View, Tensor]]:
        """Of each view, by how much images differ from those before."""
        if self._seen is None or self._seen[0] is not before:  # the same for every scale
            sides = [self.views(side) for side in (*stacked(self.pairs), self._sized(before))]
            self._seen = before, [_View.of(*of_view) for of_view in zip(*sides, strict=True)]
        seen = zip(self._seen[1], self.views(self._sized(after)), strict=True)
        return [(view, view.moved(of_view)) for view, of_view in seen]

    def _sized(self, images: Tensor) -> Tensor:
        """Images of the pairs' own size, whose positions theirs are; of another aspect ratio their middle."""
        return covering(images, common_size(self.pairs))

    def _strangers(self, view: _View) -> Tensor:
        """Mean distance of two of the images before; of a single one, the length of the pairs' change."""
        return torch.pdist(view.before).mean() if len(view.before) > 1 else view.direction.norm()


JUDGES: dict[str, type[Judge]] = {judge.kind: judge for judge in (PairsJudge, ProbeJudge, ClipJudge)}


def judge_of(config: Config, probe: Probe | None, pairs: Sequence[ImagePair] = ()) -> str:
    """The name of a run's judge: the config's; the pairs for edits, and pairs' and images' sizes, that the
    probe does not know.
    """
    sizes = {config.image_size, *((pair.source.shape[2], pair.source.shape[1]) for pair in pairs)}
    knows = probe is not None and all(probe.fits(*size) for size in sizes)
    return "pairs" if config.judge == "probe" and not knows else config.judge


def judge_lacks(name: str, tools: Tools) -> Unavailable | None:
    """The network that a judge needs and that is not there; None if it has all."""
    return next((tools[tool] for tool in JUDGES[name].tools if isinstance(tools[tool], Unavailable)), None)


def build_judge(config: Config, instruments: Instruments, pairs: Sequence[ImagePair]) -> Judge | Unavailable:
    """The judge of a run's edit, or which of its networks is not there.

    Raises:
        ValueError: an instrument that is not a network is not there.
        UserError: the pairs do not differ.
    """
    name = judge_of(config, instruments.probe, pairs)
    return judge_lacks(name, instruments.tools) or JUDGES[name].of(instruments, pairs)
