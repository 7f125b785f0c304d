"""A comparison of methods, written in one YAML: its axes, and the cells they multiply into.

    methods x datasets x noise_scales x etas x pairs x seeds

Each cell is a run like any other, with a folder of its own under `out`. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from utils.config.keys import A_PATH, NAMES, Group, key, keys_of
from utils.config.keys import coerce as coerce_key
from utils.config.load import layer_config, parse_overrides, read_mapping
from utils.config.runs import Run, expand_runs
from utils.config.schema import KEYS, coerce, depends_on, made_by_plan
from utils.config.yaml_files import find_yaml, shorten
from utils.errors import UserError, nearest
from utils.training.methods import METHODS
from utils.training.sources import Source

PLAN = Group("plan", "of a study")
_WITH_ZERO = "scales with 0 and some above"


@dataclass(frozen=True)
class Plan:
    """The keys of a plan's YAML."""

    # fmt: off
    methods: list[str] = key(PLAN, ..., "python_names to compare", **NAMES)
    datasets: list[str] = key(PLAN, ..., "datasets to compare them on", **NAMES)
    seeds: int = key(PLAN, 3, "trainings of each, which differ in nothing but the seed", ge=1, le=1000)
    noise_scales: dict[str, list[float]] = key(PLAN, {}, "by method; not named: the base's")
    etas: dict[str, list[float]] = key(PLAN, {}, "by method; not named: the base's")
    pairs: list[int] = key(PLAN, [0], "numbers of pairs to learn from; 0: all", ge=0, filled=True)
    identities: int = key(PLAN, 16, "generated images at each scale, other ones for each seed of training", ge=1, le=100_000)
    first_identity: int = key(PLAN, 1_000_000, "the first of their seeds", ge=0, le=2**62)
    shown: int = key(PLAN, 2, "identities of each cell that are kept as pictures", ge=1, le=1000)
    scales: list[float] = key(PLAN, [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0], "slider scales", filled=True)
    strengths: list[float] = key(PLAN, [0.25, 0.5, 0.75, 1.0], "shares of the pairs' own change to compare at", filled=True)
    text_prompts: str = key(PLAN, "../slider_text/prompts", "folder of DATASET.yaml for the text sliders", **A_PATH)
    out: str = key(PLAN, "output/study", "where it is written", **A_PATH)
    settings: dict[str, Any] = key(PLAN, {}, "keys of a config, for every cell")
    method_settings: dict[str, dict[str, Any]] = key(PLAN, {}, "over them, by method")
    # fmt: on


PLAN_KEYS = keys_of(Plan)


@dataclass(frozen=True)
class Cell:
    """One training and its measurement.

    Attributes:
        run: names, paths, settings.
        source: what it learns from.
        label: the method and whichever of beta, eta and number of pairs the plan varies.
    """

    run: Run
    source: Source
    label: str

    @property
    def result_path(self) -> Path:
        """What was measured."""
        return self.run.folder / "measured.json"


def load_plan(
    yaml: str, overrides: Sequence[str], config_dir: Path, preset: str = "", methods: Collection[str] = ()
) -> Plan:
    """Read the plan `yaml` of `config_dir`, one of its presets over it, and key=value over both.

    A key of `Plan` changes the plan; any other goes to its settings, for every cell.

    Raises:
        UserError: for a missing YAML or preset, unknown keys, wrong types, unknown methods.
    """
    path = find_yaml(config_dir, yaml, "plan")
    content = read_mapping(path)
    presets = _mapping(content.pop("presets", None), f"{path}: presets")
    if preset and preset not in presets:
        known = ", ".join(presets) or "none"
        raise UserError(f"--preset: expected one of {known}, found {preset}{nearest(preset, presets)}")

    # The YAML, a preset over it, the command line over both.
    values = content | (_mapping(presets[preset], f"{path}: {preset}") if preset else {})
    both = (_mapping(each.get("settings"), f"{path}: settings") for each in (content, values))
    values["settings"] = {key: value for each in both for key, value in each.items()}
    command, faults = parse_overrides(overrides)
    for name, value in command.items():
        if name in PLAN_KEYS:
            values[name] = value
        elif name in KEYS:
            values["settings"] = {**values.get("settings", {}), name: value}
        else:
            values[name] = value  # an unknown key, reported with the others
    for name in [
        name for name in values if name in KEYS and name not in PLAN_KEYS
    ]:  # base: ... beside the axes
        values["settings"] = {name: values.pop(name), **values.get("settings", {})}

    # Types and bounds, then names that only others know.
    plan, more = _typed(values, path)
    faults += more
    for method in [*plan.methods, *plan.noise_scales, *plan.etas, *plan.method_settings] if plan else []:
        if methods and method not in methods:
            known = ", ".join(methods)
            faults.append(
                f"{path.name}: expected methods out of {known}, found {method!r}{nearest(method, methods)}"
            )
    if faults or plan is None:
        raise UserError("; ".join(faults))
    return plan


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping of keys to values, empty for nothing; raises `UserError` for anything else."""
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping of keys to values, found {shorten(value)}")
    return value or {}


def expand_cells(plan: Plan, config_dir: Path) -> list[Cell]:
    """Every cell of a plan: seeds fastest, then pairs, etas, noise scales, datasets, methods.

    Raises:
        UserError: for settings at fault, a prompt file that is missing, or two cells of one name.
    """
    cells = []
    for method, dataset in product(plan.methods, plan.datasets):
        _check_settings(plan, method)
        counts = plan.pairs if METHODS[method].source.counted else [0]
        betas: Sequence[float | None] = plan.noise_scales.get(method, [None])
        etas: Sequence[float | None] = plan.etas.get(method, [None])

        for beta, eta, count, seed in product(betas, etas, counts, range(1, plan.seeds + 1)):
            varied = {"beta": (beta, len(betas) > 1), "eta": (eta, len(etas) > 1)}
            parts = [method, *(f"{name} {value:g}" for name, (value, shown) in varied.items() if shown)]
            parts += [f"{count or 'all'} pairs"] if len(counts) > 1 else []
            own = {"python_name": method, "datasets": [dataset], "train_start": seed, "pair_count": count}
            own |= {} if beta is None else {"noise_scales": [beta]}
            own |= {} if eta is None else {"cfg_eta": eta}
            own |= {"output_folder": plan.out, "config_name": f"{count}pairs" if count else "allpairs"}
            cells.append(_cell(plan, own, config_dir, ", ".join(parts)))

    folders = [cell.run.folder for cell in cells]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"plan: expected a name for each cell, found {twice[0].name} twice")
    return cells


def _cell(plan: Plan, own: Mapping[str, Any], config_dir: Path, label: str) -> Cell:
    """The cell of some settings, over those of the plan."""
    method = own["python_name"]
    layers = {
        "settings": plan.settings,
        f"method_settings, {method}": plan.method_settings.get(method, {}),
        "plan": dict(own),
    }
    (run,) = expand_runs(layer_config(layers, config_dir))
    source = METHODS[method].source.of(run, Path(plan.text_prompts))
    return Cell(source.settled(run), source, label)


def _check_settings(plan: Plan, method: str) -> None:
    """Raise `UserError` for settings that the plan itself makes, or that all cells must share."""
    own = plan.method_settings.get(method, {})
    if made := sorted(made_by_plan() & {*plan.settings, *own}):
        raise UserError(f"settings: expected no {made[0]}, which the plan makes of its own keys")
    if shared := sorted(depends_on("shared") & own.keys()):
        raise UserError(f"method_settings, {method}: expected no {shared[0]}, which all cells share")
    for name, knows in (("noise_scales", "beta"), ("etas", "eta")):
        methods = [name for name, row in METHODS.items() if knows in row.knows]
        if method in getattr(plan, name) and method not in methods:
            raise UserError(
                f"{name}: expected some of {', '.join(methods)}, found {method}, which knows none"
            )


def _typed(values: Mapping[str, Any], path: Path) -> tuple[Plan | None, list[str]]:
    """The plan, or None with what is wrong."""
    faults, typed = [], {}
    for name, value in values.items():
        if name not in PLAN_KEYS:
            faults.append(f"{path.name}: unknown key {name!r}{nearest(name, [*PLAN_KEYS, *KEYS])}")
            continue
        try:
            typed[name] = _value(name, value)
        except ValueError as error:
            faults.append(f"{path.name}: {name}: {error}")
    for each in fields(Plan):
        if each.default is MISSING and each.default_factory is MISSING and each.name not in values:
            faults.append(f"{path.name}: {each.name}: expected a list, found none")
    return (None if faults else Plan(**typed)), faults


def _value(name: str, value: Any) -> Any:
    """A key's value out of a YAML's; raises ValueError for what is wrong with it."""
    if isinstance(value, dict) and name in ("noise_scales", "etas"):
        return {str(method): coerce("noise_scales", numbers) for method, numbers in value.items()}
    value = coerce_key(Plan, name, value)
    if name == "scales" and (0 not in value or max(value) <= 0):
        raise ValueError(f"expected {_WITH_ZERO}, found {value}")
    return sorted(set(value)) if name in ("scales", "strengths") else value
