"""Prompt files: lists of prompts to generate from, and the prompts of text sliders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.keys import Group, coerce, key, keys_of, kinds_of, takes
from utils.config.values import text
from utils.config.yaml_files import load_yaml, shorten
from utils.config.yaml_text import Plain
from utils.errors import UserError, nearest

PROMPTS = Group("prompts", "of a text slider")


@dataclass(frozen=True)
class SliderPrompt:
    """One entry of a text slider's YAML, every field of which must be given."""

    # fmt: off
    target: str = key(PROMPTS, ..., "whose images the slider changes; the LoRA is trained under it")
    positive: str = key(PROMPTS, ..., "what there should be more of (enhance) or less of (erase)")
    unconditional: str = key(PROMPTS, ..., "the opposite of positive")
    neutral: str = key(PROMPTS, ..., "where the guidance starts from, as a rule the target itself")
    action: str = key(PROMPTS, ..., "what becomes of positive", one_of=("enhance", "erase"))
    guidance_scale: float = key(PROMPTS, ..., "eta, along positive - unconditional; the same in all entries of a file", gt=0)
    resolution: int = key(PROMPTS, ..., "pixels a side; 0, in the file base, is the base model's", ge=1, le=8192, expected='1 to 8192, or "base"')
    batch_size: int = key(PROMPTS, ..., "images a step", ge=1, le=4096)
    # fmt: on

    @property
    def eta(self) -> float:
        """guidance_scale, negative for erase."""
        return self.guidance_scale if self.action == "enhance" else -self.guidance_scale

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The four prompts."""
        return self.target, self.positive, self.unconditional, self.neutral


BASE = "base"
ATTRIBUTES = "attributes"
KNOWN_WORDS = "words.txt"
"""In a base model's folder, where it was trained on few words: all of them, one a line, in lower case."""
_FIELDS = tuple(keys_of(SliderPrompt))
_PROMPTS = _FIELDS[:4]


def load_prompts(path: Path) -> list[str]:
    """Read a YAML list of prompts, each as it is written: 1999 and yes are prompts, too.

    Raises:
        UserError: unless it holds at least one text and nothing else; what needs quotes is named.
    """
    entries = load_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a YAML list of prompts, found {shorten(entries)}")
    prompts, faults = [], []
    for number, entry in enumerate(entries, 1):
        try:
            prompts.append(_text(entry))
        except ValueError as error:
            faults.append(f"entry {number}: {error}")
    if faults:
        raise UserError(f"{path}: expected a YAML list of prompts, found {'; '.join(faults)}")
    return prompts


def unknown_words(model_path: str, prompts: Iterable[str]) -> list[str]:
    """The words of prompts that a base model was never told, if its folder says which ones it knows."""
    listed = Path(model_path) / KNOWN_WORDS
    if not listed.is_file():
        return []
    known = set(listed.read_text(encoding="utf-8").split())
    said = (word for prompt in prompts for word in re.findall(r"[^\W_]+", prompt.lower()))
    return list(dict.fromkeys(word for word in said if word not in known))


def load_slider_prompts(path: Path) -> list[SliderPrompt]:
    """Read a text slider's YAML: a list of entries with the fields of `SliderPrompt`.

    An entry may have `attributes`, a list of texts ("male", "female"): the entry then stands for one each,
    all four of its prompts beginning with that text, so that the slider does not change it.

    Raises:
        UserError: a missing or unreadable file, and every missing or unknown field, wrong type or value, all
            in one error: a field left out is never filled in. Also entries of unequal guidance_scale.
    """
    entries = load_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a YAML list of slider prompts, found {shorten(entries)}")
    faults: list[str] = []
    prompts: list[SliderPrompt] = []
    for number, entry in enumerate(entries, 1):
        found = _faults(entry)
        faults.extend(f"entry {number}: {fault}" for fault in found)
        if not found:
            prompts.extend(_expand(entry))
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    etas = sorted({prompt.guidance_scale for prompt in prompts})
    if len(etas) > 1:
        raise UserError(
            f"{path}: guidance_scale: expected the same in all entries, found {', '.join(map(str, etas))}"
        )
    return prompts


def _expand(entry: dict[str, Any]) -> list[SliderPrompt]:
    """One prompt for every attribute."""
    values = {name: _value(name, entry[name]) for name in _FIELDS}
    return [
        SliderPrompt(**values | {name: f"{attribute} {values[name]}".strip() for name in _PROMPTS})
        for attribute in _value(ATTRIBUTES, entry.get(ATTRIBUTES)) or [""]
    ]


def _faults(entry: Any) -> list[str]:
    """What is wrong with an entry, a line each."""
    if not isinstance(entry, dict):
        return [f"expected fields and values, found {shorten(entry)}"]
    known = (*_FIELDS, ATTRIBUTES)
    faults = [f"unknown field {name!r}{nearest(str(name), known)}" for name in entry if name not in known]
    if missing := [name for name in _FIELDS if name not in entry]:
        faults.append(f"expected the fields {', '.join(_FIELDS)}, found none of {', '.join(missing)}")
    for name in known:
        try:
            _value(name, entry.get(name))
        except ValueError as error:
            faults += [f"{name}: {error}"] if name in entry else []
    return faults


def _value(name: str, value: Any) -> Any:
    """A field's value out of a YAML's; raises ValueError, in words, for what it can't be."""
    found = shorten(repr(value))
    if name == ATTRIBUTES:
        if not isinstance(value, list | None):
            raise ValueError(f"expected a list of texts, found {found}")
        return [_text(each) for each in value or []]
    if name in _PROMPTS:
        return _text(value)
    if name == "resolution" and value == BASE:
        return 0
    if isinstance(value, str) and not isinstance(value, Plain) and name != "action":  # a number in quotes
        wanted = takes(keys_of(SliderPrompt)[name], kinds_of(SliderPrompt)[name])
        raise ValueError(f"expected {wanted}, found {found}")
    return coerce(SliderPrompt, name, value)


def _text(value: Any) -> str:
    """A prompt as it is written; raises ValueError, in words, for what is none."""
    try:
        read = text(value)
    except ValueError as error:
        raise ValueError(f"expected a text, found {shorten(repr(value))}; {error}") from None
    if not isinstance(read, str):
        raise ValueError(f"expected a text, found {shorten(repr(value))}")
    return read
