"""What a key is: its type, bounds, default, meaning and group on one line, and values checked by that.

    rank: int = key(TRAINING, 16, "rows of A and columns of B", ge=1, le=8192)

pydantic turns what a YAML or the command line holds into the type and holds it to the bounds; what was
expected is said in words made of the same line. A group says what depends on its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pydantic
from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from utils.config import values
from utils.config.yaml_files import shorten
from utils.config.yaml_text import Plain
from utils.files import is_utf8, one_form
from utils.names import expand_path, is_name, is_path, is_path_or_none

GREATEST = 1e9
"""Of any number but a seed; what is beyond overflows somewhere."""


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
        path: whether it is a path, in which ~ and $NAME are replaced.
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
    path: bool = False
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


A_NAME: dict[str, Any] = {"check": is_name, "expected": "a name, without / or \\"}
NAMES: dict[str, Any] = {
    "check": is_name,
    "filled": True,
    "expected": "at least one entry, each a name without / or \\",
}
A_PATH: dict[str, Any] = {"check": is_path, "expected": "a name or path", "path": True}
PATH_OR_NONE: dict[str, Any] = {"check": is_path_or_none, "expected": 'a path or name, or ""', "path": True}


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

    An empty value (None) is "" for text and [] for a list; paths are expanded. Raises ValueError "expected
    ..., found ..." on a wrong type, on NaN and infinity, on a value outside the key's bounds, on a text that
    needs quotes, and on a path with a variable that is not set.
    """
    own, kind = keys_of(owner)[name], kinds_of(owner)[name]
    if own.auto and value in ("auto", []):
        return []
    found = shorten(repr(value))
    if get_origin(kind) is list:
        value = _as_list(own, value)
    elif kind is str and values.is_null(value):
        value = ""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not is_utf8(text):
            raise ValueError(f"expected text in UTF-8, found {found!r}")
    try:
        value = _read_texts(own, kind, value)
    except ValueError as error:
        raise ValueError(f"expected {takes(own, kind)}, found {found}; {error}") from None
    try:
        return _adapter(owner, name).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"expected {_expected(own, kind, error)}, found {found}") from None


@lru_cache
def _adapter(owner: type, name: str) -> TypeAdapter[Any]:
    """What checks a key's value."""
    own, kind = keys_of(owner)[name], kinds_of(owner)[name]
    if get_origin(kind) is not list:
        return TypeAdapter(_entry(own, kind))
    (entry,) = get_args(kind)
    if get_origin(entry) is list:
        return TypeAdapter(_list_of(_list_of(_entry(own, *get_args(entry)), 1), int(own.filled)))
    return TypeAdapter(_list_of(_entry(own, entry), int(own.filled)))


def _list_of(entry: Any, least: int) -> Any:
    """A list of at least so many entries; no tuple, which no YAML has."""
    return Annotated[list[entry], pydantic.Field(strict=True, min_length=least)]


def _entry(own: Key, kind: Any) -> Any:
    """The type of a single value, with its bounds; of numbers without any, up to GREATEST."""
    if own.one_of:
        return Literal[own.one_of]
    if kind not in _READERS:
        return kind
    limits: dict[str, Any] = {}
    if kind in (int, float):
        limits = {"le": GREATEST, **({} if "gt" in own.bounds else {"ge": -GREATEST}), **own.bounds}
    if kind is float:
        limits["allow_inf_nan"] = False
    checks = [] if own.check is None else [AfterValidator(_checked(own.check))]
    return Annotated[kind, pydantic.Field(strict=True, **limits), BeforeValidator(_READERS[kind]), *checks]


def _checked(check: Callable[[str], bool]) -> Callable[[str], str]:
    def checked(value: str) -> str:
        if not check(value):
            raise PydanticCustomError("check", "")
        return one_form(value) if check is is_name else value

    return checked


# Types are strict, since pydantic's leniency takes 16.0 as a whole number; what may be written otherwise is
# read here. A ValueError is a wrong type.
_READERS: dict[Any, Callable[[Any], Any]] = {
    int: values.whole,
    float: values.number,
    bool: values.flag,
    str: lambda value: value,  # read before, see `_read_texts`
}


def _as_list(own: Key, value: Any) -> Any:
    # where whole texts are wanted and one at least, an empty one is one: an empty prompt is a prompt
    if values.is_null(value) or (value == "" and (own.commas or not own.filled)):
        return []
    if isinstance(value, str) and own.commas:
        comment = getattr(value, "comment", "")  # of the last part
        parts = [part.strip() for part in value.split(",")] if value.strip() else []
        return [*parts[:-1], Plain(parts[-1], comment)] if comment and parts else parts
    return value if isinstance(value, list) else [value]


def _read_texts(own: Key, kind: Any, value: Any) -> Any:
    """The text, or each of a list; raises ValueError, in words, for what is not clear as it is written."""
    if isinstance(value, list) and kind == list[str]:
        return [_read_texts(own, str, each) for each in value]
    if kind is not str:
        return value
    value = values.text(value)
    return expand_path(value) if own.path and isinstance(value, str) else value


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
    dict[str, dict[str, Any]]: "a mapping of mappings",
}
_ENTRIES: dict[Any, str] = {int: "whole number", float: "number", str: "entry", list[float]: "number"}
_BOUNDS = {"ge": "greater_than_equal", "gt": "greater_than", "le": "less_than_equal"}
_BEYOND_TYPE = {*_BOUNDS.values(), "finite_number", "too_short", "literal_error", "check"}
"""pydantic's errors of values that have the right type."""


def expected_type(kind: Any) -> str:
    """What type a key takes, in words."""
    return _TYPES.get(kind, "a mapping of names")


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


def takes(own: Key, kind: Any) -> str:
    """What a key takes, in words: its type, and what it must be beyond."""
    beyond = expected_value(own, kind)
    return beyond if own.one_of or own.expected else ", ".join(filter(None, (expected_type(kind), beyond)))


def _expected(own: Key, kind: Any, error: ValidationError) -> str:
    """What was expected of the value that failed, in words."""
    found = {each["type"] for each in error.errors()}
    if not found <= _BEYOND_TYPE:
        return expected_type(kind)
    if "finite_number" in found:
        return "finite numbers"
    own_bounds = {_BOUNDS[name] for name in own.bounds}
    if found & {*_BOUNDS.values()} - own_bounds:
        return f"numbers up to {GREATEST:g}"
    return expected_value(own, kind)
