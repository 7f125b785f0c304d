"""The weights of a base model on disk, read one at a time: its transformer's, and its text encoders'."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import UserError
from utils.lora.names import TRANSFORMER, text_encoders

_FILES = {TRANSFORMER: "diffusion_pytorch_model.safetensors"}
_TEXT_FILE = "model.safetensors"


def parts_at(folder: Path) -> list[str]:
    """The parts whose weights a pipeline's folder has; of any other folder the transformer."""
    text = [part for part in text_encoders() if _is_there(folder / part / _TEXT_FILE)]
    return [TRANSFORMER, *text] if (folder / TRANSFORMER).is_dir() else [TRANSFORMER]


class open_weights(Mapping[str, Tensor]):  # noqa: N801 - used as a function
    """Weights by name, from a diffusers folder; a context manager.

    The folder is a pipeline's or its transformer's; weights are in one file or in several with an index. The
    transformer's have their own names, a text encoder's are behind its name in the pipeline.

    Args:
        folder: the folder.
        parts: those to open, of `parts_at`.

    Raises:
        UserError: if there are none, or they are damaged.
    """

    def __init__(self, folder: Path, parts: Collection[str] = (TRANSFORMER,)) -> None:
        from safetensors import SafetensorError, safe_open

        self._opened = ExitStack()
        self._files: dict[str, tuple[Any, str]] = {}
        for part in parts:
            for path in _weight_files(folder, part):
                try:
                    file = self._opened.enter_context(safe_open(path, framework="pt"))
                except (OSError, SafetensorError) as error:
                    self._opened.close()
                    raise UserError(f"{path}: expected a {part}'s weights, found: {error}") from error
                keys = list(file.keys())
                self._files |= {_full_name(part, key): (file, key) for key in keys}

    def __enter__(self) -> open_weights:
        return self

    def __exit__(self, *fault: object) -> None:
        self._opened.close()

    def __getitem__(self, name: str) -> Tensor:
        file, key = self._files[name]
        return file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """A weight's, without reading it."""
        file, key = self._files[name]
        return tuple(file.get_slice(key).get_shape())


def _full_name(part: str, key: str) -> str:
    if part == TRANSFORMER:
        return key
    return text_encoders()[part].full_name(key)


def _is_there(path: Path) -> bool:
    return path.is_file() or _index_of(path).is_file()


def _index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


def _weight_files(folder: Path, part: str) -> list[Path]:
    """The .safetensors of a part, in its own folder or in a pipeline's."""
    inner = folder / part if (folder / part).is_dir() else folder
    path = inner / _FILES.get(part, _TEXT_FILE)
    index = _index_of(path)
    if not index.is_file():
        if not path.is_file():
            raise UserError(f"{folder}: expected a folder with {path.name}, or a pipeline's, found none")
        return [path]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [inner / Path(name).name for name in names]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: expected JSON with a weight_map, found: {error!r}") from error
