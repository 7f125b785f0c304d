"""What becomes of another trainer's key: a row each.

same("rank", default=4)                       the same thing under another name
becomes("dtype", as_dtype, "why")             the same thing, said otherwise
idle("why")                                   it makes no difference here
refused("why", False)                         results would be others, but for such values
joint()                                       read together with others, see the tool's module
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from utils.config.yaml_files import shorten
from utils.errors import nearest

SAME, TRANSLATED, IDLE, REFUSED, JOINT = "same", "translated", "no effect", "refused", "joint"
NOT_GIVEN = "(not given)"
"""In place of a value that the tool has a default for, other than this project's."""


@dataclass(frozen=True)
class Row:
    """One key of another trainer.

    Attributes:
        fate: SAME, TRANSLATED, IDLE, REFUSED or JOINT.
        ours: this project's key, or an option of a dataset, by sd-scripts' name.
        convert: the value as this project has it; raises ValueError, in words, for one it can't have.
        why: what there is to know, in words.
        fine: of what is refused, values that leave results as they are; None, nothing given, always does.
        default: of the tool, where the key is left out; None: nothing is said then.
        option: whether `ours` is an option of a dataset, though a config may have a key of that name.
    """

    fate: str
    ours: str = ""
    convert: Callable[[Any], Any] | None = None
    why: str = ""
    fine: tuple[Any, ...] = ()
    default: Any = None
    option: bool = False


Table = Mapping[str, Row]


def same(ours: str, default: Any = None, why: str = "") -> Row:
    """A key that means what `ours` does."""
    return Row(SAME, ours, default=default, why=why)


def becomes(ours: str, convert: Callable[[Any], Any] | None, why: str = "", default: Any = None) -> Row:
    """A key whose value is said otherwise here."""
    return Row(TRANSLATED, ours, convert, why, default=default)


def idle(why: str) -> Row:
    """A key that makes no difference to what is learned."""
    return Row(IDLE, why=why)


def refused(why: str, *fine: Any, default: Any = None) -> Row:
    """A key without which something else would be learned, unless it has one of the values `fine`."""
    return Row(REFUSED, why=why, fine=fine, default=default)


def each(row: Row, names: str) -> dict[str, Row]:
    """One row for several keys, their names with spaces in between."""
    return dict.fromkeys(names.split(), row)


def options(table: Mapping[str, Row]) -> dict[str, Row]:
    """A table whose rows are options of a dataset."""
    return {name: replace(row, option=True) for name, row in table.items()}


def joint(default: Any = None) -> Row:
    """A key that is read with others."""
    return Row(JOINT, default=default)


# --- values ---


def alike(value: Any) -> tuple[type, ...]:
    """Types that may stand for a value's: 1.0 for 1, but neither for true."""
    return (int, float) if type(value) in (int, float) else (type(value), str)


def written(value: Any) -> str:
    """A value as these files have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return shorten("[" + ", ".join(map(written, value)) + "]")
    return shorten("none" if value is None else f"{value:g}" if isinstance(value, float) else str(value))


def number(value: Any) -> float:
    """A number as these files have it, 1e-4 among them; raises ValueError, in words, for any other."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected a number, found {written(value)}") from None


def whole(value: Any) -> int:
    """A whole number; raises as `number`."""
    found = number(value)
    if not found.is_integer():
        raise ValueError(f"expected a whole number, found {written(value)}")
    return int(found)


def flag(value: Any) -> bool:
    """true or false; raises ValueError, in words, for any other."""
    if type(value) is bool:
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"expected true or false, found {written(value)}")


def one_of(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A reader of names, whatever their case; another is refused with those there are."""

    def read(value: Any) -> Any:
        if (name := str(value).lower()) in known:
            return known[name]
        raise ValueError(f"expected one of {', '.join(known)}, found {value}{nearest(name, known)}")

    return read
