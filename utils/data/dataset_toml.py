"""sd-scripts' dataset config, a TOML, read as it is.

    [general]                  holds for all
    [[datasets]]               resolution, batch size, buckets
    [[datasets.subsets]]       image_dir or metadata_file, repeats, what becomes of captions

A subset's own value goes before its dataset's, that before [general]'s, and that before the defaults given.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.config.yaml_files import shorten
from utils.data.caption_metadata import read_text
from utils.data.captions import CaptionRules
from utils.data.dataset_options import (
    DATASET,
    ELSEWHERE,
    GENERAL,
    KNOWN,
    NOT_TAKEN,
    SUBSET,
    DatasetOptions,
    SubsetOptions,
    of_layers,
    places_of,
    read_option,
)
from utils.data.findings import Findings
from utils.data.foreign.read import is_foreign, translate_file
from utils.errors import nearest

_BOUNDS = ("min_bucket_reso", "max_bucket_reso")
_BUCKETS = (*_BOUNDS, "bucket_reso_steps", "bucket_no_upscale")


@dataclass(frozen=True)
class SubsetTable:
    """One [[datasets.subsets]] with what it inherits; `place` names it in errors."""

    place: str
    options: SubsetOptions
    rules: CaptionRules


@dataclass(frozen=True)
class DatasetTable:
    """One [[datasets]] with what it inherits; `place` names it in errors."""

    place: str
    options: DatasetOptions
    subsets: tuple[SubsetTable, ...]


def read_tables(path: Path, defaults: Mapping[str, Any], findings: Findings) -> list[DatasetTable]:
    """The datasets of a TOML, or of another trainer's config.

    Args:
        path: of the file.
        defaults: options by name, for what the TOML leaves open.
        findings: get what is wrong: no TOML, an unknown or misplaced key, a value of the wrong type or out of
            bounds, what is refused, nothing to learn from; and notes on what has no effect.
    """
    content = translate_file(path).datasets(findings) if is_foreign(path) else _parsed(path, findings)
    if content is None or findings.faults:
        return []
    reader = _Reader(path, findings)
    for name in (name for name in content if name not in ("general", "datasets")):
        hint = _hint(name, ("general", "datasets"))
        findings.faults.append(f"{path}: expected {GENERAL} and {DATASET}, found {name!r}{hint}")
    general = reader.options(GENERAL, GENERAL, content.get("general", {}))

    tables = []
    for number, dataset in enumerate(reader.listed(f"{path}", DATASET, content.get("datasets")), 1):
        place = f"{path}: {DATASET} {number}"
        own = reader.options(place, DATASET, dataset)
        subsets = reader.listed(place, SUBSET, dataset.get("subsets") if isinstance(dataset, dict) else None)
        layers = (defaults, general, own)
        tables.append(
            DatasetTable(
                place,
                reader.dataset_options(place, layers),
                tuple(
                    reader.subset(f"{place}, subset {at}", each, layers) for at, each in enumerate(subsets, 1)
                ),
            )
        )
    return tables


def _parsed(path: Path, findings: Findings) -> dict[str, Any] | None:
    """A TOML's content; None, with the fault found, if it is none."""
    text = read_text(path, findings)
    if text is None:
        return None
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        hint = "; a path with \\ stands between '" if "\\" in text else ""
        findings.faults.append(f"{path}: expected TOML, found {shorten(error)}{hint}")
        return None


def _hint(name: str, options: tuple[str, ...] = KNOWN) -> str:
    return f" (here {ELSEWHERE[name]})" if name in ELSEWHERE else nearest(name, options)


def _as_json(value: Any) -> str:
    """A value nearly as a TOML has it."""
    return shorten(json.dumps(value, ensure_ascii=False, default=str))


class _Reader:
    """Tables of one file to options; what is wrong goes into the findings."""

    def __init__(self, path: Path, findings: Findings) -> None:
        self.path, self.findings = path, findings
        self.faulty: set[str] = set()  # keys that are given, with a wrong value

    def listed(self, place: str, what: str, found: Any) -> list[Any]:
        """A list of tables, which there must be."""
        if isinstance(found, list) and found:
            return found
        self.findings.faults.append(f"{place}: expected {what}, found {'none' if not found else 'no list'}")
        return []

    def options(self, place: str, kind: str, table: Any) -> dict[str, Any]:
        """The options of one table, without those that are not taken over."""
        where = place if kind != GENERAL else f"{self.path}: {GENERAL}"
        if not isinstance(table, dict):
            self.findings.faults.append(f"{where}: expected keys and values, found {shorten(repr(table))}")
            return {}
        read = {}
        for name, value in table.items():
            if name == "subsets" and kind == DATASET:
                continue
            if name not in KNOWN:
                self.findings.faults.append(f"{where}: unknown key {name!r}{_hint(name)}")
            elif kind not in places_of(name):
                self.findings.faults.append(
                    f"{where}: {name}: expected in {' or '.join(places_of(name))}, found in {kind}"
                )
            elif name in NOT_TAKEN:
                self._not_taken(where, name, value)
            else:
                try:
                    read[name] = read_option(name, value)
                except ValueError as error:
                    self.faulty.add(name)
                    self.findings.faults.append(f"{where}: {name}: {error}")
        return read

    def _not_taken(self, where: str, name: str, value: Any) -> None:
        rule = NOT_TAKEN[name]
        if value in rule.idle:
            return
        if rule.refused:
            wanted = _as_json(rule.idle[0]) if rule.idle else "none"
            self.findings.faults.append(
                f"{where}: {name}: expected {wanted}, found {_as_json(value)}: {rule.why}"
            )
        else:
            self.findings.notes.append(f"{where}: {name} has no effect here: {rule.why}")

    def dataset_options(self, place: str, layers: tuple[Mapping[str, Any], ...]) -> DatasetOptions:
        """What holds for a dataset, with a fault for no resolution and notes on its buckets."""
        if not any("resolution" in layer for layer in layers):
            if "resolution" not in self.faulty:
                self.findings.faults.append(f"{place}: expected a resolution, found none")
            layers = ({"resolution": [1]}, *layers)
        options: DatasetOptions = of_layers(DatasetOptions, *layers)

        # What was written and does nothing is said; the defaults are nobody's words.
        written = dict.fromkeys(name for layer in layers[-2:] for name in layer if name in _BUCKETS)
        if not options.enable_bucket:
            self._idle(place, written, "without enable_bucket")
        elif options.bucket_no_upscale:
            self._idle(place, [name for name in written if name in _BOUNDS], "with bucket_no_upscale")
        else:
            return self._whole_steps(place, options)
        return options

    def _idle(self, place: str, names: Collection[str], why: str) -> None:
        if names:
            self.findings.notes.append(f"{place}: {', '.join(names)} without effect {why}")

    def _whole_steps(self, place: str, options: DatasetOptions) -> DatasetOptions:
        """The bounds of buckets widened to multiples of their steps, as sd-scripts does it."""
        step = options.bucket_reso_steps
        low, high = options.min_bucket_reso // step * step, -(-options.max_bucket_reso // step) * step
        widened = replace(options, min_bucket_reso=max(low, step), max_bucket_reso=high)
        if widened != options:
            self.findings.notes.append(
                f"{place}: buckets from {widened.min_bucket_reso} to {high}, multiples of {step} "
                "(bucket_reso_steps)"
            )
        return widened

    def subset(self, place: str, table: Any, layers: tuple[Mapping[str, Any], ...]) -> SubsetTable:
        """One subset with what it inherits."""
        own = self.options(place, SUBSET, table)
        options: SubsetOptions = of_layers(SubsetOptions, *layers, own)
        if not options.image_dir and not options.metadata_file and isinstance(table, dict):
            if (
                "image_dir" not in table and "metadata_file" not in table
            ):  # else it has been said what is wrong
                self.findings.faults.append(f"{place}: expected image_dir or metadata_file, found neither")
        elif options.metadata_file:
            idle = [name for name in ("caption_extension", "class_tokens") if name in own]
            self._idle(place, idle, "beside metadata_file")
        return SubsetTable(place, options, of_layers(CaptionRules, *layers, own))
