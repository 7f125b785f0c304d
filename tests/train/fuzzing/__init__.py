"""Any config, picture, LoRA file and run folder, made of a seed: each is taken or refused in a line.

python -m tests.train.fuzzing                          # 5,000 cases of a fresh seed, which is printed
python -m tests.train.fuzzing --cases 5000 --seed 7
python -m tests.train.fuzzing --seed 7 --only 1234     # one case again, with its traceback

A kind is a function that makes one input out of a random generator, gives it to the code, asserts what must
hold and returns what came of it. Kinds are in the modules beside this one; cases.py counts them.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch

from utils.errors import UserError, run_cli

Result = TypeVar("Result")


@dataclass(frozen=True)
class Workshop:
    """What cases share. What is cached is made before the first case, see `prepare` of cases.py.

    Attributes:
        site: a folder as train/ is, the current one: see `write_site` in tests/conftest.py.
        flux: folder of the miniature FLUX.
    """

    site: Path
    flux: Path

    @cached_property
    def base(self) -> Any:
        """The miniature, loaded."""
        from utils.models.base import load_base_model

        return load_base_model(str(self.flux), torch.device("cpu"), torch.float32)

    @cached_property
    def loras(self) -> dict[str, bytes]:
        """The same small LoRA in each format that training or people write."""
        from utils.lora.files import adapter_loras, save_lora, save_reference, write_lora
        from utils.models.adapters import add_adapter, remove_adapter

        folder, transformer = self.site / "loras", self.base.transformer
        add_adapter(transformer, "edit", rank=2, alpha=2)
        save_lora(transformer, "edit", folder / "safetensors", {})
        save_reference(transformer, "edit", folder / "pt")
        write_lora(folder / "kohya", adapter_loras(transformer, "edit"), "kohya", {})
        remove_adapter(transformer, "edit")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


Kind = Callable[[Random, Workshop], str]
"""Makes and tries one input; gives the outcome in a word. Raises for whatever is wrong."""

KINDS: dict[str, tuple[int, Kind]] = {}
"""What is made -> how many of a thousand cases or so, and the function."""


def kind(name: str, share: int) -> Callable[[Kind], Kind]:
    """Register a kind."""

    def registered(function: Kind) -> Kind:
        KINDS[name] = share, function
        return function

    return registered


def call(name: str, *arguments: str) -> tuple[int, str, str]:
    """A script as its command runs it: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(name).main
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run_cli(lambda: main(list(arguments)))
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()


def refused_or(work: Callable[[], Result], names: str) -> Result | None:
    """What comes of it, or None after one line that names the file."""
    try:
        return work()
    except UserError as error:
        message = str(error)
    assert names in message, message
    assert len(message.splitlines()) == 1, message
    assert len(message) < 2000, message
    return None


def tree(folder: Path) -> set[str]:
    """Every file and folder there is."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
