"""Texts of a YAML or a command line as the types of keys; a ValueError says in words what is unclear.

Numbers are decimal: 010 is ten, and 0x1F, 0o17, 1_000 and 1:30 are none.
"""

from __future__ import annotations

import re
from typing import Any

from utils.config.yaml_text import Plain
from utils.names import check_text

_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)
_NULLS = ("null", "Null", "NULL", "~")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_PLAIN_FLAGS = {"yes": True, "on": True, "no": False, "off": False}


def whole(value: Any) -> Any:
    """A whole number of its digits."""
    if not isinstance(value, str):
        return value
    if not _WHOLE.fullmatch(value):
        raise ValueError("no whole number")
    return int(value)


def number(value: Any) -> Any:
    """A number as it is written; .inf and .nan, too, for bounds to refuse."""
    if not isinstance(value, str):
        return value
    if _NOT_FINITE.fullmatch(value):
        return float(value.replace(".", ""))
    if not _NUMBER.fullmatch(value):
        raise ValueError("no number")
    return float(value)


def flag(value: Any) -> Any:
    """true, false, 1 and 0; without quotes also the words that YAML has for them."""
    if isinstance(value, Plain) and value in (value.lower(), value.capitalize(), value.upper()):
        return (_FLAGS | _PLAIN_FLAGS).get(value.lower(), value)
    if isinstance(value, str):
        return _FLAGS.get(value, value)
    return bool(value) if type(value) is int and value in (0, 1) else value


def is_null(value: Any) -> bool:
    """Whether nothing is written, or YAML's word for it."""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


def text(value: Any) -> Any:
    """A text as it is written, a number or a word like yes among them.

    Raises:
        ValueError: for what YAML has read as something other than what was typed, with the way out.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    if is_null(value):
        raise ValueError(f'quote a text: "{value or ""}"')
    if isinstance(value, dict) and len(value) == 1:
        ((name, rest),) = value.items()
        raise ValueError(f'quote a text with a colon: "{name}: {"" if rest is None else rest}"')
    if isinstance(value, Plain) and re.match(r"#[^#\s]", value.comment):
        raise ValueError(
            f'YAML takes what follows for a comment: quote "{value} {value.comment}", '
            "or write the comment with a space after #"
        )
    if not isinstance(value, str):
        return value
    check_text(value)
    return str.__str__(value)
