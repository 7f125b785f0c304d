"""Finding and reading YAML: plain content in, one line of error out."""

from pathlib import Path
from typing import Any

from yaml import YAMLError

from utils.config.yaml_bounds import read_bounded
from utils.config.yaml_text import parse_yaml
from utils.errors import UserError, nearest
from utils.files import in_folder
from utils.names import as_path

SUFFIXES = (".yaml", ".yml")


def find_yaml(folder: Path, name: str, what: str) -> Path:
    """The YAML `name` of a folder, with or without its suffix; `name` may lead there from here, too.

    Raises:
        UserError: it is not there, or under both suffixes; the line begins with `what`, the key that named
            it, and tells which are.
    """
    said = f"{what} {shorten(repr(name))}"
    try:
        asked = as_path(name)
        places = [folder / asked] + ([asked] if len(asked.parts) > 1 else [])
        found = next(filter(None, map(_with_suffix, places)), [])
    except (ValueError, OSError) as error:  # as of a name that is too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{said}: expected a name or path, found none; {reason}") from None
    if len(found) > 1:
        raise UserError(f"{said}: expected one file, found {found[0]} and {found[1].name}")
    if found:
        return found[0]
    beside = places[0].parent if places[0].parent.is_dir() else folder
    there = sorted({path.stem for suffix in SUFFIXES for path in beside.glob(f"*{suffix}")})
    wanted = places[0].parent / f"{asked.name.removesuffix('.yaml')}.yaml"
    raise UserError(
        f"{said}: expected a file {wanted}, found none{nearest(wanted.stem, there)}; "
        f"there are: {', '.join(there) or 'none'}"
    )


def _with_suffix(path: Path) -> list[Path]:
    """The files that a path is, as it stands or with a YAML's suffix."""
    if (found := in_folder(path.parent, path.name)).is_file():
        return [found]
    ends = () if path.suffix in SUFFIXES else SUFFIXES
    return [each for end in ends if (each := in_folder(path.parent, path.name + end)).is_file()]


def load_yaml(path: Path) -> Any:
    """The content of a YAML file, its scalars as they are written; raises `UserError` if unreadable."""
    try:
        return parse_yaml(read_bounded(path))
    except (YAMLError, UnicodeDecodeError) as error:
        hint = "; a text with signs such as : [ ' in it is quoted" if isinstance(error, YAMLError) else ""
        raise UserError(f"{path}: expected YAML, found {shorten(error)}{hint}") from None
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, found {error.strerror or error}") from None


def shorten(value: object) -> str:
    """`value` as one line of at most 160 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 160 else line[:157] + "..."
