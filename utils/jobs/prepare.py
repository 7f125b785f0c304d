"""What the scripts share: read and check a study, load its base once, go through its runs, say how it went.

torch and the libraries on it take seconds to import, so functions import them when they come to need them: a
misspelt key or a missing file is told at once, and a dry run is instant.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.load import load_config
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.config.yaml_files import find_yaml
from utils.data.prompts import SliderPrompt, load_slider_prompts
from utils.errors import UserError
from utils.jobs.cli import parse_args
from utils.jobs.outcomes import AnyRun, Outcome, attempt, summarize
from utils.machine import check_writable, resolve_device, resolve_model_path
from utils.models.families import TARGETS
from utils.training.claims import claimed

if TYPE_CHECKING:
    from utils.data.pairs import ImagePair
    from utils.models.base import PromptEmbeds
    from utils.models.flux1 import Flux

CONFIG_FOLDER = Path("config")


@dataclass(frozen=True)
class Study:
    """A study as the command line gave it, read and checked, with its runs."""

    config: Config
    runs: list[Run]
    model_path: str
    arguments: list[str]
    dry_run: bool
    training: bool = False

    def command(self, script: str) -> str:
        """The command that runs another script on this same study."""
        return shlex.join(["python", script, *self.arguments])


def prepare(
    argv: Sequence[str] | None, description: str, methods: Mapping[str, str], training: bool = False
) -> Study:
    """Read a script's command line and the study it names; imports nothing heavy.

    Args:
        argv: arguments, None for the process's own.
        description: of the script, for --help.
        methods: python_name -> what it is; those the study may have, listed in --help too.
        training: whether the script trains, and so takes --resume.

    Raises:
        UserError: for any fault in the study, or a base model that is not there.
        SystemExit: as argparse does, on --help (0) and on options it does not know (2).
    """
    listed = "".join(f"\n  {name}: {what}" for name, what in methods.items())
    args = parse_args(argv, f"{description}\nmethods (python_name):{listed}", training)
    if not CONFIG_FOLDER.is_dir():
        raise UserError(f"{CONFIG_FOLDER}: expected in the current folder, found none in {Path.cwd()}")
    config = load_config(args.c, args.overrides, CONFIG_FOLDER, methods, TARGETS)
    return Study(
        config=config,
        runs=expand_runs(config),
        model_path=resolve_model_path(config.pretrained_model_name_or_path),
        arguments=[f"--c={args.c}", *(each for each in args.overrides if each != "resume=1")],
        dry_run=args.dry_run,
        training=training,
    )


def prepare_sliders(
    argv: Sequence[str] | None, description: str, methods: Mapping[str, str], training: bool = False
) -> tuple[Study, dict[str, list[SliderPrompt]]]:
    """Read a text-slider script's command line, its study, and datasets_folder/DATASET.yaml for each dataset.

    The eta of a text slider is its prompt file's guidance_scale. It becomes the cfg_eta of the dataset's
    runs, over what the base and the study's YAML give, so that names and saved configs tell the truth.

    Args:
        argv, description, methods, training: as in `prepare`.

    Returns:
        The study, and the prompts of each dataset.

    Raises:
        UserError: as `prepare`; for a prompt file that is missing or at fault; for another cfg_eta on the
            command line.
        SystemExit: as `prepare`.
    """
    study = prepare(argv, description, methods, training)
    config = study.config
    paths = {name: find_yaml(Path(config.datasets_folder), name, "datasets") for name in config.datasets}
    prompts = {name: load_slider_prompts(path) for name, path in paths.items()}
    etas = {name: float(of_file[0].guidance_scale) for name, of_file in prompts.items()}
    if any(argument.startswith("cfg_eta=") for argument in study.arguments):
        for name, eta in etas.items():
            if eta != config.cfg_eta:
                raise UserError(
                    f"command line: cfg_eta: expected {eta}, the guidance_scale in {paths[name]}, "
                    f"found {config.cfg_eta}; a text slider's eta is set there"
                )
    runs = [replace(run, config=replace(run.config, cfg_eta=etas[run.dataset])) for run in study.runs]
    return replace(study, runs=runs), prompts


def check_hub(runs: Sequence[Run]) -> None:
    """Raise `UserError` for several runs that would go to one repository of the hub."""
    if runs and runs[0].config.push_to_hub and len(runs) > 1:
        raise UserError(f"push_to_hub: expected a study of one run, found {len(runs)}")


def list_runs(runs: Sequence[Run], paths: Callable[[Run], Mapping[str, object]]) -> None:
    """Print each run with its paths by what they are: a dry run."""
    print(f"{len(runs)} {_runs(runs)}, dry run: nothing is read or written")
    for run in runs:
        print(run.name)
        for what, path in paths(run).items():
            print(f"  {what:9} {path}")


def load_runs_pairs(runs: Iterable[Run]) -> dict[str, list[ImagePair]]:
    """Read the pairs of every run, by dataset, and check that every run's folder can be written.

    Raises:
        UserError: for the first fault, before any folder is made if it is in the pairs.
    """
    from utils.data.pairs import load_pairs

    pairs = {}
    for run in runs:
        if run.dataset not in pairs:
            pairs[run.dataset] = load_pairs(
                *(run.source_folder, run.target_folder, run.config.resolution, run.config.resize),
                run.config.pair_count,
            )
    for run in runs:
        check_writable(run.folder)
    return pairs


def load_base(study: Study, prompts: Collection[str]) -> tuple[Flux, dict[str, PromptEmbeds]]:
    """Load the study's base model and encode all prompts; the text encoders are let go.

    Args:
        study: gives the model path, device, dtype and number of tokens.
        prompts: every prompt that any of the runs needs.

    Returns:
        The base, and each prompt's embedding.

    Raises:
        UserError: for a CUDA index that is not there, a model that is not complete or too large for the
            device, or several processes where nothing is trained.
    """
    import torch

    from utils.models.compiling import compile_blocks
    from utils.models.flux1 import load_flux
    from utils.models.memory import out_of_memory
    from utils.training.distributed import join, launched, process_count, shard, sharding

    if launched() and not study.training:
        raise UserError("accelerate launch: expected a script that trains; run this one with python")
    config = study.config
    device = join(resolve_device(config.device, warn=lambda line: print(line, file=sys.stderr)))
    together = f", {process_count()} processes" if process_count() > 1 else ""
    print(f"base: {study.model_path} on {device}, {config.dtype}{together}", flush=True)
    torch.set_float32_matmul_precision("high")  # TF32 where there is any; what counts is in the base's dtype
    flux = load_flux(study.model_path, device, getattr(torch, config.dtype), config.quantization)
    length = config.max_sequence_length
    try:
        embeds = {prompt: flux.encode_prompts([prompt], length) for prompt in dict.fromkeys(prompts)}
        flux.release_text_encoders()  # before the transformer is there: a card may not hold both
        if sharding():
            shard(flux)
        transformer, _ = flux.transformer, flux.vae  # now, for what is missing to be told before any run
    except torch.OutOfMemoryError:
        raise UserError(out_of_memory(config, device)) from None
    if config.compile:
        compile_blocks(transformer)
    return flux, embeds


def claiming(train: Callable[[AnyRun], object], inputs: Mapping[str, str]) -> Callable[[AnyRun], Path]:
    """The work of training a run that is not trained yet, and uploading it; see `claimed` and `attempt`.

    With several processes, a fault that is not all processes' own ends everything.

    Args:
        train: trains one.
        inputs: hash of what each run learns from, by its name, as it was when it was read.
    """

    from utils.training.distributed import entered_by_main, on_main, shared_faults

    def work(run: AnyRun) -> Path:
        with shared_faults(), entered_by_main(claimed(run, inputs[run.name])) as todo:
            if todo:
                train(run)
        if run.config.push_to_hub:
            from utils.lora.card import push_to_hub

            print(on_main(push_to_hub, run), flush=True)
        return run.weights_path()

    return work


def run_all(
    runs: Sequence[AnyRun],
    work: Callable[[AnyRun], Path],
    closing: str,
    outcomes: dict[str, Outcome] | None = None,
) -> int:
    """Do `work` for every run here, one after another and whatever becomes of the others; print a summary.

    A run that fails prints its traceback, or its one line if the fault is the user's; Ctrl-C ends everything.

    Args:
        runs: at least one.
        work: does one run and returns where its result lies.
        closing: what to do next, printed at the end if there is any result.
        outcomes: filled as runs end, by their names.

    Returns:
        The exit status, as of `summarize`.
    """
    outcomes = {} if outcomes is None else outcomes
    for number, run in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {run.name}", flush=True)
        outcomes[run.name] = attempt(run, work)
    return summarize(runs, outcomes, closing)


def _runs(runs: Sequence[Run]) -> str:
    return "run" if len(runs) == 1 else "runs"
