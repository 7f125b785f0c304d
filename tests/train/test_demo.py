"""What `make demo` promises, on the shipped small FLUX: an edit learned from three pairs, strong, clean."""

import json
from pathlib import Path

import pytest

from tests.conftest import TRAIN, Script

WEIGHTS = TRAIN.parent / "tinyflux" / "weights"


@pytest.mark.slow
@pytest.mark.skipif(
    not WEIGHTS.is_dir(), reason="no tinyflux/weights; make them with python -m tinyflux.pretrain"
)
def test_glasses_are_learned(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(TRAIN)
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    study = ("--c=train_image", "datasets=glasses", f"output_folder={tmp_path / 'models'}")
    assert script("train_image_script", *study)[0] == 0
    assert script("edit_table", *study, "--seeds=16", f"--out={tmp_path}")[0] == 0
    (run,) = json.loads((tmp_path / "table.json").read_text())["runs"]
    assert run["monotone"]
    assert run["moved"]["mean"] >= 0.7
    assert run["leak"]["mean"] <= 0.06
