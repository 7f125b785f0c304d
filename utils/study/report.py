"""The report of a comparison: one page, the tables for a paper, the numbers of every cell, the curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from utils.data.pixels import read_rgb
from utils.files import write_atomically
from utils.measure.judges import JUDGES
from utils.measure.metrics import bootstrap_mean
from utils.report.figures import Grid, Plot, Series, save_plot
from utils.report.page import Block, Section, Table, Text, fitting, slider_of_scales, write_report
from utils.report.tables import Numbers, latex_table, markdown_table, slug
from utils.study.cells import CellResult, identity_seeds
from utils.study.figures import study_figures
from utils.study.plan import Plan
from utils.study.pools import Pool, pool_methods
from utils.study.tables import NOT_REACHED, cost_table, damage_table, measure_table, percent, slider_table

MOST_BANDS = 4
"""Methods of a plot whose intervals are drawn; more than these hide each other."""
MEASURED_AT = 0.75
"""Strength at which further measures are compared."""
EVERYTHING = "All datasets"


def write_study(
    results: Sequence[CellResult],
    failed: Mapping[str, str],
    plan: Plan,
    folder: Path,
    command: str,
    judge: str,
    folder_of: Callable[[CellResult], Path],
) -> Path:
    """Write report.html, whose path it returns, table.md, table.tex, two CSVs, curves.png and curves.svg.

    results.csv has a row a cell and scale, figures.csv every figure of the report with its intervals.
    Of several datasets, each has its own table and its own curves_DATASET.png and .svg besides. The same
    results give the same files.

    Args:
        results: at least one measured cell; methods are shown in order of first appearance.
        failed: why the others failed, by name of the cell.
        plan: what was compared.
        folder: made if need be.
        command: the command line that made the results, to be stated in the files.
        judge: in JUDGES of utils/measure/judges.py, what its damage is, and how much is too much.
        folder_of: a cell's own folder, with images/SEED/skipN_scaleX.png of its shown identities.

    Raises:
        ValueError: results that don't go together, see `pool_methods`.
        UserError: a picture that is there but damaged.
    """
    damage_name, limit = JUDGES[judge].damages, JUDGES[judge].limit
    measured = {result.dataset for result in results}
    datasets = [name for name in plan.datasets if name in measured]
    everything = pool_methods(results, plan)
    of_all, each = plan.datasets[0], []
    if len(plan.datasets) > 1:  # of one, each would be all again
        of_all, each = EVERYTHING, datasets
    pools = {of_all: everything, **{name: pool_methods(results, plan, name) for name in each}}
    tables = {name: damage_table(some, plan.strengths) for name, some in pools.items()}
    plots = {name: _curves(some, damage_name, name) for name, some in pools.items()}
    explanation, caption = _explanation(damage_name), f"Damage ({damage_name}) at matched strength."

    # the files, then the page of the same tables and plots
    folder.mkdir(parents=True, exist_ok=True)
    _write_markdown(tables, explanation, folder / "table.md", command)
    _write_latex(tables, folder / "table.tex", command, damage_name)
    figures = study_figures(pools, plan.strengths, MEASURED_AT, limit)
    pd.DataFrame(figures).to_csv(folder / "figures.csv", index=False, float_format="%.6g")
    header, *rows = scale_rows(results)
    table = pd.DataFrame(rows, columns=header).to_csv(index=False)
    write_atomically(folder / "results.csv", table.encode())
    _save_plots(plots, of_all, folder)
    shown = [Section("Pictures", _sliders(results, plan, datasets, folder_of))] if plan.shown else []
    sections = [
        *shown,
        Section(of_all, [*_blocks(tables[of_all], caption), Text(explanation), plots[of_all]]),
        *(Section(name, [*_blocks(tables[name], caption), plots[name]]) for name in each),
        *_further_sections(everything, limit),
    ]
    if failed:
        reasons = [Text(f"{name}: {reason}") for name, reason in failed.items()]
        sections.append(Section("Cells that failed", reasons))
    introduction = _introduction(results, failed, plan, damage_name)
    write_report(folder / "report.html", "Methods compared", command, sections, introduction)
    return folder / "report.html"


def _save_plots(plots: Mapping[str, Plot], of_all: str, folder: Path) -> None:
    for name, plot in plots.items():
        stem = "curves" if name == of_all else f"curves_{name}"
        save_plot(plot, folder / f"{stem}.png")
        save_plot(plot, folder / f"{stem}.svg")


def _further_sections(everything: Sequence[Pool], limit: float) -> list[Section]:
    """What the methods are like as sliders, what else was measured, what they cost."""
    further = (
        "Between each image and that at scale 0, matched and with intervals as in the first table. "
        "Distances grow with what changed, similarities (PSNR, SSIM, DINOv2, ArcFace) fall."
    )
    measures = _blocks(measure_table(everything, MEASURED_AT), further)
    return [
        Section("The methods as sliders", _blocks(slider_table(everything, limit), _slider_caption(limit))),
        Section(f"Further measures at strength {percent(MEASURED_AT)}", measures),
        Section("Costs", _blocks(cost_table(everything), "Means over a method's cells.")),
    ]


def scale_rows(results: Sequence[CellResult]) -> list[list[str]]:
    """One row a cell and scale, means over identities, the header first; empty where a measure has no value.

    Measures are between an image and that at scale 0, where they are empty. Numbers have six digits.
    """
    names = list(dict.fromkeys(name for result in results for name in result.measures))
    rows = [["label", "dataset", "seed", "scale", "strength", "damage", *names]]
    for result in results:
        others = [scale for scale in result.scales if scale != 0]
        for column, scale in enumerate(result.scales):
            means = {key: getattr(result, key)[:, column].mean() for key in ("strength", "damage")}
            for name, values in result.measures.items():
                if isinstance(values, Tensor) and scale != 0:
                    means[name] = values[:, others.index(scale)].mean()
            numbers = [f"{means[name]:z.6g}" if name in means else "" for name in rows[0][4:]]
            rows.append([result.label, result.dataset, str(result.seed), f"{scale:g}", *numbers])
    return rows


def _introduction(
    results: Sequence[CellResult], failed: Mapping[str, str], plan: Plan, damage_name: str
) -> str:
    methods = len({result.label for result in results})
    datasets = ", ".join(plan.datasets)
    return (
        f"{_number(len(results), 'cell')} measured, {len(failed)} failed: {_number(methods, 'method')}, "
        f"{_number(plan.seeds, 'training')} of each on each of {_number(len(plan.datasets), 'dataset')} "
        f"({datasets}), {_number(plan.identities, 'generated identity', 'generated identities')} a training "
        f"at {_number(len(plan.scales), 'slider scale')}. Strength is how far an edit got in units of the "
        f"change of all the dataset's pairs: 0% is no edit, 100% the pairs' own. Damage is what else "
        f"changed, as the judge has it: {damage_name}; 0 is none."
    )


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _explanation(damage_name: str) -> str:
    return (
        f"Damage ({damage_name}) where a method's mean strength first reaches each share of the pairs' own "
        "change as the slider goes up from 0, so that methods are compared at an equal edit, not at an equal "
        f"scale; less is better. {NOT_REACHED.capitalize()}: the mean strength stays below at all scales; "
        "reaches is the most that it gets to, of several datasets on the one where that is least. The "
        "identities of a dataset share one slider position; datasets are matched each at its own, and count "
        "alike. In brackets, 95% bootstrap intervals over identities: near the greatest "
        "strength over those resamples alone that reach it, and nowhere of how another training would differ."
    )


def _slider_caption(limit: float) -> str:
    return (
        "delta_smooth: largest detour over three neighbouring scales, 0 is straight. CSM: unevenness of the "
        "strength's steps, 0 is even. Spearman: rank correlation of scale and strength. CR: strength gained "
        "from the least to the greatest scale. SP: mean distance from the image at scale 0 (of a probe's "
        "features where there is one, else LPIPS alex). OS: CR / (1 + SP) + 1 - CSM. saturates: scale from "
        f"which on the mean strength hardly grows. breaks: scale where the mean damage passes {limit:g}. "
        "Means over identities with 95% bootstrap intervals; (k of n) where not all could be taken."
    )


def _blocks(numbers: Numbers, caption: str) -> list[Block]:
    return [Table(numbers.header, numbers.rows, caption), *map(Text, numbers.notes)]


def _curves(pools: Sequence[Pool], damage_name: str, title: str) -> Plot:
    """Mean damage against mean strength, a point a scale from 0 up."""
    pools = [pool for pool in pools if pool.cells]
    lines = []
    for pool in pools:
        damage = [bootstrap_mean(values) for values in pool.damage.T]
        bands = ([one.low for one in damage], [one.high for one in damage])
        edges = bands if len(pools) <= MOST_BANDS else ()
        strength = pool.strength.mean(dim=0).tolist()
        lines.append(Series(pool.label, strength, [one.mean for one in damage], *edges))
    caption = "A point is a slider scale, from 0 up; lower and further right is better."
    if len(pools) <= MOST_BANDS:
        caption += " Bands are 95% bootstrap intervals of the damage."
    return Plot(lines, "strength, in units of the pairs' own change", damage_name, title, caption)


def _sliders(
    results: Sequence[CellResult],
    plan: Plan,
    datasets: Sequence[str],
    folder_of: Callable[[CellResult], Path],
) -> list[Block]:
    """A slider a dataset, of as many of its pictures as the page has room for."""
    sliders: list[Block] = []
    for name in datasets:
        grid = _grid(results, plan, name, folder_of)
        room = fitting(len(grid.column_labels) * len(datasets))
        left = len(grid.rows) - room
        caption = f"{grid.caption} {left} more rows are in the cells' folders." if left > 0 else grid.caption
        kept = replace(grid, rows=grid.rows[:room], row_labels=grid.row_labels[:room], caption=caption)
        sliders.append(slider_of_scales(kept))
    return sliders


def _grid(
    results: Sequence[CellResult], plan: Plan, dataset: str, folder_of: Callable[[CellResult], Path]
) -> Grid:
    """The shown identities of the first training: below each other the methods, beside each other scales."""
    first = {result.label: result for result in results if result.dataset == dataset and result.seed == 1}
    scales = sorted({scale for result in results for scale in result.scales})
    rows, names = [], []
    for identity in identity_seeds(plan, dataset, 1)[: plan.shown]:
        for label in dict.fromkeys(result.label for result in results):
            paths = _pictures(first[label], folder_of(first[label]), identity) if label in first else {}
            rows.append([read_rgb(paths[scale]) if scale in paths else None for scale in scales])
            names.append(f"{label}\nidentity {identity}")
    columns = [f"{scale:g}" for scale in scales]
    caption = "The first training of each method. An empty tile: no such picture, as where a cell failed."
    return Grid(rows, columns, names, "slider scale", dataset, caption)


def _pictures(result: CellResult, folder: Path, identity: int) -> dict[float, Path]:
    """{scale: picture} of one identity, as `measure_cell` kept them."""
    skip = result.made_with["config"]["skips"][0]
    paths = sorted((folder / "images" / str(identity)).glob(f"skip{skip}_scale*.png"))
    return {float(path.stem.partition("_scale")[2]): path for path in paths}


def _write_markdown(tables: Mapping[str, Numbers], explanation: str, path: Path, command: str) -> None:
    parts = []
    for name, numbers in tables.items():
        parts += [f"## {name}", markdown_table(numbers.header, numbers.rows).rstrip(), *numbers.notes]
    write_atomically(path, "\n\n".join([*parts, explanation, f"    {command}\n"]).encode())


def _write_latex(tables: Mapping[str, Numbers], path: Path, command: str, damage_name: str) -> None:
    made_by = " ".join(command.split("\n"))
    parts = ["% needs \\usepackage{booktabs} in the preamble\n"]
    for name, numbers in tables.items():
        intervals = "95% bootstrap intervals over identities"
        caption = f"Damage ({damage_name}) at matched strength, {name}, with {intervals}."
        table = latex_table(numbers, caption, f"tab:{slug(name)}")
        notes = "".join(f"% {note}\n" for note in numbers.notes)
        parts.append(f"% {name}\n% made by: {made_by}\n{table}{notes}")
    write_atomically(path, "\n".join(parts).encode())
