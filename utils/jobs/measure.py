"""What the measuring commands share: which images, against which pairs, and CSV, JSON and a printed table."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import path_at_scale
from utils.config.runs import Run
from utils.errors import UserError
from utils.generation.prompts_and_seeds import choose_seeds
from utils.jobs.prepare import Experiment, list_runs, prepare
from utils.machine import check_writable, resolve_device
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs

if TYPE_CHECKING:
    from torch import Tensor

    from utils.data.pairs import ImagePair
    from utils.generation.gallery_reader import ImageSeries
    from utils.measure.encoders import Unavailable
    from utils.measure.judges import Measures, Probe, Tools
    from utils.report.tables import Numbers

OPTIONS = """
options of its own:
  --images FOLDER     a folder of SEED/skipN_scaleX.png (where gen_image_script.py writes the run's)
  --skip N            which skip of those (the config's first)
  --at SCALE=FOLDER   in place of --images, a folder of images a slider scale, paired up by name; any tool's
                      before and after: --at 0=before --at 1=after (below 0: --at=-1=opposite)
  --require           weights that can't be had are an error
  --out FOLDER        where the CSV and JSON go (output/eval/measures/CONFIG)
"""


@dataclass(frozen=True)
class Subject:
    """One run's images and all that they are measured by."""

    run: Run
    series: ImageSeries
    pairs: Sequence[ImagePair]
    tools: Tools
    probe: Probe | None


@dataclass(frozen=True)
class Row:
    """One measure of one run: at a scale, or of the whole slider (scale None)."""

    run: str
    scale: float | None
    measure: str
    values: Tensor | Unavailable | None
    """(B,), or (1,) for what is measured over all identities; None where it has no value."""
    note: str = ""
    """What to know before believing it."""


def measure_images(
    argv: Sequence[str] | None,
    name: str,
    description: str,
    rows_of: Callable[[Subject], list[Row]],
    probe_of: Callable[[str], Probe],
    typed: Sequence[str] | None = None,
) -> int:
    """Run a measuring command; 0 as the exit status.

    Args:
        argv: None for the process's own arguments.
        name: of the command, without .py.
        description: of the command, for --help.
        rows_of: measures one run.
        probe_of: the probe for a dataset, where the judge is one.
        typed: the whole command line, where the command has taken options of its own out of `argv`.

    Raises:
        UserError: for images or pairs that are not there, and with --require for weights that are not.
    """
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _parser().parse_known_args(argv)
    experiment = prepare(arguments, description + OPTIONS, methods_from(ImagePairs))
    if (options.images or options.at) and len(experiment.runs) > 1:
        raise UserError(
            f"--images, --at: expected a config of one run, found {len(experiment.runs)}; name one dataset"
        )
    if len(dict(options.at)) < len(options.at):
        scales = ", ".join(f"{scale:g}" for scale, _ in options.at)
        raise UserError(f"--at: expected one folder a scale, found scales {scales}")
    if experiment.dry_run:
        folders = ", ".join(f"{folder} at {scale:g}" for scale, folder in options.at)
        list_runs(experiment.runs, lambda run: {"images": options.images or folders or run.seeds_folder})
        return 0
    from utils.measure.judges import load_tools

    series = [_series(run, options) for run in experiment.runs]
    config = experiment.config
    pairs = [ImagePairs.of(run).pairs for run in experiment.runs]
    probes = [probe_of(run.dataset) if config.judge == "probe" else None for run in experiment.runs]
    if config.judge == "probe":
        for of_run in series:
            _check_size(of_run, config.resolution)
    out = options.out or folder_of(experiment)
    check_writable(out)
    tools = load_tools(config, resolve_device(config.device, lambda line: print(line, file=sys.stderr)))
    of_runs = zip(experiment.runs, series, pairs, probes, strict=True)
    subjects = [Subject(run, own, own_pairs, tools, probe) for run, own, own_pairs, probe in of_runs]
    rows = [row for subject in subjects for row in rows_of(subject)]
    command = shlex.join(["python", f"eval_scripts/{name}.py", *(argv if typed is None else typed)])
    numbers = write_rows(rows, out / name, command, options.require)
    from utils.jobs.measure_page import write_measured
    from utils.report.tables import markdown_table

    page = write_measured(subjects, numbers, out / f"{name}.html", command, _title(description))
    print("\n".join([markdown_table(numbers.header, numbers.rows), *numbers.notes]))
    print(f"pictures and numbers: {page}")
    print(f"next: {_following(experiment, NEXT[name], options)}")
    return 0


def _following(experiment: Experiment, name: str, options: argparse.Namespace) -> str:
    """The command that measures next, of the same images where it reads any."""
    images: list[str] = []
    if name != "edit_table":
        images += [f"--images={options.images}"] if options.images else []
        images += [f"--at={scale:g}={folder}" for scale, folder in options.at]
        images += [f"--skip={options.skip}"] if options.skip is not None else []
    return shlex.join(shlex.split(experiment.command(f"eval_scripts/{name}.py")) + images)


NEXT = {
    "edit_strength": "preservation",
    "preservation": "slider",
    "slider": "edit_table",
    "distribution": "preservation",
}
"""What is measured after which."""


def _title(description: str) -> str:
    """A command's first line, without its colon and what follows."""
    return description.strip().splitlines()[0].partition(":")[0].rstrip(".")


COLUMNS = ["run", "scale", "measure", "mean", "low", "high", "count", "finite", "note"]
"""Of the files of measures."""


def rows_by_scale(subject: Subject, measures: Measures) -> list[Row]:
    """A row for every measure of the images at every scale against those at scale 0."""
    from utils.measure.judges import evaluate

    return [
        Row(subject.run.name, scale, name, values)
        for scale, by_name in evaluate(subject.series, measures).items()
        for name, values in by_name.items()
    ]


def folder_of(experiment: Experiment) -> Path:
    """Where a config's measures go."""
    return Path("output/eval/measures") / experiment.arguments[0].removeprefix("--c=")


def write_rows(rows: Sequence[Row], path: Path, command: str, require: bool = False) -> Numbers:
    """Write path.csv and path.json.

    Returns:
        The table to be shown: a row a run and scale, a column a measure that is available for any of them;
        the others, and why they are not, stand in its notes.

    Raises:
        UserError: with `require`, if any measure is not available; the files are written all the same.
    """
    from utils.measure.encoders import Unavailable
    from utils.measure.metrics import bootstrap_mean
    from utils.report.tables import Numbers, write_records

    absent = list(dict.fromkeys(str(row.values) for row in rows if isinstance(row.values, Unavailable)))
    notes = [note for note in dict.fromkeys(row.note for row in rows) if note]

    # A record of each row for the files, a cell of it for the table.
    cells: dict[tuple[str, str], dict[str, str]] = {}
    records: list[dict[str, Any]] = []
    for row in rows:
        scale = "" if row.scale is None else f"{row.scale:g}"
        record: dict[str, Any] = {"run": row.run, "scale": scale, "measure": row.measure, "note": row.note}
        if row.values is None:
            cell = "none"
        elif isinstance(row.values, Unavailable):
            cell, record["note"] = "not available", str(row.values)
        else:
            finite = row.values.isfinite()
            record |= {"count": len(finite), "finite": int(finite.sum()), "mean": row.values.mean().item()}
            cell = f"{record['mean']:.3f}"
            if finite.all():
                interval = bootstrap_mean(row.values)
                cell, record["low"], record["high"] = f"{interval:.3f}", interval.low, interval.high
        cells.setdefault((row.run, scale), {})[row.measure] = cell
        records.append(record)

    # The files are written whatever is missing.
    write_records(records, path, COLUMNS, command=command)
    if require and absent:
        raise UserError("; ".join(absent))

    measures = list(dict.fromkeys(row.measure for row in rows))
    had = dict.fromkeys(row.measure for row in rows if not isinstance(row.values, Unavailable))
    left_out = [measure for measure in measures if measure not in had]
    if left_out:
        notes.append(f"left out, as not available: {', '.join(left_out)}")
    shown = [[*key, *(of_row.get(measure, "") for measure in had)] for key, of_row in cells.items()]
    return Numbers(["run", "scale", *had], shown, [*notes, *absent])


def _series(run: Run, options: argparse.Namespace) -> ImageSeries:
    from utils.generation.gallery_reader import read_folders, read_tree

    if options.at:
        return read_folders(dict(options.at))
    config = run.config
    skip = config.skips[0] if options.skip is None else options.skip
    if options.images:
        return read_tree(options.images, skip)
    # the config's own: what else lies there may be of an earlier training
    seeds = [] if config.use_random_seed else [str(seed) for seed in choose_seeds(config)]
    return read_tree(run.seeds_folder, skip, seeds, config.scales)


def _check_size(series: ImageSeries, resolution: int) -> None:
    """The probe reads images of its own world's size alone; raises `UserError` for others."""
    height, width = series.images[0.0].shape[2:]
    if (height, width) != (resolution, resolution):
        raise UserError(
            f"judge probe: expected images of {resolution} x {resolution} (resolution), "
            f"found {width} x {height}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", type=Path)
    source.add_argument("--at", type=path_at_scale, action="append", default=[])
    parser.add_argument("--skip", type=int)
    parser.add_argument("--require", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser
