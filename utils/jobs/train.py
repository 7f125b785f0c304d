"""What every command that trains does: read and check, load the base once, train every run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from utils.config.runs import Run
from utils.errors import UserError
from utils.files import write_atomically
from utils.jobs.calibrate import ProbeOf, calibrate_trained, identities_prompts, is_calibrated
from utils.jobs.launch import launch
from utils.jobs.prepare import Experiment, check_hub, list_runs, load_base, prepare, run_all
from utils.lora.calibration import lacks_calibration
from utils.machine import check_writable, heavy_imports, launched
from utils.models.families import family_at
from utils.training.claims import claimed, is_trained
from utils.training.init_lora import check_init_lora
from utils.training.methods import method_of
from utils.training.sources import Source, shared


def train_command(
    argv: Sequence[str] | None,
    description: str,
    methods: Mapping[str, str],
    following: str,
    probe_of: ProbeOf = lambda dataset: None,
) -> int:
    """Train every run that a command line asks for.

    Args:
        argv: arguments, None for the process's own.
        description: of the script, for --help.
        methods: those that it trains, python_name -> what it is.
        following: the script that comes next and what it is given beside the same arguments.
        probe_of: the face world's probe for a dataset, where it judges.

    Returns:
        The exit status as in `run_all`.

    Raises:
        UserError: for any fault in the config or in what is to be learned, before anything heavy is loaded.
    """
    experiment = prepare(argv, description, methods, training=True)
    runs = experiment.runs
    check_hub(runs)
    for line in experiment.translation if experiment.dry_run else experiment.translation[:1]:
        print(line, flush=True)
    sources = shared({run.name: method_of(run.config.python_name).source.of(run) for run in runs})
    if experiment.dry_run:
        calibrated = [run for run in runs if is_calibrated(run, sources[run.name])]
        checks: list[Callable[[], object]] = [source.fingerprint for source in sources.values()]
        checks += [partial(identities_prompts, run, run.config.calibrate) for run in calibrated]
        checks.append(partial(check_init_lora, experiment.config))
        list_runs(runs, lambda run: {**sources[run.name].paths(), **_written(run)}, checks)
        for source in dict.fromkeys(sources.values()):
            for line in source.summary():
                print(line)
        return 0

    # The fingerprints first: a file replaced meanwhile is then another one's next time.
    fingerprints = {name: source.fingerprint() for name, source in sources.items()}
    script, *arguments = following.split(maxsplit=1)
    closing = " ".join(["next:", experiment.command(script), *arguments])
    if not launched() and all(is_trained(run, fingerprints[run.name]) for run in runs):
        return run_all(runs, partial(_keep, sources, fingerprints), closing)

    family = family_at(experiment.model_path)
    for source in sources.values():
        source.read()
        if family is not None:
            source.check_fits(family)
    check_init_lora(experiment.config)
    for run in runs:
        check_writable(run.folder)
    return launch(runs, partial(training_worker, experiment, sources, fingerprints, probe_of), closing)


def training_worker(
    experiment: Experiment,
    sources: Mapping[str, Source],
    fingerprints: Mapping[str, str],
    probe_of: ProbeOf,
    runs: Sequence[Run],
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs` unless it is trained, and uploads it; see `claimed`.

    With several processes, a fault that is not all processes' own ends everything.

    Args:
        experiment: the base and the machine.
        sources: what each run learns from, by its name.
        fingerprints: of the sources, as they were when they were read.
        probe_of: see `train_command`.
        runs: those to be done in this process.
    """
    prompts = [
        prompt for run in runs for prompt in (*sources[run.name].prompts, *_of_calibration(run, sources))
    ]
    base, embeds = load_base(experiment, prompts)
    with heavy_imports():
        from utils.training.distributed import entered_by_main, on_main, shared_faults
        from utils.training.trainer import train_run

    looked: set[Source] = set()

    def work(run: Run) -> Path:
        source = sources[run.name]
        with shared_faults(), entered_by_main(claimed(run, fingerprints[run.name])) as todo:
            if todo:
                on_main(_look, run, source, source not in looked)
                looked.add(source)
                train_run(run, base, source, embeds)
                if is_calibrated(run, source):
                    calibrate_trained(run, source, base, embeds, probe_of)
            else:
                on_main(_tell_kept, run, source)
        if run.config.push_to_hub:
            from utils.lora.card import push_to_hub

            print(on_main(push_to_hub, run), flush=True)
        return run.weights_path()

    return work


def _keep(sources: Mapping[str, Source], fingerprints: Mapping[str, str], run: Run) -> Path:
    """What `training_worker` does with a run that is trained, without torch and the base."""
    with claimed(run, fingerprints[run.name]) as todo:
        if todo:
            raise UserError(f"{run.folder}: expected it trained, as it was a moment ago; start again")
        _tell_kept(run, sources[run.name])
    if run.config.push_to_hub:
        from utils.lora.card import push_to_hub

        print(push_to_hub(run), flush=True)
    return run.weights_path()


def _tell_kept(run: Run, source: Source) -> None:
    """Say of a training that is left as it is that its slider was not calibrated, as after a kill."""
    path = run.weights_path()
    if is_calibrated(run, source) and lacks_calibration(path):
        command = shlex.join(["python", "eval_scripts/calibrate.py", str(path)])
        print(f"its slider was not calibrated, which this does: {command}", flush=True)


def _look(run: Run, source: Source, first: bool) -> None:
    """Say what is to be learned, the first time, and leave a picture of it in the run's folder."""
    for line in source.look(run.dataset) if first else []:
        print(line, flush=True)
    if (sheet := source.sheet()) is not None:
        data = BytesIO()
        sheet.save(data, "PNG")
        write_atomically(run.pairs_path, data.getvalue())


def _of_calibration(run: Run, sources: Mapping[str, Source]) -> list[str]:
    """The prompts that the end of a run's training needs."""
    return identities_prompts(run, run.config.calibrate) if is_calibrated(run, sources[run.name]) else []


def _written(run: Run) -> dict[str, Path]:
    return {"weights": run.weights_path(), "reference": run.reference_path()}
