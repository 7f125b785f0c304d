"""Compare methods: train, generate with and measure every cell of a plan, and write one report.

python study_script.py --c=study --preset=small
python study_script.py --c=study "datasets=[glasses,age]" seeds=2 --dry-run

A plan (config/study.yaml) names methods x datasets x noise_scales x etas x pairs x seeds. What is done is not
done again; a cell that fails is reported at the end and in the report, the others go on. key=value changes a
key of the plan (utils/study/plan.py) or, for all cells, one of a config (docs/keys.md).
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from utils.arguments import Parser
from utils.config.listing import keys_help
from utils.config.runs import Run
from utils.errors import UserError, run_cli
from utils.files import remove_unfinished
from utils.generation.prompts_and_seeds import checks_of, choose_prompts
from utils.jobs.amounts import check_amounts, check_count
from utils.jobs.launch import launch
from utils.jobs.outcomes import Outcome
from utils.jobs.prepare import (
    CONFIG_FOLDER,
    Experiment,
    check_fits,
    enter_config_folder,
    list_runs,
    load_base,
)
from utils.machine import check_writable, resolve_device, resolve_model_path
from utils.models.families import family_at
from utils.study.plan import Cell, Plan, expand_cells, load_plan
from utils.training.methods import methods_from
from utils.training.slider_prompts import SliderPrompts
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plan; the exit status as in `run_all`."""
    argv = sys.argv[1:] if argv is None else list(argv)
    methods = methods_from(ImagePairs, SliderPrompts)
    args = _parser(methods).parse_intermixed_args(argv)
    scripts = enter_config_folder()
    plan = load_plan(args.c, args.overrides, CONFIG_FOLDER, args.preset, methods)
    if not args.yes:
        count = len(plan.methods) * len(plan.datasets) * len(plan.pairs) * plan.seeds
        check_count("methods x datasets x pairs x seeds", count, f"{count} cells")
    cells = expand_cells(plan, CONFIG_FOLDER)
    _check_fits(cells, amounts=not args.yes)
    if args.dry_run:
        runs = [cell.run for cell in cells]
        list_runs(runs, lambda run: {"weights": run.weights_path()}, checks_of(runs))
        return 0
    from utils.study.cells import done, identity_seeds
    from utils.study.places import report_folder

    prompts = {
        run.name: choose_prompts(run, identity_seeds(plan, run.dataset, run.version))
        for run in (cell.run for cell in cells)
    }
    check_writable(Path(plan.out))
    remove_unfinished(Path(plan.out), own=False)
    _check_sources(cells)
    told: list[str] = []
    todo = [cell for cell in cells if not done(cell, plan, told.append)]
    for what, count in Counter(told).items():
        print(f"{count} of the cells: {what}")
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them done before")
    outcomes: dict[str, Outcome] = {}
    folder = report_folder(Path(plan.out), [cell.run.name for cell in cells])
    report = f"report: {folder / 'report.html'}, its figures: {folder / 'figures.csv'}"
    report += f", beside that of more cells in {plan.out}" if folder != Path(plan.out) else ""
    closing = f"{report}\nnext: {_following(args, plan, scripts)}"
    try:
        runs = [cell.run for cell in todo]
        if todo:
            return launch(runs, partial(worker, plan, todo, prompts), closing, outcomes)
        print(closing)
        return 0
    finally:  # a comparison that is stopped reports what it has
        failed = {name: outcome.fault for name, outcome in outcomes.items() if not outcome.path}
        _report(plan, cells, failed, folder, shlex.join(["python", "study_script.py", *argv]))


def _following(args: argparse.Namespace, plan: Plan, scripts: Path) -> str:
    """What comes next: after a preset the whole plan, after that one more training of each cell."""
    rest, more = args.overrides, []
    if not args.preset:
        rest, more = [each for each in rest if not each.startswith("seeds=")], [f"seeds={plan.seeds + 1}"]
    more += ["--yes"] if args.yes else []
    return shlex.join(["python", str(scripts / "study_script.py"), f"--c={args.c}", *rest, *more])


def _check_fits(cells: Sequence[Cell], amounts: bool) -> None:
    """Raise `UserError` for settings or prompts that the base's family can't do, and for too much of them."""
    path = resolve_model_path(cells[0].run.config.pretrained_model_name_or_path)  # of all cells
    family = family_at(path)
    for cell in cells:
        check_fits(cell.run.config, family)
        if amounts:
            check_amounts(cell.run.config, path, training=True)
        if family is not None:
            cell.source.check_fits(family)


def _check_sources(cells: Sequence[Cell]) -> None:
    """Raise `UserError`, before hours of training, for pairs, prompts or attributes that are not there."""
    from tinyflux.judge import attribute_of, face_probe
    from utils.measure.judges import judge_of
    from utils.study.worker import all_pairs

    for run in (cell.run for cell in cells):
        if run.config.judge == "probe" and attribute_of(run.dataset) is None:
            raise UserError(
                f"datasets: expected attributes that the probe reads, found {run.dataset!r}; one judge "
                "sees all of a study: judge=pairs does any edit"
            )
    pairs = {all_pairs(cell.run): cell.run for cell in cells}
    for source in {*pairs, *(cell.source for cell in cells)}:
        source.read()

    # Pairs of a size that the probe does not read would have another judge than the rest.
    probed = {source: run for source, run in pairs.items() if run.config.judge == "probe"}
    judges = {
        judge_of(run.config, face_probe(run.dataset), source.pairs): run.dataset
        for source, run in probed.items()
    }
    if len(judges) > 1:
        raise UserError(
            f"datasets: expected pairs of a size that the probe reads, found others in {judges['pairs']!r}; "
            "one judge sees all of a study: judge=pairs does any size"
        )


def worker(
    plan: Plan, cells: Sequence[Cell], prompts: Mapping[str, Sequence[str]], runs: Sequence[Run]
) -> Callable[[Run], Path]:
    """Load the base and what measures; gives what trains and measures the cell of any of `runs`.

    Args:
        plan: what is compared.
        cells: those of `runs` among them, which are at least one.
        prompts: of each cell's identities, by its run's name.
        runs: the cells to be done in this process.

    Raises:
        UserError: for a judge that is not there.
    """
    by_name = {cell.run.name: cell for cell in cells}
    config = runs[0].config
    model_path = resolve_model_path(config.pretrained_model_name_or_path)
    texts = [text for run in runs for text in by_name[run.name].source.prompts]
    texts += ["", *(prompt for run in runs for prompt in prompts[run.name])]
    from tinyflux.judge import face_probe
    from utils.measure.instruments import load_tools
    from utils.measure.judges import judge_lacks
    from utils.study.worker import StudyWorker

    tools = load_tools(config, resolve_device(config.device, warn=lambda line: None))  # load_base warns
    if lacking := judge_lacks(config.judge, tools):
        raise UserError(f"judge {config.judge}: {lacking}")
    base, embeds = load_base(Experiment(config, model_path), texts)
    of_all = StudyWorker(plan, base, embeds, tools, face_probe)
    return lambda run: of_all.work(by_name[run.name], prompts[run.name])


def _report(plan: Plan, cells: Sequence[Cell], failed: Mapping[str, str], folder: Path, command: str) -> None:
    from utils.study.cells import CellResult, done
    from utils.study.places import make_room
    from utils.study.report import write_study

    folders = {cell.run.name: cell.run.folder for cell in cells}
    results = [CellResult.load(cell.result_path) for cell in cells if done(cell, plan)]
    if not results:
        return
    judge = cells[0].run.config.judge
    make_room(folder, results)
    path = write_study(results, failed, plan, folder, command, judge, lambda result: folders[result.cell])
    print((path.parent / "table.md").read_text(encoding="utf-8"))


def _parser(methods: Mapping[str, str]) -> argparse.ArgumentParser:
    listed = "".join(f"\n  {name}: {what}" for name, what in methods.items())
    parser = Parser(
        description=f"{__doc__}\nmethods:{listed}",
        epilog=keys_help(),
    )
    parser.add_argument("--c", required=True, metavar="NAME", help="a plan: the YAML of that name in config/")
    parser.add_argument("--preset", default="", metavar="NAME", help="one of the plan's presets")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and do nothing")
    parser.add_argument("--yes", action="store_true", help="do what seems too much for a machine or a day")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that override the YAML")
    return parser


if __name__ == "__main__":
    run_cli(main)
