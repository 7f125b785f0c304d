"""What options of the command line may be, as argparse's `type`: numbers in bounds, lists, NAME=PATH."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import nearest, shown
from utils.names import as_path, find_lora, read_number


class Parser(argparse.ArgumentParser):
    """argparse's, without abbreviations; errors are one line, escaped and not too long."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As `argparse.ArgumentParser`; a description keeps its lines."""
        kept = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": kept, **options})

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse's, which of `--option=--` makes an empty list, whatever the option's type."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected a value, found '--'")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Leave with usage, one line and status 2."""
        super().error(shown(message))


def whole(least: int = 1, most: int = 100_000) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        plain = text.isascii() and text.isdecimal() and len(text) <= 20
        if not plain or not least <= int(text) <= most:
            raise ArgumentTypeError(f"expected a whole number from {least} to {most}, found {text!r}")
        return int(text)

    return parse


def number(text: str) -> float:
    """A finite number."""
    value = _float(text)
    if not math.isfinite(value):
        raise ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def numbers(*among: float) -> Callable[[str], list[float]]:
    """Numbers with commas between, `among` being some that must be there."""
    wanted = " and ".join(f"{value:g}" for value in among)

    def parse(text: str) -> list[float]:
        values = [_float(part) for part in text.split(",")]
        if not all(map(math.isfinite, values)) or not {*among} <= {*values}:
            raise ArgumentTypeError(f"expected numbers, {wanted} among them, found {text!r}")
        return values

    return parse


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Names out of `known` with commas between."""

    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                listed = ", ".join(known)
                raise ArgumentTypeError(
                    f"expected names out of {listed}, found {name!r}{nearest(name, known)}"
                )
        return text.split(",")

    return parse


def path_option(text: str) -> Path:
    """A path; ~ and $NAME in it are replaced."""
    try:
        return as_path(text)
    except ValueError as error:
        raise ArgumentTypeError(f"expected a path, found {text!r}; {error}") from None


def lora_option(text: str) -> Path:
    """The path of a LoRA; see `find_lora`."""
    return find_lora(path_option(text))


def named_path(text: str) -> tuple[str, Path]:
    """NAME=FILE."""
    name, _, file = text.partition("=")
    if not file:
        raise ArgumentTypeError(f"expected ATTRIBUTE=FILE, found {text!r}")
    return name, path_option(file)


def path_at_scale(text: str) -> tuple[float, Path]:
    """SCALE=FOLDER."""
    scale, _, folder = text.partition("=")
    if not math.isfinite(_float(scale)) or not folder:
        raise ArgumentTypeError(f"expected SCALE=FOLDER, found {text!r}")
    return float(scale), path_option(folder)


def _float(text: str) -> float:
    """A number, NaN for what is none."""
    try:
        return read_number(text)
    except ValueError:
        return math.nan
