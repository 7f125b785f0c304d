"""Any study, image and LoRA file: how they are made, read and counted."""

from __future__ import annotations

import importlib
import io
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import Module

from utils.config.schema import KEYS
from utils.data.pixels import load_image
from utils.errors import UserError, run_cli
from utils.lora.files import load_lora
from utils.models.adapters import adapter_names, remove_adapter

Result = TypeVar("Result")

CASES: Counter[str] = Counter()
OUTCOMES: Counter[str] = Counter()


def fuzzed(examples: int):
    """The same cases every time, with no clock: two busy cores must not fail a test."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# --- studies ---

NAMES = st.sampled_from(sorted(KEYS)) | st.text(max_size=12)
TRICKS = st.sampled_from(
    [
        *("../../out", "/tmp/out", "..", ".", "a/../../b", "a\\..\\b", "a\0b", "~/out", "$HOME", "%2e%2e/"),
        *("con", "${oc.env:HOME}", "???", "NUL", "--", "-h", "", " ", "\n", "x" * 300),
        "!!python/object/apply:os.system ['touch ran']",
    ]
)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | TRICKS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """A script as its command runs it."""
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(name).main
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        run_cli(lambda: main(list(arguments)))
    return int(caught.value.code or 0), out.getvalue(), err.getvalue()


def tree(folder: Path) -> set[str]:
    """Every file and folder there is."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_study(site: Path, arguments: list[str]) -> None:
    """A dry run says what is wrong in a line, or lists runs whose files lie in the output folder."""
    before = tree(site.parent)
    status, out, err = run("train_image_script", "--c=fuzz", "--dry-run", *arguments)
    assert status in (0, 2), err
    assert "Traceback" not in err
    assert tree(site.parent) == before
    OUTCOMES[f"study: {'listed' if status == 0 else 'refused'}"] += 1
    if status == 2:
        assert err.startswith(("error: ", "usage: ")), err
        return
    lines = [line for line in out.splitlines() if line.startswith(("  weights", "  reference"))]
    written = [line.split(maxsplit=1)[1] for line in lines]
    folder = yaml.safe_load((site / "config/fuzz.yaml").read_text(encoding="utf-8")).get("output_folder")
    if folder is None and not any(argument.startswith("output_folder=") for argument in arguments):
        for path in written:
            assert (site / path).resolve().is_relative_to(site / "output"), path


# --- images ---


def picture(kind: str) -> bytes:
    """A good image file."""
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


KINDS = {kind: picture(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")}


@st.composite
def spoiled(draw: st.DrawFn, good: bytes) -> bytes:
    """A file cut short, with bytes changed, with bytes put in, or of bytes alone."""
    data = bytearray(good)
    how = draw(st.sampled_from(["cut", "change", "insert", "noise", "front"]))
    if how == "cut":
        return bytes(data[: draw(st.integers(0, len(data)))])
    if how == "noise":
        return draw(st.binary(max_size=200))
    if how == "front":  # the part that says what it is
        return draw(st.binary(min_size=1, max_size=16)) + bytes(data[draw(st.integers(0, 16)) :])
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(data) - 1))
        if how == "change":
            data[place] = draw(st.integers(0, 255))
        else:
            data[place:place] = draw(st.binary(max_size=8))
    return bytes(data)


def read(path: Path, data: bytes) -> None:
    """An image comes out right in kind, or one line does."""
    path.write_bytes(data)
    image = attempt("image", path, lambda: load_image(path, 32, "center_crop"))
    if image is not None:
        assert image.shape == (3, 32, 32)
        assert image.abs().max() <= 1


def attempt(what: str, path: Path, work: Callable[[], Result]) -> Result | None:
    """What comes of it, or None after one line that names the file."""
    try:
        result = work()
    except UserError as error:
        message = str(error)
    else:
        OUTCOMES[f"{what}: read"] += 1
        return result
    assert path.name in message
    assert len(message.splitlines()) == 1
    OUTCOMES[f"{what}: refused"] += 1
    return None


# --- LoRA files ---


class Runs:
    """A pickle that touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


def load(transformer: Module, path: Path, data: bytes) -> None:
    """A LoRA comes in whole, or one line does and nothing of it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    before = tree(path.parent.parent)
    metadata = attempt("LoRA", path, lambda: load_lora(transformer, path, "edit"))
    assert adapter_names(transformer) == ([] if metadata is None else ["edit"])
    if metadata is not None:
        remove_adapter(transformer, "edit")
    assert tree(path.parent.parent) == before
