"""Whatever stands where a value should: a fault in words, never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from utils.data.findings import Findings
from utils.data.foreign import aitoolkit, sdscripts
from utils.data.foreign.rows import IDLE
from utils.data.foreign.sdscripts_files import of_command
from utils.data.foreign.translation import Translation, tell_rest

HERE = Path(__file__).parent
ODD: list[Any] = [None, True, "word", -1, float("nan"), [], [[]], {"a": {"b": 1}}, ["x", 1]]


def finished(found: Translation) -> None:
    """All that is done with a translation."""
    tell_rest(found)
    found.datasets(Findings())


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a content of tables and lists."""
    pairs = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_anywhere_in_a_job_of_aitoolkit(odd: Any) -> None:
    content = yaml.safe_load((HERE / "aitoolkit_flux.yaml").read_text())
    process = content["config"]["process"][0]
    process["train"] |= {"optimizer_params": {}, "lr_scheduler_params": {}, "diff_output_preservation": True}
    process["network"]["network_kwargs"], process["sample"]["samples"] = {}, [{"prompt": "a"}]
    for path in places(content):
        if path == ("config",):
            continue
        changed = copy.deepcopy(content)
        table = changed
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = odd
        finished(aitoolkit.translate(Path("job.yaml"), changed))


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_anywhere_in_flags_of_sdscripts(odd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script, flags = of_command((HERE / "sdscripts_flux.sh").read_text())
    for name in (name for name, row in sdscripts.FLAGS.items() if row.fate != IDLE):
        for own in (flags, {key: value for key, value in flags.items() if key != "dataset_config"}):
            finished(sdscripts.translate(tmp_path / "train.sh", script, {**own, name: odd}))
