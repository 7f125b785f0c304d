"""What the measuring commands share: which images, against which pairs, and CSV, JSON and a printed table."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import Parser, path_at_scale, path_option, whole
from utils.config.runs import Run
from utils.errors import UserError
from utils.files import remove_unfinished
from utils.generation.prompts_and_seeds import choose_seeds
from utils.jobs.measured_rows import Row, write_rows
from utils.jobs.prepare import Experiment, check_weights, list_runs, load_base, prepare
from utils.machine import check_writable, resolve_device
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs

if TYPE_CHECKING:
    from utils.data.pairs import ImagePair
    from utils.generation.gallery_reader import ImageSeries
    from utils.measure.encoders import Unavailable
    from utils.measure.instruments import Instruments, Probe, Tools, Views
    from utils.measure.judges import Judge

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
    instruments: Instruments

    @property
    def tools(self) -> Tools:
        """The outside networks."""
        return self.instruments.tools

    @cached_property
    def judge(self) -> Judge | Unavailable:
        """What says how far the edit has got, or why it can't."""
        from utils.measure.judges import build_judge

        return build_judge(self.run.config, self.instruments, self.pairs)

    @property
    def available_judge(self) -> Judge | None:
        """The judge, if there is one."""
        from utils.measure.encoders import Unavailable

        return None if isinstance(self.judge, Unavailable) else self.judge


def measure_images(
    argv: Sequence[str] | None,
    name: str,
    description: str,
    rows_of: Callable[[Subject], list[Row]],
    probe_of: Callable[[str], Probe | None],
    typed: Sequence[str] | None = None,
) -> int:
    """Run a measuring command; 0 as the exit status.

    Args:
        argv: None for the process's own arguments.
        name: of the command, without .py.
        description: of the command, for --help.
        rows_of: measures one run.
        probe_of: the probe for a dataset, where the judge is one; None for an edit that it does not know.
        typed: the whole command line, where the command has taken options of its own out of `argv`.

    Raises:
        UserError: for images or pairs that are not there, and with --require for weights that are not.
    """
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _parser().parse_known_args(argv)
    experiment = prepare(arguments, description + OPTIONS, methods_from(ImagePairs))
    _check_options(options, experiment.runs)
    if experiment.dry_run:
        _list(experiment, options)
        return 0
    from utils.measure.instruments import Instruments, load_tools
    from utils.measure.judges import judge_of

    series = [_series(run, options) for run in experiment.runs]
    own = [] if options.images or options.at else experiment.runs
    doubts = {run.name: _doubts(run) for run in own}
    config = experiment.config
    pairs = [ImagePairs.of(run).pairs for run in experiment.runs]
    probes = [probe_of(run.dataset) if config.judge == "probe" else None for run in experiment.runs]
    judges = [judge_of(config, probe, own) for probe, own in zip(probes, pairs, strict=True)]
    for of_run, probe, judge in zip(series, probes, judges, strict=True):
        if probe is not None and judge == "probe":
            probe.check_size(*of_run.size)
    out = options.out or folder_of(experiment)
    check_writable(out)
    remove_unfinished(out, own=False)
    tools = load_tools(config, resolve_device(config.device, lambda line: print(line, file=sys.stderr)))
    views = base_views(experiment) if "pairs" in judges else None
    of_runs = zip(experiment.runs, series, pairs, probes, strict=True)
    subjects = [
        Subject(run, of_run, own_pairs, Instruments(tools, probe, views))
        for run, of_run, own_pairs, probe in of_runs
    ]
    rows = [row for subject in subjects for row in rows_of(subject)]
    command = shlex.join(["python", f"eval_scripts/{name}.py", *(argv if typed is None else typed)])
    numbers = write_rows(rows, out / name, command, options.require, doubts)
    from utils.jobs.measure_page import write_measured
    from utils.report.tables import markdown_table

    page = write_measured(subjects, numbers, out / f"{name}.html", command, _title(description))
    print("\n".join([markdown_table(numbers.header, numbers.rows), *numbers.notes]))
    print(f"pictures and numbers: {page}")
    print(f"next: {_following(experiment, NEXT[name], options)}")
    return 0


def _list(experiment: Experiment, options: argparse.Namespace) -> None:
    """A dry run: whose images would be measured."""
    folders = ", ".join(f"{folder} at {scale:g}" for scale, folder in options.at)
    given = [path for path in (options.images, *dict(options.at).values()) if path]
    list_runs(
        experiment.runs,
        lambda run: {"images": options.images or folders or run.seeds_folder},
        [partial(_check_folder, path) for path in given] + [partial(check_weights, experiment.config)],
    )


def _check_options(options: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Raise `UserError` for images that can't be those of the runs."""
    if (options.images or options.at) and len(runs) > 1:
        raise UserError(f"--images, --at: expected a config of one run, found {len(runs)}; name one dataset")
    if len(dict(options.at)) < len(options.at):
        scales = ", ".join(f"{scale:g}" for scale, _ in options.at)
        raise UserError(f"--at: expected one folder a scale, found scales {scales}")


def base_views(experiment: Experiment) -> Views:
    """What the experiment's base sees in images; loads it."""
    from utils.models.features import BaseViews

    base, embeds = load_base(experiment, [""])
    config = experiment.config
    return BaseViews(base, embeds[""], config.guidance_scale, config.batch_size_gen)


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


def folder_of(experiment: Experiment) -> Path:
    """Where a config's measures go."""
    return Path("output/eval/measures") / experiment.arguments[0].removeprefix("--c=")


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


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"--images, --at: expected a folder of images, found none at {path}")


def _doubts(run: Run) -> list[str]:
    """What is to be known of a run's own images and LoRA before figures of them are believed."""
    from utils.generation.made_with import doubts
    from utils.training.claims import trained_otherwise

    own = "" if run.config.use_trained_lora_path else trained_otherwise(run)
    return [*doubts(run), *([own] if own else [])]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(add_help=False)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", type=path_option)
    source.add_argument("--at", type=path_at_scale, action="append", default=[])
    parser.add_argument("--skip", type=whole(0))
    parser.add_argument("--require", action="store_true")
    parser.add_argument("--out", type=path_option)
    return parser
