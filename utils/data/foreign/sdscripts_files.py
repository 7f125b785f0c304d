"""sd-scripts' flags as people keep them: the TOML of --config_file, or the command line in a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

SCRIPT = "flux_train_network.py"
"""What trains a LoRA on FLUX.1 there."""
COMMANDS = (".sh", ".bat", ".ps1", ".txt")
"""Files with a command line."""
_SCRIPTS = re.compile(r"[^\s\"']*train[a-z_]*\.py")
_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n")


def of_sections(content: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a TOML, whatever its sections are called."""
    flags: dict[str, Any] = {}
    for name, value in content.items():
        flags |= value if isinstance(value, dict) else {name: value}
    return flags


def is_dataset(content: Mapping[str, Any]) -> bool:
    """Whether a TOML holds a dataset, not flags."""
    return "datasets" in content or "general" in content


def is_command(text: str) -> bool:
    """Whether a text holds a command line with flags."""
    return re.search(r"(^|\s)--[a-z]", text) is not None and _SCRIPTS.search(text) is not None


def of_command(text: str) -> tuple[str, dict[str, Any]]:
    r"""The script and the flags of a command line, the line with the script's name where there are others.

    Lines that end with \ (^, `) go on. A flag without a value is true, one with several has a list.

    Raises:
        ValueError: in words, for quotes that do not close, or what stands where a flag should.
    """
    lines = _CONTINUED.sub(" ", text).splitlines()
    own = [line for line in lines if not re.match(r"\s*(#|rem\b|::)", line, re.IGNORECASE)]
    line = next((line for line in own if _SCRIPTS.search(line)), " ".join(own))
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ValueError(f"expected a command line, found one with: {str(error).lower()}") from None
    at = next((index for index, word in enumerate(words) if _SCRIPTS.fullmatch(word)), -1)
    return re.split(r"[/\\]", words[at])[-1] if at >= 0 else "", _flags(words[at + 1 :])


def _flags(words: list[str]) -> dict[str, Any]:
    """Flags and their values; raises ValueError for values without a flag."""
    values: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            values[name] = [value] if equals else []
        elif name:
            values[name].append(word)
        else:
            raise ValueError(f"expected flags, found {word!r}")
    return {
        name: True if not found else found[0] if len(found) == 1 else found for name, found in values.items()
    }
