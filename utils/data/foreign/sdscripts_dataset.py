"""sd-scripts' flags of the dataset, and the dataset TOML that they go under, as one dataset TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from utils.config.keys import kinds_of
from utils.config.yaml_files import shorten
from utils.data.dataset_options import NOT_TAKEN, TAKEN
from utils.data.findings import Findings
from utils.data.foreign.rows import (
    IDLE,
    SAME,
    Row,
    Table,
    becomes,
    flag,
    idle,
    joint,
    number,
    options,
    refused,
    whole,
)
from utils.data.foreign.translation import CONFIG_KEYS, Translation, hoist

_REPEATS = re.compile(r"(\d+)_?(.*)")
_PATHS = ("image_dir", "metadata_file")


def _resolution(value: Any) -> Any:
    """size, "size" or "width,height"."""
    parts = value if isinstance(value, list) else str(value).split(",")
    sides = [whole(part) for part in parts]
    return sides[:1] if len(set(sides)) == 1 else sides


def _row(name: str) -> Row:
    """The row of an option that a dataset TOML has, too."""
    if name in NOT_TAKEN:
        rule = NOT_TAKEN[name]
        return refused(rule.why, *rule.idle) if rule.refused else idle(rule.why)
    readers: dict[Any, Callable[[Any], Any]] = {bool: flag, int: whole, float: number, str: str}
    kind = kinds_of(TAKEN[name])[name]
    return Row(SAME, name, _resolution if name == "resolution" else readers[kind])


_NO_FLAGS = ("batch_size", "num_repeats", "is_reg", "class_tokens", "image_dir", "metadata_file")
DATASET: Table = options(
    {
        **{name: _row(name) for name in TAKEN if name not in _NO_FLAGS},
        **{name: _row(name) for name in NOT_TAKEN if name not in ("custom_attributes", "network_multiplier")},
        "caption_extention": becomes("caption_extension", str),
        "dataset_repeats": joint(),
        **{name: joint() for name in ("train_data_dir", "reg_data_dir", "in_json")},
    }
)


def sources_of(found: Translation, rest: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the dataset has images of the class, and whether it has metadata files."""
    if not rest["dataset_config"]:
        return bool(rest["reg_data_dir"]) and not rest["in_json"], bool(rest["in_json"])
    tables = _read_toml(found.path, rest["dataset_config"], Findings()).get("datasets")
    listed = (
        [each.get("subsets") for each in tables if isinstance(each, dict)] if isinstance(tables, list) else []
    )
    subsets = [each for own in listed if isinstance(own, list) for each in own if isinstance(each, dict)]
    return any(each.get("is_reg") for each in subsets), any(each.get("metadata_file") for each in subsets)


def read_dataset(found: Translation, rest: Mapping[str, Any]) -> None:
    """The dataset of the flags; what a config has a key for becomes that, below what a dataset TOML says."""
    for option in CONFIG_KEYS:
        if option in found.options and len(value := _one(found.options[option])) == 1:
            hoist(found, option, value[0])
            del found.options[option]
    sources = [name for name in ("dataset_config", "in_json", "train_data_dir") if rest[name]]
    if not sources:
        found.fault("train_data_dir", "expected it, in_json or dataset_config, found none of them")
        return
    try:
        repeats, together = (
            whole(rest[name] or 1) for name in ("dataset_repeats", "gradient_accumulation_steps")
        )
    except ValueError as error:
        found.fault("dataset_repeats, gradient_accumulation_steps", str(error))
        return
    taken = {
        "dataset_config": ("dataset_config",),
        "in_json": ("in_json", "train_data_dir", "dataset_repeats"),
        "train_data_dir": ("train_data_dir", "reg_data_dir"),
    }[sources[0]]
    for name in ("dataset_config", "in_json", "train_data_dir", "reg_data_dir", "dataset_repeats"):
        if rest[name] is not None:
            if name in taken:
                found.say(name, rest[name], SAME, "the dataset")
            else:
                found.say(name, rest[name], IDLE, why=f"beside {sources[0]}")
    counts = {"dataset_repeats": repeats, "gradient_accumulation_steps": together}
    found.datasets = lambda findings: _content(found, {**rest, **counts}, sources[0], findings)


def _one(value: Any) -> list[Any]:
    """A value alone; of resolution, [width, height] is two."""
    return value if isinstance(value, list) else [value]


def _content(found: Translation, rest: Mapping[str, Any], source: str, findings: Findings) -> dict[str, Any]:
    """The dataset in the form of a dataset TOML."""
    if source == "dataset_config":
        return _under_flags(found, rest, findings)
    if source == "in_json":
        own = {"metadata_file": str(rest["in_json"]), "num_repeats": rest["dataset_repeats"]}
        folder = {"image_dir": str(rest["train_data_dir"])} if rest["train_data_dir"] else {}
        return {"general": found.options, "datasets": [{"subsets": [own | folder]}]}
    subsets = []
    for name, is_reg in (("train_data_dir", False), ("reg_data_dir", True)):
        if rest[name]:
            subsets += _numbered(found.path, name, str(rest[name]), is_reg, findings)
    return {"general": found.options, "datasets": [{"subsets": subsets}]}


def _numbered(path: Path, key: str, text: str, is_reg: bool, findings: Findings) -> list[dict[str, Any]]:
    """The folders REPEATS_CLASS in a folder, as subsets."""
    folder = Path(text) if Path(text).exists() else path.parent / text
    if not folder.is_dir():
        findings.faults.append(f"{path}: {key}: expected a folder, found none at {text}")
        return []
    subsets = []
    for below in sorted(each for each in folder.iterdir() if each.is_dir()):
        if (match := _REPEATS.fullmatch(below.name)) is None:
            findings.notes.append(f"{below}: left out, as its name does not begin with repeats, as in 10_cat")
            continue
        own: dict[str, Any] = {"image_dir": str(below), "num_repeats": int(match[1]), "is_reg": is_reg}
        subsets.append(own | ({"class_tokens": match[2].strip()} if match[2].strip() else {}))
    if not subsets:
        findings.faults.append(f"{path}: {key}: expected folders such as 10_cat in {folder}, found none")
    return subsets


def _under_flags(found: Translation, rest: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """A dataset TOML over the flags, its paths as they are from here."""
    content = _read_toml(found.path, rest["dataset_config"], findings)
    folder = _beside(found.path, rest["dataset_config"]).parent
    general = content.get("general", {})
    content = {**content, "general": {**found.options, **general} if isinstance(general, dict) else general}
    together = rest["gradient_accumulation_steps"]
    tables = content["datasets"] if isinstance(content.get("datasets"), list) else []
    for table in (each for each in (content["general"], *tables) if isinstance(each, dict)):
        if type(table.get("batch_size")) is int:
            table["batch_size"] *= together
        subsets = table.get("subsets")
        for subset in subsets if isinstance(subsets, list) else []:
            for name in _PATHS if isinstance(subset, dict) else ():
                if isinstance(subset.get(name), str) and not Path(subset[name]).exists():
                    beside = folder / subset[name]
                    subset[name] = str(beside) if beside.exists() else subset[name]
    return content


def _beside(path: Path, text: Any) -> Path:
    """Where a path leads from here, else from beside the file of the flags."""
    return Path(str(text)) if Path(str(text)).exists() else path.parent / str(text)


def _read_toml(path: Path, text: Any, findings: Findings) -> dict[str, Any]:
    """The content of a dataset TOML; {} with the fault found."""
    place = _beside(path, text)
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        findings.faults.append(f"{path}: dataset_config: expected a TOML at {place}, found {shorten(error)}")
        return {}
