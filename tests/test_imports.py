"""The rules of imports: down only, and light where a config is checked before anything heavy is loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT = (
    *("utils.config.load", "utils.config.runs", "utils.config.schema", "utils.config.yaml_files"),
    *("utils.data.captioned", "utils.data.captions", "utils.data.dataset_summary"),
    *("utils.jobs.prepare", "utils.jobs.train", "utils.models.families", "utils.training.claims"),
    *("utils.prepare.run", "utils.prepare.sheet"),
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """lint-imports on the packages of a folder, by the contracts of its pyproject.toml."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("utils/flow/schedules.py", "from utils.models import flux1"),
        ("utils/training/claims.py", "from tinyflux.judge import face_probe"),
        ("utils/attic/__init__.py", ""),
    ],
)
def test_an_import_against_the_rule_is_found(tmp_path: Path, file: str, line: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("utils", "tinyflux", "bench"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=lambda _, names: [n for n in names if n == "weights"]
        )
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.is_file() else "") + f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout or "attic" in result.stdout


def test_what_checks_a_config_loads_no_torch() -> None:
    code = (
        f"import sys, {', '.join(LIGHT)}; print(*sorted({{'torch', 'diffusers', 'peft'}} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr
