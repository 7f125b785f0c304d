"""What the scripts share: read and check a config, load its base once, go through its runs, say how it went.

torch and the libraries on it take seconds to import, so functions import them when they need them: a
misspelt key or a missing file is reported at once, and a dry run is instant.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.runs import Run
from utils.config.schema import KEYS, Config, of_captions_alone
from utils.data.foreign.read import load_any
from utils.data.prompts import KNOWN_WORDS, unknown_words
from utils.errors import UserError
from utils.jobs.amounts import check_amounts
from utils.jobs.cli import parse_args
from utils.jobs.outcomes import AnyRun, Outcome, attempt, summarize
from utils.machine import REPOSITORY, heavy_imports, launched, resolve_device, resolve_model_path
from utils.models.families import family_at, train_methods
from utils.models.family import Family
from utils.names import find_lora
from utils.training.methods import method_of
from utils.training.optimizers import optimizer_kind

if TYPE_CHECKING:
    from utils.generation.texts import Edits
    from utils.models.base import Base, PromptEmbeds

CONFIG_FOLDER = Path("config")
_WEIGHTS = (".onnx", ".pt", ".pth", ".bin", ".safetensors")  # a hub id may have a dot, too


@dataclass(frozen=True)
class Experiment:
    """A config as the command line gave it, read and checked, with its runs.

    Attributes:
        config: read and checked, without its sweep taken apart.
        model_path: folder of the base model.
        arguments: of the command line, to be said in commands that come next.
        dry_run, training: whether it only lists, and whether it trains.
        scripts: the way to the scripts' folder from where the command was started.
        translation: what became of each key of another trainer's config, if it is one; see `table_of`.
    """

    config: Config
    model_path: str
    arguments: Sequence[str] = ()
    dry_run: bool = False
    training: bool = False
    scripts: Path = Path()
    translation: Sequence[str] = ()

    @cached_property
    def runs(self) -> Sequence[Run]:
        """The runs of its sweep; raises `UserError` for two of one name, or what the source misses."""
        given = {argument.partition("=")[0] for argument in self.arguments}
        source = method_of(self.config.python_name).source
        return (source.runs if self.training else source.trained_runs)(self.config, given)

    def command(self, script: str) -> str:
        """The command that runs another script on this same config, from where this one was started."""
        return shlex.join(["python", str(self.scripts / script), *self.arguments])


def prepare(
    argv: Sequence[str] | None, description: str, methods: Mapping[str, str], training: bool = False
) -> Experiment:
    """Read a script's command line and the config it names; imports nothing heavy.

    Args:
        argv: arguments, None for the process's own.
        description: of the script, for --help.
        methods: python_name -> what it is; those the config may have, listed in --help too.
        training: whether the script trains, and so takes --resume.

    Raises:
        UserError: for any fault in the config, or a base model that is not there.
        SystemExit: as argparse does, on --help (0) and on options it does not know (2).
    """
    listed = "".join(f"\n  {name}: {what}" for name, what in methods.items())
    args = parse_args(argv, f"{description}\nmethods (python_name):{listed}", training)
    scripts = enter_config_folder()
    config, table = load_any(args.c, args.overrides, CONFIG_FOLDER, methods, train_methods())
    config = with_loras_found(config)
    model_path = resolve_model_path(config.pretrained_model_name_or_path)
    check_fits(config, family_at(model_path))
    if training:
        optimizer_kind(config.optimizer)
        check_known(config)
    if not args.yes:
        check_amounts(config, model_path, training)
    typed = [each for each in args.overrides if each != "resume=1"]
    return Experiment(
        config=config,
        model_path=model_path,
        arguments=[f"--c={args.c}", *typed, *(["--yes"] if args.yes else [])],
        dry_run=args.dry_run,
        training=training,
        scripts=scripts,
        translation=table,
    )


def check_known(config: Config) -> None:
    """Raise `UserError` for keys of captioned images under a method that learns from none."""
    if method_of(config.python_name).source.captioned:
        return
    if unknown := of_captions_alone(config):
        raise UserError(
            f"{', '.join(unknown)}: expected as by default under {config.python_name}, which learns from no "
            f"captions, found {', '.join(str(getattr(config, name)) for name in unknown)}"
        )


def with_loras_found(config: Config) -> Config:
    """The config with the file of each LoRA that it names by its run's folder or without its suffix."""
    trained = [str(find_lora(Path(path))) for path in config.trained_lora_path]
    semantic, first = (
        path and str(find_lora(Path(path))) for path in (config.semantic_lora_path, config.init_lora)
    )
    return replace(config, trained_lora_path=trained, semantic_lora_path=semantic, init_lora=first)


def check_fits(config: Config, family: Family | None) -> None:
    """Raise `UserError` for what this machine or the base's family, where it is known yet, can't do."""
    if config.report_to == "wandb" and find_spec("wandb") is None:
        raise UserError(
            "report_to: expected wandb to be there, found none; pip install -e '.[wandb]' installs it"
        )
    if family is not None:
        for side in ("resolution", "width", "height"):
            if pixels := getattr(config, side):
                family.check_size(pixels, side)
        family.linears(config.train_method)
        family.check_learned_text([key for key in ("new_token", "text_rank") if getattr(config, key)])


def enter_config_folder() -> Path:
    """Go to the folder of the script that runs, the one with config/ in it, unless there is one here.

    So a command works from the repository as from its own folder; paths are relative to the latter.

    Returns:
        The way there from where the command was started.

    Raises:
        UserError: where there is neither.
    """
    if CONFIG_FOLDER.is_dir():
        return Path()
    above = Path(sys.argv[0]).resolve().parents
    own = [
        folder for folder in above if folder.is_relative_to(REPOSITORY) and (folder / CONFIG_FOLDER).is_dir()
    ]
    if own and Path.cwd().is_relative_to(REPOSITORY):
        print(f"in {own[0]}, which paths are relative to", flush=True)
        way = Path(os.path.relpath(own[0]))
        os.chdir(own[0])
        return way
    first = shlex.join(["cd", str(own[0] if own else REPOSITORY / "train")])
    raise UserError(
        f"{CONFIG_FOLDER}: expected in the current folder, found none in {Path.cwd()}; first: {first}"
    )


def check_hub(runs: Sequence[Run]) -> None:
    """Raise `UserError` for several runs that would go to one repository of the hub."""
    if runs and runs[0].config.push_to_hub and len(runs) > 1:
        raise UserError(f"push_to_hub: expected a config of one run, found {len(runs)}")


def list_runs(
    runs: Sequence[AnyRun],
    paths: Callable[[AnyRun], Mapping[str, object]],
    checks: Sequence[Callable[[], object]] = (),
) -> None:
    """Print each run with its paths by what they are, and what is missing: a dry run.

    Args:
        runs: to be listed.
        paths: of a run, by what they are.
        checks: what the real run would check of what it is given, each raising `UserError`; here a line
            says what is missing, as an earlier command may be about to make it.
    """
    print(f"{len(runs)} run{'s' * (len(runs) != 1)}, dry run: nothing is made or written")
    for run in runs:
        print(run.name)
        for what, path in paths(run).items():
            print(f"  {what:9} {path}")

    missing: dict[str, None] = {}  # a dict: what several runs miss is said once
    for check in checks:
        try:
            check()
        except UserError as error:
            missing[str(error)] = None
    for line in missing:
        print(f"missing: {line}")


def check_weights(config: Config) -> None:
    """Raise `UserError` for weights of measuring networks that are named by a path where nothing is."""
    for name in (name for name in KEYS if name.endswith("_weights")):
        path = Path(getattr(config, name))
        if (path.is_absolute() or path.suffix in _WEIGHTS) and not path.exists():
            raise UserError(f"{name}: expected weights, found none at {path}")


def load_base(
    experiment: Experiment, prompts: Collection[str], edits: Sequence[Edits] = ()
) -> tuple[Base, Mapping[str, PromptEmbeds]]:
    """Load the config's base model and encode all prompts; the text encoders are let go.

    Args:
        experiment: gives the model path, device, dtype, number of tokens, and where embeddings are kept.
        prompts: every prompt that any of the runs needs.
        edits: LoRAs that will act, some of them on the text encoders, too.

    Returns:
        The base, and each prompt's embedding.

    Raises:
        UserError: for a CUDA index that is not there, a model that is not complete or too large for the
            device, or several processes where nothing is trained.
    """
    with heavy_imports():
        import torch

        from utils.generation.texts import encode_under, new_words_in, without_new_words
        from utils.models.base import load_base_model
        from utils.models.compiling import compile_blocks
        from utils.models.memory import out_of_memory
        from utils.training.cache import Cache, cached_prompts
        from utils.training.distributed import join, process_count, shard, sharding

    if launched() and not experiment.training:
        raise UserError("accelerate launch: expected a script that trains; run this one with python")
    config = experiment.config
    device = join(resolve_device(config.device, warn=lambda line: print(line, file=sys.stderr)))
    together = f", {process_count()} processes" if process_count() > 1 else ""
    note = f" ({config.base_note})" if config.base_note else ""
    print(f"base: {experiment.model_path} on {device}, {config.dtype}{together}{note}", flush=True)
    new = {*new_words_in(edits), config.new_token, config.trigger} - {""}
    if unknown := unknown_words(experiment.model_path, without_new_words(prompts, sorted(new))):
        print(f"check: the base knows no {', '.join(map(repr, unknown))}; its words are in {KNOWN_WORDS}")
    torch.set_float32_matmul_precision("high")  # TF32 where there is any; what counts is in the base's dtype
    base = load_base_model(experiment.model_path, device, getattr(torch, config.dtype), config.quantization)
    check_fits(config, base.family)
    length = config.max_sequence_length
    try:
        embeds = cached_prompts(base, [*prompts], length, Cache.of(config))
        if edits:
            embeds = encode_under(base, embeds, length, edits)
        base.release_text_encoders()  # before the transformer is there: a card may not hold both
        if sharding():
            shard(base)
        for name in ("transformer", *base.image_parts):
            base.part(name)  # now, for what is missing to be reported before any run
    except torch.OutOfMemoryError:
        raise UserError(out_of_memory(config, device)) from None
    if config.compile:
        compile_blocks(base.transformer)
    return base, embeds


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
