"""This machine: its devices, its folders, the models that are found here.

Nothing heavy is imported before it is needed, so that a config is checked at once.
"""

import atexit
import gc
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).resolve().parents[1]

atexit.register(
    gc.unfreeze
)  # what `heavy_imports` set aside: libraries complain of what is still there at exit


@contextmanager
def heavy_imports() -> Iterator[None]:
    """For import statements: inside, no garbage is looked for, and later not among what is there by then.

    The libraries make a million objects that stay; to look through them again and again takes a fifth of the
    time of importing them.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def resolve_device(device: str, warn: Callable[[str], object] = print) -> "torch.device":
    """Turn auto, cpu, mps, cuda, cuda:N or N into a torch device; auto is CUDA, else the CPU.

    Where there is none of the kind, it becomes the CPU and `warn` gets one line saying so. With CUDA, an
    index beyond the last raises `UserError`.
    """
    import torch  # here, so that reading a config stays instant

    if device == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        warn("device mps: this machine has no Apple GPU that torch can use; using the CPU")
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    if not count:
        warn(f"device {device}: this machine has no CUDA; using the CPU")
        return torch.device("cpu")
    digits = re.search(r"\d+$", device)
    index = int(digits.group()) if digits else 0
    if index >= count:
        raise UserError(f"device: expected a CUDA index from 0 to {count - 1}, found {device}")
    return torch.device("cuda", index)


def resolve_model_path(name: str) -> str:
    """Find the base model: a folder here, else one in the repository, else a hub id "owner/name".

    A name whose first part is a folder here or in the repository is a path, never a hub id, so that a missing
    folder is not looked for on the hub. Raises `UserError` when nothing is found, and on a folder that is no
    diffusers pipeline.
    """
    path = Path(name)
    for folder in (path, REPOSITORY / path):
        if folder.is_dir():
            if not (folder / "model_index.json").is_file():
                raise UserError(
                    "pretrained_model_name_or_path: expected a diffusers folder with a model_index.json, "
                    f"found {folder} without one"
                )
            return str(folder)
    looks_like_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None
    if looks_like_hub_id and not any((root / path.parts[0]).exists() for root in (Path(), REPOSITORY)):
        return name
    raise UserError(
        f"pretrained_model_name_or_path: expected a folder (here or in {REPOSITORY}) or a hub id owner/name, "
        f"found {name!r}"
    )


def launched_processes() -> int:
    """How many processes train together, before they have found each other."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def check_writable(folder: Path) -> None:
    """Make `folder` and write to it once; raises `UserError` when either fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: expected a folder to write to, found {error.strerror or error}") from None
