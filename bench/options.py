"""The options that both commands take."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.arguments import Parser, path_option, whole
from utils.config.listing import keys_help
from utils.config.load import load_config
from utils.config.schema import Config
from utils.errors import UserError
from utils.machine import REPOSITORY
from utils.models.families import train_methods
from utils.training.methods import METHODS

TRAIN = REPOSITORY / "train"


@dataclass(frozen=True)
class Options:
    """A command line, read.

    Attributes:
        command: the line itself.
        overrides: key=value, the base and the device among them.
        random_weights: build FLUX.1-dev's shape in place of loading the base.
        steps: timed steps a turn.
        repeats: turns of each side.
        skip_reference: measure this framework alone.
        out: where the JSON goes.
    """

    command: str
    overrides: list[str]
    random_weights: bool
    steps: int
    repeats: int
    skip_reference: bool
    out: Path

    def config(self, name: str) -> Config:
        """A config of train/config/ under the options; its images are those in train/datasets/.

        Raises:
            UserError: for any fault in it; for a compiled transformer beside the reference.
        """
        config = load_config(name, self.overrides, TRAIN / "config", METHODS, train_methods())
        if config.compile and not self.skip_reference:
            raise UserError("compile: expected 0 beside the reference, whose transformer it is too, found 1")
        return replace(config, datasets_folder=str(TRAIN / config.datasets_folder))


def parse(argv: Sequence[str] | None, module: str, description: str) -> Options:
    """Read a command line.

    Args:
        argv: arguments, None for the process's own.
        module: of the command, such as bench.train.
        description: for --help.

    Raises:
        SystemExit: as argparse does, also for steps or repeats below 1.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=keys_help(),
    )
    parser.add_argument("--base", default="tinyflux", help="a name in train/config/base/ (tinyflux)")
    parser.add_argument(
        "--random-weights", action="store_true", help="FLUX.1-dev's shape without its weights, no download"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, cuda:N or N")
    if module == "bench.train":
        parser.add_argument("--steps", type=whole(), default=20, help="timed steps a turn (20)")
    parser.add_argument("--repeats", type=whole(), default=5, help="turns of each side (5)")
    parser.add_argument("--skip-reference", action="store_true", help="measure this framework alone")
    parser.add_argument("--out", type=path_option, help="the JSON (train/output/bench/COMMAND_BASE.json)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config")
    args = parser.parse_intermixed_args(argv)
    steps = getattr(args, "steps", 1)
    name = f"{module.rpartition('.')[2]}_{args.base}.json"
    return Options(
        command=shlex.join(["python", "-m", module, *argv]),
        overrides=[f"base={args.base}", f"device={args.device}", *args.overrides],
        random_weights=args.random_weights,
        steps=steps,
        repeats=args.repeats,
        skip_reference=args.skip_reference,
        out=args.out or TRAIN / "output" / "bench" / name,
    )
