"""What every command that trains does: read and check, load the base once, train every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from utils.config.runs import Run
from utils.jobs.launch import launch
from utils.jobs.prepare import Experiment, check_hub, list_runs, load_base, prepare
from utils.machine import check_writable, heavy_imports
from utils.models.families import family_at
from utils.training.methods import method_of
from utils.training.sources import Source, shared


def train_command(
    argv: Sequence[str] | None, description: str, methods: Mapping[str, str], following: str
) -> int:
    """Train every run that a command line asks for.

    Args:
        argv: arguments, None for the process's own.
        description: of the script, for --help.
        methods: those that it trains, python_name -> what it is.
        following: the script that comes next and what it is given beside the same arguments.

    Returns:
        The exit status as in `run_all`.

    Raises:
        UserError: for any fault in the config or in what is to be learned, before anything heavy is loaded.
    """
    experiment = prepare(argv, description, methods, training=True)
    runs = experiment.runs
    check_hub(runs)
    sources = shared({run.name: method_of(run.config.python_name).source.of(run) for run in runs})
    if experiment.dry_run:
        list_runs(runs, lambda run: {**sources[run.name].paths(), **_written(run)})
        return 0

    # The fingerprints first: a file replaced meanwhile is then another one's next time.
    fingerprints = {name: source.fingerprint() for name, source in sources.items()}
    family = family_at(experiment.model_path)
    for source in sources.values():
        source.read()
        if family is not None:
            source.check_fits(family)
    for run in runs:
        check_writable(run.folder)

    script, *arguments = following.split(maxsplit=1)
    closing = " ".join(["next:", experiment.command(script), *arguments])
    return launch(runs, partial(training_worker, experiment, sources, fingerprints), closing)


def training_worker(
    experiment: Experiment,
    sources: Mapping[str, Source],
    fingerprints: Mapping[str, str],
    runs: Sequence[Run],
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs` unless it is trained, and uploads it; see `claimed`.

    With several processes, a fault that is not all processes' own ends everything.

    Args:
        experiment: the base and the machine.
        sources: what each run learns from, by its name.
        fingerprints: of the sources, as they were when they were read.
        runs: those to be done in this process.
    """
    base, embeds = load_base(experiment, [prompt for run in runs for prompt in sources[run.name].prompts])
    with heavy_imports():
        from utils.training.claims import claimed
        from utils.training.distributed import entered_by_main, on_main, shared_faults
        from utils.training.trainer import train_run

    def work(run: Run) -> Path:
        with shared_faults(), entered_by_main(claimed(run, fingerprints[run.name])) as todo:
            if todo:
                train_run(run, base, sources[run.name], embeds)
        if run.config.push_to_hub:
            from utils.lora.card import push_to_hub

            print(on_main(push_to_hub, run), flush=True)
        return run.weights_path()

    return work


def _written(run: Run) -> dict[str, Path]:
    return {"weights": run.weights_path(), "reference": run.reference_path()}
