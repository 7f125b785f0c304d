"""Files of tensors, read with distrust.

torch is imported where it is used, so that a command's --help need not wait for it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata keys of hashes over the tensors, made anew for every file."""

_MOST_TENSORS = 20_000  # FLUX has about 500 linears, three tensors each
_SHARING = 4  # a .pt stores once what several tensors share: q, k, v and the MLP may have one A


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors or torch file by key, and the metadata of its header ({} for a .pt).

    A .pt runs no code, and can take no more memory than its own size says.

    Raises:
        UserError: if the file is missing, damaged, or holds anything but tensors.
    """
    with _faults_told(path):
        return _read_safetensors(path) if is_safetensors(path) else _read_torch(path)


def read_keys(path: Path) -> list[str]:
    """The keys of the same files, of a safetensors without its tensors; raises as `read_tensors`."""
    from safetensors import safe_open

    with _faults_told(path):
        if not is_safetensors(path):
            return list(_read_torch(path)[0])
        with safe_open(path, framework="pt") as file:
            return list(file.keys())


@contextmanager
def _faults_told(path: Path) -> Iterator[None]:
    """Inside, whatever goes wrong with a file is a `UserError`."""
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "nothing"
            raise UserError(f"{path}: expected a LoRA file, found {found}")
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged file can make the parsers raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected a LoRA file (safetensors or .pt), found: {reason}") from error


def is_safetensors(path: Path) -> bool:
    """An 8-byte header length no greater than the file, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A .safetensors, with the hashes of its tensors in the header; the tensors share no memory."""
    from safetensors.torch import save

    return save(dict(tensors), metadata={"format": "pt", **metadata, **_hashes(tensors, metadata)})


def _hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """HASHES, by which galleries know a file whatever else its header says.

    As sd-scripts computes them: over the file that has nothing but the ss_ keys in its header, all of it
    behind the header, and (as long ago) 64 KiB from the first MiB on.
    """
    from safetensors.torch import save

    trained = {key: text for key, text in metadata.items() if key.startswith("ss_")}
    data = save(dict(tensors), metadata=trained)
    whole = sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    legacy = sha256(data[0x100000:0x110000]).hexdigest()[:8]
    spec = {"modelspec.hash_sha256": f"0x{whole}"} if "modelspec.sai_model_spec" in metadata else {}
    return {"sshs_model_hash": whole, "sshs_legacy_hash": legacy, **spec}


def torch_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A torch state dict (.pt)."""
    import torch

    buffer = BytesIO()
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parser itself sees to it that shapes and offsets agree with the file's size."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        _check_count(path, len(keys))
        return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    import torch
    from torch import Tensor

    _check_zip(path)
    with path.open("rb") as file:  # given a path, torch would go by its suffix
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict of tensors, found {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items()}
    _check_count(path, len(tensors))
    room, total = path.stat().st_size, 0
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise UserError(f"{path}: expected plain tensors, found {key} of layout {tensor.layout}")
        total += tensor.numel() * tensor.element_size()
    if total > _SHARING * room:  # a view can repeat a few stored bytes without end
        raise UserError(f"{path}: expected a LoRA file, found tensors of {total} bytes in {room}")
    return tensors, {}


def _check_zip(path: Path) -> None:
    """Raise `UserError` unless the file is as torch.save writes it: a zip with nothing compressed."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: expected a LoRA file (safetensors or .pt), found neither")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    _check_count(path, len(members))
    if packed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
        raise UserError(
            f"{path}: expected a .pt, whose parts are not compressed, found {packed[0]} compressed"
        )
    total, room = sum(member.file_size for member in members), path.stat().st_size
    if total > room:
        raise UserError(f"{path}: expected a LoRA file, found parts of {total} bytes in {room}")


def _check_count(path: Path, count: int) -> None:
    if count > _MOST_TENSORS:
        raise UserError(
            f"{path}: expected a LoRA file, found {count} parts where {_MOST_TENSORS} are the most"
        )
