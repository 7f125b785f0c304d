"""What a key is: its type, bounds, default, meaning and group on one line, and values checked by that.

    rank: int = key(TRAINING, 16, "rows of A and columns of B", ge=1, le=8192)

pydantic turns what a YAML or the command line holds into the type and holds it to the bounds; what was
expected is said in words made of the same line. A group says what depends on its keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pydantic
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BeforeValidator, Strict, TypeAdapter, ValidationError

from utils.config.yaml_files import shorten

GREATEST = 1e9
"""Of any number but a seed; what is beyond overflows somewhere."""
NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]*[^/\\\x00-\x1f\s][^/\\\x00-\x1f]*")
"""Names become parts of the paths that are written to: none may lead out of the output folder."""


@dataclass(frozen=True)
class Group:
    """Keys that go together.

    Attributes:
        name, about: for --help and the list of keys.
        trains: whether a trained LoRA depends on them.
        measured: whether a cell of a study depends on them.
        shared: whether all cells of a study must have the same.
    """

    name: str
    about: str
    trains: bool = False
    measured: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Key:
    """What its line says of a key, beside name, type and default.

    Attributes:
        group: see `Group`.
        about: its meaning, for --help and the list of keys.
        bounds: of its numbers, or of the numbers in its list: ge, gt, le.
        one_of: the values there are, () for any.
        check: what a text, or each text of a list, must be beyond that; `expected` says it in words.
        filled: whether a list must have entries.
        auto: whether the text auto, kept as an empty list, leaves it to something else.
        commas: whether a list may be one text with commas.
        by_plan: whether the plan of a study makes it.
        expected: what it must be, in words, where these can't be made of the rest.
    """

    group: Group
    about: str
    bounds: Mapping[str, float]
    one_of: tuple[str, ...] = ()
    check: Callable[[str], bool] | None = None
    filled: bool = False
    auto: bool = False
    commas: bool = True
    by_plan: bool = False
    expected: str = ""


def key(
    group: Group,
    default: Any,
    about: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    **rest: Any,
) -> Any:
    """A dataclass field that is a key; see `Key` for the rest. `...` as default: it must be given."""
    bounds = {name: bound for name, bound in (("ge", ge), ("gt", gt), ("le", le)) if bound is not None}
    metadata = {"key": Key(group, about, bounds, **rest)}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def is_name(text: str) -> bool:
    """Whether a text may be a part of a path."""
    return NAME.fullmatch(text) is not None


def is_filled(text: str) -> bool:
    """Whether a text holds anything."""
    return bool(text.strip())


A_NAME: dict[str, Any] = {"check": is_name, "expected": "a name, without / or \\"}
NAMES: dict[str, Any] = {
    "check": is_name,
    "filled": True,
    "expected": "at least one entry, each a name without / or \\",
}
A_PATH: dict[str, Any] = {"check": is_filled, "expected": "a name or path"}


@lru_cache
def keys_of(owner: type) -> dict[str, Key]:
    """The keys of a dataclass by name."""
    return {each.name: each.metadata["key"] for each in fields(owner)}


@lru_cache
def kinds_of(owner: type) -> dict[str, Any]:
    """Their types."""
    return {name: kind for name, kind in get_type_hints(owner).items() if name in keys_of(owner)}


def default_of(each: Field[Any]) -> Any:
    """A field's default; MISSING if it must be given."""
    factory = each.default_factory
    return each.default if factory is MISSING else factory()


# --- values ---


def coerce(owner: type, name: str, value: Any) -> Any:
    """Turn a YAML value into the type of a key: 1 -> True, "0,0.8,1" -> [0.0, 0.8, 1.0], "a" -> ["a"].

    An empty value (None) is "" for text and [] for a list. Raises ValueError "expected ..., found ..." on a
    wrong type, on NaN and infinity, and on a value outside the key's bounds.
    """
    own, kind = keys_of(owner)[name], kinds_of(owner)[name]
    if own.auto and value in ("auto", []):
        return []
    found = value
    if get_origin(kind) is list:
        value = _as_list(own, kind, value)
    elif kind is str and value is None:
        value = ""
    try:
        return _adapter(owner, name).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"expected {_expected(own, kind, error)}, found {shorten(repr(found))}") from None


@lru_cache
def _adapter(owner: type, name: str) -> TypeAdapter[Any]:
    """What checks a key's value."""
    own, kind = keys_of(owner)[name], kinds_of(owner)[name]
    entry: Any = get_args(kind)[0] if get_origin(kind) is list else kind
    if get_origin(entry) is list:
        numbers: Any = list[_entry(own, get_args(entry)[0])]  # type: ignore[misc]
        entry = Annotated[numbers, pydantic.Field(min_length=1)]
    else:
        entry = _entry(own, entry)
    if get_origin(kind) is list:
        entries: Any = list[entry]
        entry = Annotated[entries, pydantic.Field(min_length=int(own.filled))]
    return TypeAdapter(entry)


def _entry(own: Key, kind: Any) -> Any:
    """The type of a single value, with its bounds; of numbers without any, up to GREATEST."""
    if own.one_of:
        return Literal[own.one_of]
    if kind is str:
        text = Annotated[str, BeforeValidator(_as_text)]
        check = own.check
        return text if check is None else Annotated[text, AfterValidator(lambda value: _held(check, value))]
    if kind is bool:
        return Annotated[bool, Strict(), BeforeValidator(_as_flag)]
    if kind not in (int, float):
        return kind
    bounds: dict[str, Any] = {
        "le": GREATEST,
        **({} if "gt" in own.bounds else {"ge": -GREATEST}),
        **own.bounds,
    }
    if kind is float:
        bounds["allow_inf_nan"] = False
    return Annotated[kind, Strict(), pydantic.Field(**bounds), BeforeValidator(partial(_as_number, kind))]


# Types are strict, so that neither True nor 3.0 is a whole number; what is more than that is turned here.


def _as_number(kind: type[int] | type[float], value: Any) -> Any:
    return kind(value) if isinstance(value, str) else value


def _as_flag(value: Any) -> Any:
    known = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}
    return known.get(value, value) if isinstance(value, int | str) else value


def _as_text(value: Any) -> str:
    """Numbers as they are written; OmegaConf must be able to write and read a text with ${ in it."""
    if value is None or isinstance(value, bool | bytes | list | dict):
        raise ValueError("no text")
    text = str(value)
    if "${" in text:
        try:
            OmegaConf.create([text])
        except OmegaConfBaseException:
            raise ValueError("no text") from None
    return text


def _held(check: Callable[[str], bool], value: str) -> str:
    if not check(value):
        raise ValueError("check")
    return value


def _as_list(own: Key, kind: Any, value: Any) -> Any:
    empty_is_an_entry = own.filled and not own.commas  # as of prompts, where an empty one is a prompt
    if value is None or (value == "" and not empty_is_an_entry):
        return []
    if isinstance(value, str) and own.commas:
        return [] if not value.strip() else [part.strip() for part in value.split(",")]
    return value if isinstance(value, list) else [value]


# --- words ---

_TYPES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false (or 1 or 0)",
    str: "text",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    list[list[float]]: "a list of lists of numbers",
}
_ENTRIES: dict[Any, str] = {int: "whole number", float: "number", str: "entry", list[float]: "number"}
_OUT_OF_BOUNDS = {
    *("greater_than", "greater_than_equal", "less_than_equal", "too_short", "literal_error"),
}


def expected_type(kind: Any) -> str:
    """What type a key takes, in words."""
    return _TYPES.get(kind, "a mapping")


def expected_value(own: Key, kind: Any) -> str:
    """What a key must be beyond its type, in words; "" for anything."""
    if own.expected:
        return own.expected
    if own.one_of:
        return "one of " + ", ".join(own.one_of)
    least, above, most = (own.bounds.get(name) for name in ("ge", "gt", "le"))
    if get_origin(kind) is list:
        at_least = f"at least one {_ENTRIES[get_args(kind)[0]]}"
        at_least += " in each list" if get_origin(get_args(kind)[0]) is list else ""
        none_below = "" if least is None else f", none below {least:g}"
        return at_least + none_below if own.filled or get_origin(get_args(kind)[0]) is list else ""
    if least is not None and most is not None:
        return f"{least:g} to {most:g}" if most <= GREATEST else f"{least:g} to 2^62"
    return f"more than {above:g}" if above is not None else "" if least is None else f"{least:g} or more"


def _expected(own: Key, kind: Any, error: ValidationError) -> str:
    """What was expected of the value that failed, in words."""
    contexts = [each.get("ctx", {}) for each in error.errors()]
    kinds = {each["type"] for each in error.errors() if str(each.get("ctx", {}).get("error")) != "check"}
    if not kinds <= {*_OUT_OF_BOUNDS, "finite_number"}:
        return expected_type(kind)
    if "finite_number" in kinds:
        return "finite numbers"
    if any(context.get("le") == GREATEST or context.get("ge") == -GREATEST for context in contexts):
        return f"numbers up to {GREATEST:g}"
    return expected_value(own, kind)
