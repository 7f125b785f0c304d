"""Finding and reading YAML: plain content in, one line of error out."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from utils.errors import UserError, nearest
from utils.files import in_folder


def find_yaml(folder: Path, name: str, what: str) -> Path:
    """The YAML `name`, with or without .yaml, of a folder.

    Raises:
        UserError: it is not there; the line begins with `what`, the key that named it, and tells which are.
    """
    path = in_folder(folder, f"{name.removesuffix('.yaml')}.yaml")
    if path.is_file():
        return path
    there = sorted(other.stem for other in folder.glob("*.yaml"))
    listing = ", ".join(there) if there else "none"
    raise UserError(
        f"{what} {name!r}: expected a file {path}, found none{nearest(name, there)}; there are: {listing}"
    )


def load_yaml(path: Path) -> Any:
    """The plain content of a YAML file; ${...} stays as it is written. Raises `UserError` if unreadable."""
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected YAML, found {shorten(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, found {error.strerror or error}") from None
    return OmegaConf.to_container(loaded)


def shorten(value: object) -> str:
    """`value` as one line of at most 160 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 160 else line[:157] + "..."
