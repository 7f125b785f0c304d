"""Lists of prompts with settings of their own, as trainers write them: .yaml, .txt and .json.

.yaml   a list of texts
.txt    a prompt a line; sd-scripts' options behind it: --w WIDTH --h HEIGHT --d SEED --s STEPS --n NEGATIVE
.json   sd-scripts' list of {"prompt": ..., "width": ..., "height": ..., "seed": ..., "sample_steps": ...}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.prompts import load_prompts
from utils.errors import UserError, nearest

_OPTIONS = {"w": "width", "h": "height", "d": "seed", "s": "steps"}
"""Of a line -> the field it sets."""
_KEYS = {"width": "width", "height": "height", "seed": "seed", "sample_steps": "steps"}
"""Of an entry -> the field it sets."""
_IDLE = {
    *("n", "l", "g", "fs", "ac", "am", "sc", "ct"),
    *("negative_prompt", "scale", "guidance_scale", "flow_shift", "enum"),
}
"""What has no effect with guidance distilled: negative prompts, scales, shifts."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt, and what it sets for itself; 0 and None: as the config says.

    Attributes:
        text: the prompt.
        width, height: of the image, in pixels.
        seed: of the first image.
        steps: from noise to image.
        idle: options that have no effect here.
    """

    text: str
    width: int = 0
    height: int = 0
    seed: int | None = None
    steps: int = 0
    idle: tuple[str, ...] = ()


def load_sample_prompts(path: Path) -> list[SamplePrompt]:
    """Read a list of prompts by its suffix.

    Raises:
        UserError: another suffix, no file, a line or entry that is wrong, or none at all.
    """
    readers = {".yaml": _yaml, ".yml": _yaml, ".txt": _lines, ".json": _json}
    if path.suffix not in readers:
        raise UserError(f"{path}: expected a list of prompts in {', '.join(readers)}, found {path.suffix!r}")
    try:
        prompts = readers[path.suffix](path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a list of prompts, found {error}") from None
    if not prompts:
        raise UserError(f"{path}: expected at least one prompt, found none")
    return prompts


def _yaml(path: Path) -> list[SamplePrompt]:
    return [SamplePrompt(text) for text in load_prompts(path)]


def _lines(path: Path) -> list[SamplePrompt]:
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            text, *options = re.split(r"\s--(?=\w)", line.strip())
            found = dict(_pair(option) for option in options)
            prompts.append(_prompt(text.strip(), found, _OPTIONS, f"{path}: line {number}"))
    return prompts


def _pair(option: str) -> tuple[str, str]:
    name, _, value = option.partition(" ")
    return name, value.strip()


def _json(path: Path) -> list[SamplePrompt]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected JSON, found {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: expected a list of objects with a prompt each, found {type(entries).__name__}"
        )
    prompts = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: entry {number}"
        text = entry.get("prompt")
        if not isinstance(text, str):
            raise UserError(f"{where}: expected a prompt, found {text!r}")
        prompts.append(_prompt(text, {k: v for k, v in entry.items() if k != "prompt"}, _KEYS, where))
    return prompts


def _prompt(text: str, options: Mapping[str, Any], known: Mapping[str, str], where: str) -> SamplePrompt:
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name in known:
            if not re.fullmatch(r"\d+", str(value)):
                raise UserError(f"{where}: {name}: expected a whole number, found {value!r}")
            fields[known[name]] = int(value)
        elif name not in _IDLE:
            raise UserError(f"{where}: unknown option {name!r}{nearest(name, [*known, *_IDLE])}")
    return SamplePrompt(text, idle=tuple(name for name in options if name in _IDLE), **fields)
