"""Networks with outside weights: found in a folder, on the hub or in its cache; or why one can't be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError

NOT_THERE = (OSError, ImportError)
"""What missing files are met with, by transformers and torch."""
UNFIT = (ValueError, RuntimeError, KeyError, EOFError, UnpicklingError, SafetensorError)
"""What unfit files are met with, by transformers, safetensors, torch and what loads networks here."""


@dataclass(frozen=True)
class Unavailable:
    """A network that can't be had: its name, why, and what would change that."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: not available: {self.reason}; to have it: {self.remedy}"


def model_folder(
    source: str,
    small: Sequence[str] = ("*.json", "*.txt"),
    weights: Sequence[str] = ("model*.safetensors", "pytorch_model*.bin"),
) -> str:
    """`source`, where it is a folder; else the folder of the hub's model in the hub's cache.

    Args:
        source: a folder, or a hub id "owner/name".
        small: patterns of the files that are wanted beside the weights.
        weights: patterns of weights; the first of which the hub has a file is fetched, else the last.

    Raises:
        OSError: neither folder nor hub nor cache has it; the message says what the hub said.
    """
    if Path(source).is_dir():
        return source
    wanted = list(small)
    try:  # asked once, before all else: without a network, from_pretrained tries for 23 s a file
        files = [file.rfilename for file in HfApi().model_info(source, timeout=10).siblings or []]
        there = (pattern for pattern in weights if any(fnmatch(file, pattern) for file in files))
        wanted.append(next(there, weights[-1]))
        return snapshot_download(source, allow_patterns=wanted)
    except Exception as error:  # of an HTTP client that is the hub library's own affair
        try:
            return snapshot_download(source, allow_patterns=wanted, local_files_only=True)
        except NOT_THERE + UNFIT:
            raise OSError(f"no folder {source}, not in the hub's cache, hub: {reason(error)}") from error


def load_pretrained(name: str, folder: str, **settings: Any) -> Any:
    """The transformers model of class `name` in a folder, frozen.

    Raises:
        ValueError: weights are missing, which transformers would leave random; else as `from_folder`.
    """
    model, report = from_folder(name, folder, output_loading_info=True, **settings)
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder}: expected the weights of a {name}, found no {missing[0]}")
    return model.requires_grad_(False).eval()


def from_folder(name: str, folder: str, **settings: Any) -> Any:
    """What transformers' class `name`, of a model, tokenizer or processor, makes of a folder.

    Raises:
        Exception: of `NOT_THERE`, `UNFIT`, or that there is too little memory.
    """
    import transformers  # takes seconds, so only once there is a folder

    try:
        return getattr(transformers, name).from_pretrained(folder, **settings)
    except NOT_THERE + UNFIT:
        raise
    except Exception as error:  # another model's configuration is met with any error there is
        raise ValueError(
            f"{folder}: expected the files of a {name}, found others: {reason(error)}"
        ) from error


def onnx_session(source: str | Path) -> Any:
    """A session of onnxruntime, on the CPU, with an .onnx file.

    Raises:
        ImportError: onnxruntime is not installed; it is no dependency.
        ValueError: no such file, or one that is none.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ValueError(reason(error)) from error


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, KeyError) or not lines:
        return repr(error)
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])  # the first may only announce the second
