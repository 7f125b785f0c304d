"""The command line of the scripts."""

import argparse
import sys
from collections.abc import Sequence

from utils.arguments import Parser
from utils.config.listing import keys_help


def parse_args(
    argv: Sequence[str] | None = None, description: str = "", training: bool = False
) -> argparse.Namespace:
    """Parse a script's command line into `c`, `dry_run` and `overrides`.

    The overrides are key=value; --device and, for scripts that train, --resume become such.
    """
    parser = Parser(description=description, epilog=keys_help())
    parser.add_argument(
        "--c", required=True, metavar="NAME", help="a config: the YAML of that name in config/"
    )
    parser.add_argument("--device", help="auto, cpu, mps, cuda, cuda:N or N; the same as device=...")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their paths, do nothing")
    parser.add_argument("--yes", action="store_true", help="do what seems too much for a machine or a day")
    if training:
        parser.add_argument(
            "--resume",
            action="store_true",
            help="resume trainings that were stopped, from their last save",
        )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that override the YAML")
    args = parser.parse_intermixed_args(argv)
    if training and args.resume:
        args.overrides.append("resume=1")
    if args.device is not None:
        args.overrides.append(f"device={args.device}")
    return args


def with_method(argv: Sequence[str] | None, python_name: str) -> list[str]:
    """Arguments (None: the process's own) that choose a method, over what the YAML says."""
    return [*(sys.argv[1:] if argv is None else argv), f"python_name={python_name}"]
