"""Finding and reading YAML: plain content in, one line of error out."""

from pathlib import Path
from typing import Any

from yaml import YAMLError

from utils.config.yaml_text import parse_yaml
from utils.errors import UserError, nearest
from utils.names import as_path

SUFFIXES = (".yaml", ".yml")


def find_yaml(folder: Path, name: str, what: str) -> Path:
    """The YAML `name`, with or without .yaml or .yml, of a folder; `name` may be a path, ~ in it, too.

    Raises:
        UserError: it is not there, or under both suffixes; the line begins with `what`, the key that named
            it, and tells which are.
    """
    try:
        asked = folder / as_path(name)
        suffixed = asked.suffix in SUFFIXES
        paths = [asked] if suffixed else [asked.with_name(asked.name + suffix) for suffix in SUFFIXES]
        found = [path for path in paths if path.is_file()]
    except (ValueError, OSError) as error:  # as of a name that is too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{what}: expected a name or path, found {shorten(repr(name))}; {reason}") from None
    if len(found) > 1:
        raise UserError(
            f"{what} {shorten(repr(name))}: expected one file, found {found[0]} and {found[1].name}"
        )
    if found:
        return found[0]
    there = sorted({path.stem for suffix in SUFFIXES for path in asked.parent.glob(f"*{suffix}")})
    stem = asked.stem if suffixed else asked.name
    raise UserError(
        f"{what} {shorten(repr(name))}: expected a file {paths[0]}, found none{nearest(stem, there)}; "
        f"there are: {', '.join(there) or 'none'}"
    )


def load_yaml(path: Path) -> Any:
    """The content of a YAML file, its scalars as they are written; raises `UserError` if unreadable."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        quoted = (
            ""
            if isinstance(error, UnicodeDecodeError)
            else "; a text with signs such as : [ ' in it is quoted"
        )
        raise UserError(f"{path}: expected YAML, found {shorten(error)}{quoted}") from None
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, found {error.strerror or error}") from None


def shorten(value: object) -> str:
    """`value` as one line of at most 160 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 160 else line[:157] + "..."
