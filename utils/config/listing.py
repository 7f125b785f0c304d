"""The keys in words, made of their lines: for --help, and for docs/keys.md."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import Any

from utils.config.keys import default_of, keys_of, kinds_of, takes
from utils.config.schema import Config, groups

_HEAD = """# Keys

Every key of a config, with its default; made of `utils/config/schema.py` by `python -m utils.config > docs/keys.md`. A
key stands in a config's YAML, in its base's (`train/config/base/`), or as `key=value` on the command line; each is
stronger than the one before.
"""
_WIDTH = 110


def keys_page() -> str:
    """docs/keys.md."""
    defaults, kinds, keys = _defaults(), kinds_of(Config), keys_of(Config)
    parts = [_HEAD]
    for group, names in groups().items():
        trains = "a LoRA depends on them" if group.trains else "no LoRA depends on them"
        rows = [
            f"| `{name}` | `{defaults[name]}` | {takes(keys[name], kinds[name])} | {keys[name].about} |"
            for name in names
        ]
        heading = f"## {group.name.capitalize()}\n\n{group.about[0].upper()}{group.about[1:]}; {trains}."
        table = ["| key | default | takes | meaning |", "|---|---|---|---|", *rows]
        parts.append("\n".join([heading, "", *table, ""]))
    return "\n".join(parts)


def keys_help() -> str:
    """The keys by group for a terminal: key=default, and what it means."""
    defaults, lines = _defaults(), ["keys, as key=value:"]
    for group, names in groups().items():
        lines.append(f"  {group.name}: {group.about}")
        for name in names:
            own = keys_of(Config)[name]
            of = f" ({', '.join(own.one_of)})" if own.one_of else ""
            text = f"{name}={defaults[name]}  {own.about}{of}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent=" " * 8)
    return "\n".join(lines)


def _defaults() -> dict[str, str]:
    keys = keys_of(Config)
    shown = {each.name: _shown(default_of(each)) for each in fields(Config)}
    return shown | {name: "auto" for name, own in keys.items() if own.auto}


def _shown(value: Any) -> str:
    """A value as YAML and the command line have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'
