"""Texts of a YAML or a command line as the types of keys; a ValueError says in words what is unclear."""

from __future__ import annotations

import re
from typing import Any

from utils.config.yaml_text import Plain
from utils.names import check_text, read_number, read_whole

_NULLS = ("null", "Null", "NULL", "~")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_PLAIN_FLAGS = {"yes": True, "on": True, "no": False, "off": False}


def whole(value: Any) -> Any:
    """A whole number, of its digits where it is a text."""
    return read_whole(value) if isinstance(value, str) else value


def number(value: Any) -> Any:
    """A number, as it is written where it is a text."""
    return read_number(value) if isinstance(value, str) else value


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
