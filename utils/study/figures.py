"""Every figure of a study's report as data, with what the report has no room for.

Each has a 95% bootstrap interval over people (how other identities would differ) and one over trainings (how
other seeds of the training would; empty where there is one training). Below the methods' own figures stand
the paired differences to the first method, over the datasets and trainings that both have: the same people,
drawn alike for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from utils.measure.metrics import bootstrap_mean
from utils.measure.sliders import correlations, free_sliders, matched_draws, usable_range
from utils.study.cells import CellResult
from utils.study.pools import Pool
from utils.study.tables import OTHER_DISTANCE, PROBE_DISTANCE, measure_curves

Curves = Callable[[CellResult], tuple[Tensor, Tensor]]
"""A cell's strength and some measure of it, (B, n) each."""

Edges = tuple[float | None, float | None, float | None, float | None, float | None]
"""A value, its interval over people, its interval over trainings."""
Draws = dict[float, tuple[float, Tensor] | None]
"""As of `matched_draws`."""

_NONE: Edges = (None, None, None, None, None)
_TAILS = torch.tensor([0.025, 0.975], dtype=torch.float64)


@dataclass(frozen=True)
class Figure:
    """One number of the report, or the difference of two; the columns of figures.csv.

    Attributes:
        dataset: one, or what all are called.
        method, minus: whose; minus which other's, "" for the method's own.
        figure: what it is.
        strength: at which it was matched; None for what is of the whole slider.
        value: None where it is not reached or has no value.
        people_low, people_high: interval over identities.
        trainings_low, trainings_high: interval over trainings.
        people, trainings: how many it is of.
    """

    dataset: str
    method: str
    minus: str
    figure: str
    strength: float | None
    value: float | None
    people_low: float | None = None
    people_high: float | None = None
    trainings_low: float | None = None
    trainings_high: float | None = None
    people: int = 0
    trainings: int = 0


def study_figures(
    pools: Mapping[str, Sequence[Pool]], strengths: Sequence[float], measured_at: float, limit: float
) -> list[Figure]:
    """All figures of a study.

    Args:
        pools: {dataset, or what all are called: its methods' pools}.
        strengths: at which damage is matched.
        measured_at: at which every other measure is.
        limit: most damage to put up with.
    """
    found: list[Figure] = []
    for dataset, of_dataset in pools.items():
        filled = [pool for pool in of_dataset if pool.cells]
        for pool in filled:
            found += _own(dataset, pool, strengths, measured_at, limit)
        for pool in filled[1:]:
            found += _differences(dataset, pool, filled[0], strengths, measured_at)
    return found


def _own(
    dataset: str, pool: Pool, strengths: Sequence[float], measured_at: float, limit: float
) -> Iterator[Figure]:
    """A method's own figures."""
    for name, curves, wanted, cells in _matched_figures(pool.cells, strengths, measured_at):
        for at, edges in _matched(cells, curves, wanted).items():
            yield Figure(dataset, pool.label, "", name, at, *edges, *_counts(cells))
    for name, values in _mean_figures(pool.cells):
        cells = [cell for cell in pool.cells if _of(cell) in values]
        yield Figure(dataset, pool.label, "", name, None, *_mean(list(values.values())), *_counts(cells))

    # Of the mean curves: scales and a maximum, which the report has no interval of either.
    people, trainings = _counts(pool.cells)
    usable = usable_range(pool.scales, pool.strength.mean(dim=0), pool.damage.mean(dim=0), limit)
    reaches = min(part.strength.mean(dim=0).max().item() for part in pool.by_dataset)
    for name, value in (("reaches", reaches), ("saturates", usable.saturates), ("breaks", usable.breaks)):
        own = Figure(dataset, pool.label, "", name, None, value)
        yield replace(own, people=people, trainings=trainings)


def _differences(
    dataset: str, pool: Pool, first: Pool, strengths: Sequence[float], measured_at: float
) -> Iterator[Figure]:
    """A method's figures minus the first one's, over the cells of one dataset and training that both have."""
    theirs = {(cell.dataset, cell.seed): cell for cell in first.cells}
    both = [(cell, theirs[_of(cell)]) for cell in pool.cells if _of(cell) in theirs]
    if any(len(cell.strength) != len(other.strength) for cell, other in both):
        return  # of other people, which are not pairs
    cells, others = [cell for cell, _ in both], {_of(cell): other for cell, other in both}

    # Matched at one strength, each at its own scale.
    theirs_of = _matched_figures(list(others.values()), strengths, measured_at)
    measured = {name: (curves, set(map(_of, having))) for name, curves, _, having in theirs_of}
    for name, curves, wanted, having in _matched_figures(cells, strengths, measured_at):
        if name in measured:
            their_curves, there = measured[name]
            paired = [cell for cell in having if _of(cell) in there]
            minus = [others[_of(cell)] for cell in paired], their_curves
            for at, edges in _matched(paired, curves, wanted, minus).items() if paired else ():
                yield Figure(dataset, pool.label, first.label, name, at, *edges, *_counts(paired))

    # Of the whole slider, and what it cost.
    of_others = dict(_mean_figures(list(others.values())))
    for name, values in _mean_figures(cells):
        known = of_others.get(name, {})
        differences = {key: each - known[key] for key, each in values.items() if key in known}
        if differences:
            paired = [cell for cell in cells if _of(cell) in differences]
            means = _mean(list(differences.values()))
            yield Figure(dataset, pool.label, first.label, name, None, *means, *_counts(paired))


def _of(cell: CellResult) -> tuple[str, int]:
    """Which training of which dataset a cell is."""
    return cell.dataset, cell.seed


def _matched_figures(
    cells: Sequence[CellResult], strengths: Sequence[float], measured_at: float
) -> Iterator[tuple[str, Curves, Sequence[float], list[CellResult]]]:
    """Name, curves, strengths to match and the cells that have it: damage, then every measure."""
    yield "damage", _damage, strengths, list(cells)
    for name in dict.fromkeys(name for cell in cells for name in cell.measures):
        having = [cell for cell in cells if _measured(cell, name) is not None]
        if having and all(_measure(name)(cell)[0].shape[1] > 1 for cell in having):
            yield name, _measure(name), [measured_at], having


def _damage(cell: CellResult) -> tuple[Tensor, Tensor]:
    pool = Pool("", [cell], [])
    return pool.strength, pool.damage


def _measure(name: str) -> Curves:
    def curves(cell: CellResult) -> tuple[Tensor, Tensor]:
        values = _measured(cell, name)
        assert values is not None  # asked of those that have it
        return measure_curves(cell, name, values)

    return curves


def _measured(cell: CellResult, name: str) -> Tensor | None:
    """A measure of a cell, where it is finite of every image."""
    values = cell.measures.get(name)
    return values.double() if isinstance(values, Tensor) and bool(values.isfinite().all()) else None


def _mean_figures(cells: Sequence[CellResult]) -> Iterator[tuple[str, dict[tuple[str, int], Tensor]]]:
    """Name and values of each cell that has it, (B,) or (1,): of sliders, then of costs."""
    of_cells: dict[str, dict[tuple[str, int], Tensor]] = {}
    for cell in cells:
        for name, values in (_slider_figures(cell) | _costs(cell)).items():
            of_cells.setdefault(name, {})[_of(cell)] = values.double()
    yield from of_cells.items()


def _slider_figures(cell: CellResult) -> dict[str, Tensor]:
    """The figures of a cell's whole slider, (B,) each."""
    spearman, _ = correlations(torch.tensor(cell.scales, dtype=torch.float64), cell.strength)
    scores = free_sliders(cell.strength, torch.zeros(len(cell.strength), len(cell.scales) - 1))
    found = {"CSM": scores.smoothness, "Spearman": spearman, "CR": scores.conceptual_range}
    if isinstance(cell.delta_smooth, Tensor):
        found["delta_smooth"] = cell.delta_smooth
    distance = _measured(cell, PROBE_DISTANCE if PROBE_DISTANCE in cell.measures else OTHER_DISTANCE)
    if distance is not None:
        own = free_sliders(cell.strength, distance)
        found |= {"SP": own.preservation, "OS": own.overall}
    return found


def _costs(cell: CellResult) -> dict[str, Tensor]:
    """What a cell cost, (1,) each: of a training, so that there is no interval over people."""
    training, generation = cell.training, cell.generation
    found = {"training, s": training.seconds, "steps/s": training.per_second}
    if training.peak_bytes is not None:
        found["peak GiB"] = training.peak_bytes / 2**30
    found["generation, s an image"] = generation.seconds / generation.count
    return {name: torch.tensor([value]) for name, value in found.items()}


def _matched(
    cells: Sequence[CellResult],
    curves: Curves,
    wanted: Sequence[float],
    minus: tuple[Sequence[CellResult], Curves] | None = None,
) -> dict[float, Edges]:
    """Each strength's mean, or the difference of two methods' on the same people and trainings."""
    people, trainings = _draws(cells, curves, wanted)
    if minus is not None:
        their_people, their_trainings = _draws(*minus, wanted)
        people, trainings = _less(people, their_people), _less(trainings, their_trainings)
    several = [max(counts) > 1 for counts in zip(*_sizes(cells), strict=True)]  # people, trainings
    found: dict[float, Edges] = {}
    for at, own in people.items():
        each = trainings[at]
        found[at] = _NONE
        if own is not None and each is not None:
            found[at] = (own[0], *_edges(own[1], several[0]), *_edges(each[1], several[1]))
    return found


def _sizes(cells: Sequence[CellResult]) -> list[tuple[int, int]]:
    """People and trainings of each dataset."""
    return [_counts(pool.cells) for pool in Pool("", cells, []).by_dataset]


def _less(draws: Draws, others: Draws) -> Draws:
    """Draw by draw, where both are reached."""
    return {
        at: None if own is None or other is None else (own[0] - other[0], own[1] - other[1])
        for (at, own), other in zip(draws.items(), others.values(), strict=True)
    }


def _draws(cells: Sequence[CellResult], curves: Curves, wanted: Sequence[float]) -> tuple[Draws, Draws]:
    """`matched_draws` over the people of each dataset, and over its trainings, each their people's mean."""
    over_people, over_trainings = [], []
    for pool in Pool("", cells, []).by_dataset:
        strengths, values = zip(*map(curves, pool.cells), strict=True)
        over_people.append((torch.cat(strengths), torch.cat(values)))
        over_trainings.append((_means(strengths), _means(values)))
    return matched_draws(over_people, wanted), matched_draws(over_trainings, wanted)


def _means(curves: Sequence[Tensor]) -> Tensor:
    """(trainings, n): each training's mean over its people."""
    return torch.stack([each.mean(dim=0) for each in curves])


def _mean(values: Sequence[Tensor]) -> Edges:
    """The mean of all cells' values, with its intervals over the values and over the cells."""
    finite = [own for own in (each[each.isfinite()] for each in values) if len(own)]
    if not finite:
        return _NONE
    people = bootstrap_mean(torch.cat(finite))
    trainings = bootstrap_mean(torch.stack([each.mean() for each in finite]))
    low, high = _known(people.low), _known(people.high)
    if all(len(each) == 1 for each in values):  # of trainings, not of people
        low, high = None, None
    return people.mean, low, high, _known(trainings.low), _known(trainings.high)


def _edges(draws: Tensor, several: bool) -> tuple[float | None, float | None]:
    """The 95% interval of draws; none where there are not several to draw from."""
    if not several:
        return None, None
    low, high = draws.nanquantile(_TAILS).tolist()
    return _known(low), _known(high)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _counts(cells: Sequence[CellResult]) -> tuple[int, int]:
    """People and trainings."""
    return sum(len(cell.strength) for cell in cells), len(cells)
