"""Our LoRA files in other tools' own code, theirs in ours: a table of how far the changes of weights differ.

python -m bench.lora_peers --sd-scripts ../sd-scripts --comfyui ../ComfyUI --lycoris ../LyCORIS

From the repository, each with a git checkout of the tool; a tool without one is left out, but for diffusers,
which is installed. What a checkout imports and the environment lacks is said in its row; `--site FOLDER` is
searched, too (pip install --no-deps --target FOLDER parse toml gguf optimum-quanto opencv-python-headless).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import logging
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import lora_peer_code as code
from bench import lora_peer_trainers as trainers
from utils.arguments import path_option

LIMIT = 1e-6
"""Of a linear's change of weight, relative to the greatest number in it; float32 rounds by 6e-8."""

Peer = Callable[[Path, Path], Iterator[code.Row]]
PEERS: dict[str, Peer] = {
    "sd-scripts": code.sd_scripts,
    "comfyui": code.comfyui,
    "diffusers": code.diffusers,
    "ai-toolkit": trainers.ai_toolkit,
    "onetrainer": trainers.onetrainer,
    "lycoris": trainers.lycoris,
    "x-flux": code.xlabs,
    "pairedit": code.authors,
}
_STAND_INS = ("torchaudio", "av")
"""Imported at the top of a file here and there, for video, and used for nothing that runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a difference is above the limit, 0 else."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in PEERS:
        if name != "diffusers":
            parser.add_argument(f"--{name}", type=path_option, metavar="CHECKOUT")
    parser.add_argument("--site", type=path_option, metavar="FOLDER", help="packages that checkouts import")
    args = parser.parse_args(argv)
    if args.site:
        sys.path.append(str(args.site))
    sys.argv = sys.argv[:1]  # ComfyUI reads it on import
    _stand_in()
    print("| tool | direction | file | worst relative difference |\n|---|---|---|---|")
    bad = 0
    for name, peer in PEERS.items():
        checkout = getattr(args, name.replace("-", "_"), None)
        if checkout or name == "diffusers":
            bad += _rows(name, peer, checkout)
    return int(bad > 0)


def _rows(name: str, peer: Peer, checkout: Any) -> int:
    """Print a tool's rows; how many are above the limit."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        rows = peer(checkout, Path(folder))
        while True:
            try:
                with _quiet():
                    row = next(rows, None)
            except Exception as error:  # of whatever its code does here: told, and the next one has its turn
                reason = " ".join(str(error).split())[:150]
                print(f"| {name} | | could not be run: {type(error).__name__}: {reason} | |", flush=True)
                return bad + 1
            if row is None:
                return bad
            direction, what, worst = row
            bad += worst > LIMIT
            print(
                f"| {name} | {direction} | {what} | {worst:.1e}{' !' if worst > LIMIT else ''} |", flush=True
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tools' own talk goes nowhere."""
    logging.disable(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


def _stand_in() -> None:
    for name in _STAND_INS:
        if importlib.util.find_spec(name) is None:
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = module


if __name__ == "__main__":
    sys.exit(main())
