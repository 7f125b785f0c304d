"""Another trainer's file found, told apart by its content, and read as a config of this project.

.yaml .yml .json             a job of ai-toolkit's
.toml                        flags of sd-scripts, as its --config_file has them
.sh .bat .ps1 .txt           the command line of sd-scripts
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.config.load import layer_config, load_config, parse_overrides
from utils.config.schema import Config
from utils.config.values import is_null
from utils.config.yaml_files import SUFFIXES, find_yaml, load_yaml, shorten
from utils.config.yaml_text import Plain
from utils.data.foreign import aitoolkit, sdscripts
from utils.data.foreign.rows import IDLE, SAME, TRANSLATED, flag, number
from utils.data.foreign.sdscripts_files import COMMANDS, is_command, is_dataset, of_command, of_sections
from utils.data.foreign.translation import OF_MODEL, Translation, tell_rest
from utils.errors import UserError

METHOD = "train_subject"
"""The method that learns from captioned images."""
READ = (*SUFFIXES, ".json", ".toml", *COMMANDS)
"""Suffixes of files that may be another trainer's."""


def load_any(
    name: str,
    overrides: Sequence[str],
    config_dir: Path,
    methods: Collection[str] | None = None,
    train_methods: Collection[str] | None = None,
) -> tuple[Config, list[str]]:
    """The config that --c names, as `load_config` reads it or out of another trainer's file.

    Returns:
        The config, and of another trainer's file what became of each key, see `table_of`.

    Raises:
        UserError: as `load_config`, `translate_file` and `foreign_config`.
    """
    path = find_foreign(name, config_dir)
    if path is None:
        return load_config(name, overrides, config_dir, methods, train_methods), []
    found = translate_file(path)
    config = foreign_config(found, overrides, config_dir, methods, train_methods)
    return config, table_of(found, overrides)


def find_foreign(name: str, config_dir: Path) -> Path | None:
    """The file that --c names, if it is another trainer's; None for a config of this project.

    Raises:
        UserError: there is no such file, or what it holds is neither.
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".json", ".toml", *COMMANDS):
        places = [place for place in (config_dir / name, Path(name)) if place.is_file()]
        if not places:
            raise UserError(f"config {name!r}: expected a file {config_dir / name} or {name}, found none")
        return places[0]
    path = find_yaml(config_dir, name, "config")
    return path if aitoolkit.is_aitoolkit(load_yaml(path)) else None


def translate_file(path: Path) -> Translation:
    """Read another trainer's file.

    Raises:
        UserError: it can't be read, or is no file of a trainer that is known.
    """
    suffix = path.suffix.lower()
    if suffix in (*SUFFIXES, ".json"):
        content = _typed(load_yaml(path)) if suffix in SUFFIXES else _parsed(path, json.loads)
        if not aitoolkit.is_aitoolkit(content):
            raise UserError(f"{path}: expected ai-toolkit's job and config, found {_found(content)}")
        found = aitoolkit.translate(path, content)
    elif suffix == ".toml":
        content = _parsed(path, tomllib.loads)
        if is_dataset(content):
            raise UserError(
                f"{path}: expected flags of sd-scripts, found a dataset: it goes into datasets/, or into "
                "dataset_config of such flags"
            )
        found = sdscripts.translate(path, "", of_sections(content))
    else:
        text = _text(path)
        if not is_command(text):
            raise UserError(
                f"{path}: expected a command line of sd-scripts, flux_train_network.py and its flags, "
                f"found {shorten(text[:80])!r}"
            )
        try:
            script, flags = of_command(text)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        found = sdscripts.translate(path, script, flags)
    found.values |= {
        "python_name": METHOD,
        "datasets_folder": str(path.parent),
        "datasets": [path.name],
        "skips": [0],
    }
    tell_rest(found)
    return found


def is_foreign(path: Path) -> bool:
    """Whether a dataset's file is another trainer's config, whose dataset it stands for."""
    if not path.is_file():
        return False
    if path.suffix == ".toml":
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            return False
        return not is_dataset(content) and any(name in sdscripts.FLAGS for name in of_sections(content))
    return path.suffix.lower() in READ


def foreign_config(
    found: Translation,
    overrides: Sequence[str],
    config_dir: Path,
    methods: Collection[str] | None = None,
    train_methods: Collection[str] | None = None,
) -> Config:
    """The config of a translation under key=value of a command line, as `load_config` has it.

    A base named there brings what belongs to a model: its place, dtype and quantization. resolution goes
    before the file's list of several, and datasets before its own images.

    Raises:
        UserError: for what is wrong with the file, what would be learned otherwise, and as `load_config`.
    """
    command, faults = parse_overrides(overrides)
    values = dict(found.values)
    gone = _goes_before(command)
    if "resolution" in command:
        command.setdefault("resolutions", [])
    values = {key: value for key, value in values.items() if key not in gone}
    own = [text for text, ours in found.faults if ours not in gone]
    layers = {str(found.path): values, "command line": command}
    return layer_config(layers, config_dir, methods, train_methods, [*own, *faults])


def _goes_before(command: Mapping[str, Any]) -> set[str]:
    """This project's keys, and parts of a dataset, that what a command line gives goes before."""
    of_model = OF_MODEL if "base" in command else ()
    of_datasets = ("datasets_folder", "image_dir", "the dataset") if "datasets" in command else ()
    return {*command, *of_model, *of_datasets, *(["resolutions"] if "resolution" in command else [])}


def table_of(found: Translation, overrides: Sequence[str]) -> list[str]:
    """What became of each key, a line each, under a line that counts them."""
    command, _ = parse_overrides(overrides)
    gone = _goes_before(command)
    width = min(max((len(f"{line.key}: {line.value}") for line in found.lines), default=0), 60)
    lines = [summary_of(found)]
    for line in found.lines:
        became = line.ours if line.fate != IDLE else "no effect"
        note = ": " if became else ""
        why = f"{note}{line.why}" if line.why else ""
        if line.ours.partition("=")[0] in gone:
            why += "; the command line goes before it"
        lines.append(f"  {f'{line.key}: {line.value}':{width}}  {became}{why}")
    return lines


def summary_of(found: Translation) -> str:
    """How many keys became what, in a line."""
    count = {fate: sum(line.fate == fate for line in found.lines) for fate in (SAME, TRANSLATED, IDLE)}
    return (
        f"{found.path} of {found.tool}: {count[SAME]} keys as they are, {count[TRANSLATED]} translated, "
        f"{count[IDLE]} without effect"
    )


# --- files ---


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected text in UTF-8, found {shorten(error)}") from None


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected {path.suffix[1:].upper()}, found {shorten(error)}") from None


def _found(content: Any) -> str:
    return ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__


def _typed(value: Any) -> Any:
    """A YAML's content with the types that its scalars without quotes have in other tools."""
    if isinstance(value, dict):
        return {str(key): _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if is_null(value):
        return None
    if not isinstance(value, Plain):
        return value
    for read in (flag, number):
        try:
            return int(value) if read is number and value.lstrip("+-").isdigit() else read(value)
        except ValueError:
            continue
    return str.__str__(value)
