"""Prompt files: lists of prompts to generate from, and the prompts of text sliders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.keys import Group, coerce, key, keys_of, kinds_of, takes
from utils.config.yaml_files import load_yaml, shorten
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
_FIELDS = tuple(keys_of(SliderPrompt))
_PROMPTS = _FIELDS[:4]


def load_prompts(path: Path) -> list[str]:
    """Read a YAML list of prompts; raises `UserError` unless it holds at least one text and nothing else."""
    prompts = load_yaml(path)
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise UserError(f"{path}: expected a YAML list of prompts, found {shorten(prompts)}")
    return prompts


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
    values = {name: entry[name] for name in _FIELDS}
    values["resolution"] = 0 if entry["resolution"] == BASE else entry["resolution"]
    return [
        SliderPrompt(**values | {name: f"{attribute} {values[name]}".strip() for name in _PROMPTS})
        for attribute in entry.get(ATTRIBUTES) or [""]
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
            _check(name, entry.get(name))
        except ValueError as error:
            faults += [f"{name}: {error}"] if name in entry else []
    return faults


def _check(name: str, value: Any) -> None:
    """Raise ValueError, in words, for what a field can't be."""
    found = shorten(repr(value))
    if name == ATTRIBUTES:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError(f"expected a list of texts, found {found}")
    elif name in _PROMPTS and not isinstance(value, str):  # a prompt is written as text, not as a number
        raise ValueError(f"expected a text, found {found}")
    elif (name, value) != ("resolution", BASE):
        if isinstance(value, str) and name not in (*_PROMPTS, "action"):  # nor is a number written as text
            wanted = takes(keys_of(SliderPrompt)[name], kinds_of(SliderPrompt)[name])
            raise ValueError(f"expected {wanted}, found {found}")
        coerce(SliderPrompt, name, value)
