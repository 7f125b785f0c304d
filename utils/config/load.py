"""From a YAML and the command line to a typed config, and from a config to its runs.

Layers, each over the one before: the defaults of `Config`, config/base/BASE.yaml (over that which it may name
itself), config/NAME.yaml, key=value on the command line. Run from train/, as the scripts are:

    python train_image_script.py --c=train_image train_iteration=100 datasets=[smile] --dry-run
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.config.schema import KEYS, LAST_STEP, Config, coerce, contradictions
from utils.config.yaml_files import find_yaml, load_yaml, shorten
from utils.config.yaml_text import parse_yaml
from utils.errors import UserError, nearest
from utils.files import write_atomically
from utils.machine import REPOSITORY

BASES = REPOSITORY / "train" / "config" / "base"
"""The base models' YAMLs, for every folder of configs without a base/ of its own."""


def load_config(
    name: str,
    overrides: Sequence[str],
    config_dir: Path,
    methods: Collection[str] | None = None,
    train_methods: Collection[str] | None = None,
) -> Config:
    """Read the config `name` (with or without .yaml) of `config_dir`, on its base, under `overrides`.

    `methods` and `train_methods` are the values that python_name and train_method may have; None leaves them
    unchecked. All faults come together in one `UserError`: a missing YAML or base, unknown keys, wrong types,
    values out of range, keys that contradict each other.
    """
    path = find_yaml(config_dir, name, "config")
    command, faults = parse_overrides(overrides)
    if "prompt" in command:  # typed by hand, so meant, whatever prompts file the YAML has
        command.setdefault("use_prompts_file", False)
    layers = {path.name: read_mapping(path), "command line": command}
    return layer_config(layers, config_dir, methods, train_methods, faults)


def layer_config(
    layers: Mapping[str, dict[str, Any]],
    config_dir: Path,
    methods: Collection[str] | None = None,
    train_methods: Collection[str] | None = None,
    faults: Sequence[str] = (),
) -> Config:
    """A config of layers, each over the one before, on the base that the last of them to do so names.

    Args:
        layers: keys and values by where they come from, for the errors.
        config_dir: its base/ is looked in first.
        methods, train_methods: as in `load_config`.
        faults: found before, to be reported with the others.

    Raises:
        UserError: as `load_config`.
    """
    base = next((layer["base"] for layer in reversed([*layers.values()]) if "base" in layer), Config().base)
    own_bases = config_dir / "base"
    lowest = _base_layers(str(base), own_bases if own_bases.is_dir() else BASES)
    return _build(lowest | dict(layers), methods, train_methods, list(faults))


def _base_layers(base: str, folder: Path, above: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """A base's keys, over those of the base that it names itself, if it does."""
    path = find_yaml(folder, base, "base")
    if path.name in above:
        raise UserError(f"base/{above[0]}: base: expected an end, found {' -> '.join((*above, path.name))}")
    keys = read_mapping(path)
    below = keys.pop("base", None)
    lower = {} if below is None else _base_layers(str(below), folder, (*above, path.name))
    return lower | {f"base/{path.name}": keys}


def read_config(path: Path) -> Config:
    """Read back a config saved by `save_config`, complete in itself; raises `UserError` on any fault."""
    return read_settings({str(path): read_mapping(path)})


def read_settings(layers: Mapping[str, dict[str, Any]], faults: Sequence[str] = ()) -> Config:
    """A config of layers complete in themselves, without a base's YAML; raises `UserError` on any fault."""
    return _build(layers, None, None, list(faults))


def save_config(config: Config, path: Path) -> None:
    """Write every key with its resolved value as YAML, making the folder."""
    write_atomically(path, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; raises `UserError` if it holds no mapping."""
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {shorten(content)}")
    return {str(key): value for key, value in content.items()}


def parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split key=value arguments; text is taken as it stands, anything else is read as YAML."""
    values: dict[str, Any] = {}
    faults = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            faults.append(f"command line: expected key=value, found {shorten(repr(override))}")
        elif KEYS.get(key) is str or (KEYS.get(key) == list[str] and not text.startswith("[")):
            values[key] = text
        else:
            try:
                values[key] = parse_yaml(text)
            except yaml.YAMLError:
                faults.append(f"command line: {key}: expected a YAML value, found {shorten(repr(text))}")
    return values, faults


def _structured(values: Mapping[str, Any], faults: list[str]) -> Config:
    """The keys over the defaults, as OmegaConf's structured config; ${...} stays as it is written."""
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), dict(values))
    except OmegaConfBaseException as error:
        faults.append(f"expected texts without an open ${{, found {shorten(error)}")
        return Config()
    return Config(**{str(key): value for key, value in OmegaConf.to_container(config).items()})  # type: ignore[union-attr]


def _build(
    layers: Mapping[str, dict[str, Any]],
    methods: Collection[str] | None,
    train_methods: Collection[str] | None,
    faults: list[str],
) -> Config:
    """Lay the layers over each other, check every key, and raise all faults together."""
    origin: dict[str, str] = {}
    given: dict[str, Any] = {}

    # Which layer has the last word on each key.
    for where, layer in layers.items():
        for key, value in layer.items():
            if key in KEYS:
                origin[key], given[key] = where, value
            else:
                close = nearest(key, KEYS) or " (the keys: docs/keys.md)"
                faults.append(f"{where}: unknown key {key!r}{close}")

    # Every value by its key's line, over the defaults.
    values = {}
    for key, value in given.items():
        try:
            values[key] = coerce(key, value)
        except ValueError as error:
            faults.append(f"{origin[key]}: {key}: {error}")

    # What keys say together, and what only the caller knows.
    plain = Config()
    if values.get("end_step", LAST_STEP if "num_inference_steps" in values else plain.end_step) == LAST_STEP:
        values["end_step"] = values.get("num_inference_steps", plain.num_inference_steps) - 1
    config = _structured(values, faults)
    if not faults:
        faults.extend(contradictions(config))
    for key, known in (("python_name", methods), ("train_method", train_methods)):
        value = getattr(config, key)
        if known is not None and value not in known:
            faults.append(
                f"{key}: expected one of {', '.join(sorted(known))}, found {value!r}{nearest(value, known)}"
            )
    if faults:
        raise UserError("; ".join(faults))
    return config
