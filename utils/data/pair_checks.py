"""A look at pairs before they are learned from: what of source -> target may be no part of the edit.

    shift        the target moved as a whole, (rows, columns) in pixels, by phase correlation
    colour fit   one map of linear-light colours that takes source to target: another exposure or profile
    change       how far colours differ, where most, and on which share of the positions 90% of it lies
    agreement    cosine between the directions source - target of two pairs

All are plain functions of images (3, H, W) in [-1, 1]; `look_at` has them of a dataset, `in_words` its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor
from torch.nn.functional import avg_pool2d

from utils.data.colour_fit import ColourFit, fit_colours
from utils.data.pairs import ImagePair
from utils.data.shifts import find_shift

HELD = 0.9
"""Share of the change whose positions are counted."""
FAINT = 9.0
"""Levels of the strongest change below which a pair is nearly identical; a JPEG's own errors
stay below to a quality of 75, and the faintest shipped edit, pixel_art, has 11."""
OPPOSITE = -0.4
"""Cosine below which two pairs point opposite ways; the shipped pairs have -0.13 and more."""

MOST_COMPARED, MOST_OPPOSITE = 32, 5  # pairs held against each other; lines of those that point opposite ways


def mean_change(source: Tensor, target: Tensor) -> float:
    """Mean absolute difference of all values, in levels of 0..255."""
    return float((source - target).abs().mean()) * 127.5


def strongest_change(source: Tensor, target: Tensor) -> float:
    """The largest mean difference of any square of 8 x 8 pixels, in levels; noise and grain have little."""
    return float(avg_pool2d(target - source, 8, ceil_mode=True).abs().max()) * 127.5


def share_of_positions(source: Tensor, target: Tensor) -> float:
    """The least share of the positions that holds `HELD` of the change; 0 where nothing changes."""
    change = (source - target).abs().sum(dim=0).flatten().double()
    if not change.any():
        return 0.0
    summed = change.sort(descending=True).values.cumsum(0)
    return int((summed < HELD * (1 - 1e-9) * summed[-1]).sum() + 1) / change.numel()


def agreement(first: Tensor, second: Tensor) -> float:
    """Cosine between two directions of one shape; 0 if one of them is zero."""
    norms = first.norm() * second.norm()
    return float((first * second).sum() / norms) if norms else 0.0


# --- a dataset ---


@dataclass(frozen=True)
class PairLook:
    """What is to be said of one pair.

    Attributes:
        stem: names it.
        mean, strongest: of its change, in levels; see `mean_change` and `strongest_change`.
        share: see `share_of_positions`.
        shift: see `find_shift`.
        colours: see `fit_colours`.
        moved: what `align` has moved back, (down, right).
    """

    stem: str
    mean: float
    strongest: float
    share: float
    shift: tuple[int, int]
    colours: ColourFit
    moved: tuple[int, int] = (0, 0)


def look_at(pairs: Sequence[ImagePair]) -> tuple[list[PairLook], dict[tuple[str, str], float]]:
    """Every pair, and the agreement of every two of one size of the first `MOST_COMPARED` by their stems."""
    looks = [
        PairLook(
            pair.stem,
            mean_change(pair.source, pair.target),
            strongest_change(pair.source, pair.target),
            share_of_positions(pair.source, pair.target),
            find_shift(pair.source, pair.target),
            fit_colours(pair.source, pair.target),
            pair.moved,
        )
        for pair in pairs
    ]
    directions = {pair.stem: pair.source - pair.target for pair in pairs[:MOST_COMPARED]}
    return looks, {
        (one, other): agreement(directions[one], directions[other])
        for one, other in combinations(directions, 2)
        if directions[one].shape == directions[other].shape
    }


def in_words(
    dataset: str, looks: Sequence[PairLook], agreements: Mapping[tuple[str, str], float]
) -> list[str]:
    """A line of what the pairs are, and one of each thing to check, which stops nothing."""
    count = f"{len(looks)} pair{'s' * (len(looks) > 1)}"
    parts = [
        f"{dataset}: {count}, change {_range([look.mean for look in looks], '.1f')} levels",
        f"{HELD:.0%} of it on {_range([100 * look.share for look in looks], '.0f')}% of the positions",
    ]
    if agreements:
        parts.append(f"cosine between pairs {_range([*agreements.values()], '.2f')}")
    lines = [", ".join(parts)]
    lines += [
        f"  {look.stem}: aligned, its target moved {_way(*look.moved, back=True)}"
        for look in looks
        if any(look.moved)
    ]
    lines += [f"  check {look.stem}: {fault}" for look in looks for fault in _faults(look)]
    opposite = [
        f"  check {one} and {other}: they change opposite ways (cosine {cosine:.2f}); is one of them swapped?"
        for (one, other), cosine in agreements.items()
        if cosine < OPPOSITE
    ]
    more = len(opposite) - MOST_OPPOSITE
    return lines + opposite[:MOST_OPPOSITE] + ([f"  check {more} more of this kind"] if more > 0 else [])


def _faults(look: PairLook) -> list[str]:
    """What of a pair may be no part of the edit."""
    if look.mean == 0:
        return ["source and target are the same pixels; there is nothing to learn"]
    faults = []
    if any(look.shift):
        faults.append(
            f"the target is shifted {_way(*look.shift)}, which is learned too; align=shift moves it back"
        )
    elif look.strongest < FAINT:
        faults.append(
            f"source and target are nearly identical, {look.strongest:.1f} of 255 levels apart at most"
        )
    if look.colours.explains:
        stops = look.colours.stops
        what = (
            f"{abs(stops):.1f} stops {'brighter' if stops > 0 else 'darker'}"
            if abs(stops) >= 0.15
            else "tinted"
        )
        faults.append(f"the target is {what} everywhere, which is learned too; same exposure and profile?")
    return faults


def _way(down: int, right: int, back: bool = False) -> str:
    """(5, -1) as "5 pixels down and 1 pixel left"."""
    down, right = (-down, -right) if back else (down, right)
    steps = [(down, "down" if down > 0 else "up"), (right, "right" if right > 0 else "left")]
    return " and ".join(
        f"{abs(pixels)} pixel{'s' * (abs(pixels) > 1)} {way}" for pixels, way in steps if pixels
    )


def _range(values: Sequence[float], form: str) -> str:
    """The least and the greatest, once if they look the same."""
    return " to ".join(dict.fromkeys(format(value, f"z{form}") for value in (min(values), max(values))))
