"""Prompt files: lists of prompts to generate from, and the prompts of text sliders."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from utils.config.yaml_files import load_yaml, shorten
from utils.errors import UserError, nearest

ACTIONS = ("enhance", "erase")


@dataclass(frozen=True)
class SliderPrompt:
    """One entry of a text slider's YAML, every field of which must be given.

    Attributes:
        target: whose images the slider changes; the LoRA is trained under it.
        positive: what there should be more of (enhance) or less of (erase).
        unconditional: the opposite of positive.
        neutral: where the guidance starts from, as a rule the target itself.
        action: enhance or erase.
        guidance_scale: eta, the strength of the guidance along positive - unconditional, more than 0; the
            same in all entries of a file.
        resolution: pixels a side, a multiple that the base's family says; 0, in the file "base", is the
            base model's.
        batch_size: images a step.
    """

    target: str
    positive: str
    unconditional: str
    neutral: str
    action: str
    guidance_scale: float
    resolution: int
    batch_size: int

    @property
    def eta(self) -> float:
        """guidance_scale, negative for erase."""
        return self.guidance_scale if self.action == "enhance" else -self.guidance_scale

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The four prompts."""
        return self.target, self.positive, self.unconditional, self.neutral


BASE = "base"
_KINDS = get_type_hints(SliderPrompt)
_FIELDS = tuple(field.name for field in fields(SliderPrompt))
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
        for attribute in entry.get("attributes") or [""]
    ]


def _faults(entry: Any) -> list[str]:
    """What is wrong with an entry, a line each."""
    if not isinstance(entry, dict):
        return [f"expected fields and values, found {shorten(entry)}"]
    known = (*_FIELDS, "attributes")
    faults = [f"unknown field {key!r}{nearest(str(key), known)}" for key in entry if key not in known]
    if missing := [name for name in _FIELDS if name not in entry]:
        faults.append(f"expected the fields {', '.join(_FIELDS)}, found none of {', '.join(missing)}")
    for name, wanted in _EXPECTED.items():
        if name in entry and not _fits(name, entry[name]):
            faults.append(f"{name}: expected {wanted}, found {shorten(repr(entry[name]))}")
    return faults


_EXPECTED = {
    **dict.fromkeys(_PROMPTS, "a text"),
    "action": " or ".join(ACTIONS),
    "guidance_scale": "a number more than 0",
    "resolution": 'pixels a side, or "base"',
    "batch_size": "a whole number from 1 on",
    "attributes": "a list of texts",
}


def _fits(name: str, value: Any) -> bool:
    if name == "attributes":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if name == "resolution" and value == BASE:
        return True
    if _KINDS[name] is str:
        return isinstance(value, str) and (name != "action" or value in ACTIONS)
    if isinstance(value, bool) or not isinstance(value, int | float if name == "guidance_scale" else int):
        return False
    return 0 < value < float("inf")
