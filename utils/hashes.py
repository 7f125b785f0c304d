"""Hashes that tell what a result was made with: of a LoRA's content, and files of hashes by name.

A LoRA's hash is of its tensors and of what says how to read them, not of the rest of its header: calibrating
it, which writes there, leaves it the same LoRA. No torch is needed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError
from utils.files import write_atomically

READING = ("lora_adapter_metadata", "kohya_parts", "new_words")
"""Keys of a header that say how the tensors are to be read, OWN_HEADER of utils/lora/formats.py."""


def lora_hash(path: Path) -> str:
    """The hash of a LoRA file's content, 16 hex digits; a .pt counts as a whole.

    Raises:
        UserError: it is missing, empty, cut, or neither a .safetensors nor a .pt.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(9)
            if start[8:] == b"{":
                digest = hashlib.sha256(_safetensors_header(path, file, start, size))
            elif zipfile.is_zipfile(path):
                file.seek(0)
                digest = hashlib.sha256()
            else:
                raise UserError(f"{path}: expected a LoRA file, found {size} bytes that are none")
            return hashlib.file_digest(file, lambda: digest).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path}: expected a LoRA file, found {error.strerror or error}") from None


def _safetensors_header(path: Path, file: BinaryIO, start: bytes, size: int) -> bytes:
    """What the header says of the tensors; leaves the file at their first byte."""
    length = int.from_bytes(start[:8], "little")
    if length + 8 > size:
        raise UserError(f"{path}: expected a header of {length} bytes, found {size} in all: it was cut")
    try:
        header: dict[str, Any] = json.loads(start[8:] + file.read(length - 1))
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        own = {key: metadata[key] for key in READING if key in metadata}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: expected a header of tensors, found {type(error).__name__}") from None
    if not header or end != size - 8 - length:
        raise UserError(f"{path}: expected {end} bytes of tensors, found {size - 8 - length}")
    return json.dumps([header, own], sort_keys=True).encode()


def write_hashes(path: Path, hashes: Mapping[str, str]) -> None:
    """Write hashes by name, a line each as sha256sum has them."""
    write_atomically(path, "".join(f"{own}  {name}\n" for name, own in sorted(hashes.items())).encode())


def read_hashes(path: Path) -> dict[str, str] | None:
    """What `write_hashes` wrote; None if there is no such file. A line that is damaged names nothing."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: own for own, _, name in (line.partition("  ") for line in lines)}
