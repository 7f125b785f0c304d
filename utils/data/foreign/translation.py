"""Another trainer's file as it is read: this project's keys, and what became of each of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.config.keys import keys_of
from utils.config.schema import coerce
from utils.data.dataset_options import DatasetOptions, read_option
from utils.data.findings import Findings
from utils.data.foreign.rows import (
    IDLE,
    JOINT,
    NOT_GIVEN,
    REFUSED,
    SAME,
    TRANSLATED,
    Row,
    Table,
    alike,
    written,
)
from utils.errors import nearest

OF_MODEL = ("pretrained_model_name_or_path", "quantization", "dtype")
"""This project's keys that say which model it is and how it is held: another base has its own."""

CONFIG_KEYS = {
    "resolution": "resolution",
    "batch_size": "batch_size",
    "shuffle_caption": "shuffle_caption",
    "keep_tokens": "keep_tokens",
    "caption_dropout_rate": "caption_drop",
    "caption_tag_dropout_rate": "tag_drop",
    "flip_aug": "flip",
}
"""Options of a dataset that a config has, too -> its key, by which a command line can say otherwise."""


@dataclass(frozen=True)
class Line:
    """What became of one key: its name and value there, its fate, this project's key=value, and why."""

    key: str
    value: str
    fate: str
    ours: str = ""
    why: str = ""


@dataclass
class Translation:
    """Another trainer's file, as far as it is read.

    Attributes:
        path: of the file.
        tool: whose it is.
        values: this project's keys.
        options: of the dataset, by sd-scripts' names, those that no key of a config has.
        lines: what became of each key, in the order of the file.
        faults: what is wrong, or would be learned otherwise, each with the key of this project it is about.
        given: values of keys that are read with others, for those that nothing more is said of.
        datasets: gives the dataset, in the form of sd-scripts' dataset TOML; gets what is wrong with it.
    """

    path: Path
    tool: str
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    datasets: Callable[[Findings], dict[str, Any]] = field(default=lambda findings: {})

    def fault(self, key: str, text: str, ours: str = "") -> None:
        """Note a fault of a key; none if a command line gives `ours`."""
        self.faults.append((f"{self.path}: {key}: {text}" if key else f"{self.path}: {text}", ours))

    def say(self, key: str, value: Any, fate: str, ours: str = "", why: str = "") -> None:
        """Note what became of a key."""
        self.lines.append(Line(key, written(value), fate, ours, why))

    def set(
        self,
        key: str,
        value: Any,
        ours: str,
        own: Any,
        fate: str = TRANSLATED,
        why: str = "",
        option: bool = False,
    ) -> None:
        """Give one of this project's keys, or an option of the dataset, a value; say where it comes from."""
        try:
            checked = read_option(ours, own) if option else coerce(ours, own)
        except ValueError as error:
            self.fault(key, f"{error}" if fate == SAME else f"{error} ({ours})", ours)
            return
        (self.options if option else self.values)[ours] = checked
        self.say(key, value, fate, f"{ours}={written(own)}", why)

    def read(
        self,
        key: str,
        value: Any,
        ours: str,
        reader: Callable[[Any], Any],
        default: Any = None,
        fate: str = TRANSLATED,
        why: str = "",
    ) -> None:
        """Give a key one value, read by `reader`; None stands for the tool's own, `default`."""
        try:
            own = reader(default if value is None else value)
        except ValueError as error:
            self.fault(key, str(error), ours)
            return
        if value is None:
            self.set(key, NOT_GIVEN, ours, own, TRANSLATED, why or f"{self.tool} has it so")
        else:
            self.set(key, value, ours, own, fate, why)


def read_table(found: Translation, table: Table, content: Any, where: str = "") -> dict[str, Any]:
    """Read one table's keys into a translation.

    Args:
        found: gets values, lines and faults.
        table: its rows.
        content: keys and values; None stands for nothing given.
        where: before a key in what is said of it, such as "train.".

    Returns:
        The values of the joint keys, by their names, or their defaults.
    """
    content = table_in(found, where.rstrip(".: "), content)
    for name in (name for name in content if name not in table):
        found.fault("", f"unknown key {where + name!r}{nearest(name, table)}")
    rest = {name: row.default for name, row in table.items() if row.fate == JOINT}
    given = {name: value for name, value in content.items() if name in table and value is not None}
    for name, value in given.items():
        if table[name].fate == JOINT:
            rest[name] = found.given[where + name] = value
        else:
            _read(found, where + name, table[name], value, value)
    for name, row in table.items():
        if name not in given and row.fate != JOINT and row.default is not None:
            _read(found, where + name, row, row.default, NOT_GIVEN)
    return rest


def _read(found: Translation, key: str, row: Row, value: Any, shown: Any) -> None:
    """Read one key by its row."""
    if row.fate == IDLE:
        found.say(key, shown, IDLE, why=row.why)
    elif row.fate == REFUSED:
        if any(value == fine and type(value) in alike(fine) for fine in row.fine):
            found.say(key, shown, SAME, why="changes nothing")
        else:
            wanted = " or ".join(map(written, row.fine)) or "none"
            of_tool = f", for which {found.tool} has {written(value)}" if shown is NOT_GIVEN else ""
            found.fault(key, f"expected {wanted}, found {written(shown)}{of_tool}: {row.why}")
    else:
        try:
            own = value if row.convert is None else row.convert(value)
        except ValueError as error:
            found.fault(key, str(error), row.ours)
            return
        fate = TRANSLATED if shown is NOT_GIVEN else row.fate
        why = row.why or (f"{found.tool} has it so" if shown is NOT_GIVEN else "")
        found.set(key, shown, row.ours, own, fate, why, row.option)


def table_in(found: Translation, key: str, value: Any) -> dict[str, Any]:
    """Keys and values, {} for nothing given; for what is neither, with the fault noted."""
    if value is not None and not isinstance(value, Mapping):
        found.fault(key, f"expected keys and values, found {written(value)}")
    return {str(name): each for name, each in value.items()} if isinstance(value, Mapping) else {}


def tell_rest(found: Translation) -> None:
    """Say of every key that is read with others, and that nothing was said of, that it was read."""
    told = {line.key for line in found.lines}
    for key, value in found.given.items():
        nested = isinstance(value, dict) or (isinstance(value, list) and any(map(_is_table, value)))
        if key not in told and not nested:
            found.say(key, value, SAME, why="read with the keys beside it")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def hoist(found: Translation, option: str, value: Any) -> None:
    """Give a config's key what all of a dataset says under `option`, in what is said of it, too."""
    ours = CONFIG_KEYS[option]
    found.values[ours] = value
    found.lines = [
        replace(line, ours=line.ours.replace(f"{option}=", f"{ours}=", 1))
        if line.ours.startswith(f"{option}=")
        else line
        for line in found.lines
    ]


def dataset_table(options: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset of one subset, in the form of sd-scripts' dataset TOML."""
    of_dataset = keys_of(DatasetOptions)
    own = {name: value for name, value in options.items() if name not in of_dataset}
    return {**{name: options[name] for name in options if name in of_dataset}, "subsets": [own]}
