"""utils/training/claims.py: what is trained stays, what is in the way is moved, one process at a time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from utils.config.load import save_config
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.errors import UserError
from utils.training.checkpoints import Checkpoint
from utils.training.claims import claimed, note_saved

INPUTS = "abc"


def make_run(folder: Path, **changes) -> Run:
    return expand_runs(replace(Config(output_folder=str(folder / "out"), datasets=["age"]), **changes))[0]


def train(run: Run, finish: bool = True, inputs: str = INPUTS) -> bool:
    """What a training leaves behind, all of it or half; whether there was anything to do."""
    with claimed(run, inputs) as todo:
        if todo:
            state().save(run.state_path)
            run.log_path.write_text("log")
            if finish:
                save_file({"lora_A": np.ones((2, 3), np.float32)}, run.weights_path())
                write_pt(run.reference_path())
                note_saved(run, run.config.train_iteration)
                run.record_path.write_text("{}")
                run.state_path.unlink()
        return todo


def write_pt(path: Path) -> None:
    """A zip, as torch writes them."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "weights")


def state(step: int = 3) -> Checkpoint:
    """A training's state that holds nothing."""
    return Checkpoint(step, 1.0, {}, {}, {}, {"last_epoch": step}, torch.zeros(0), {}, "")


def folders(run: Run) -> list[str]:
    return sorted(path.name.removeprefix(run.name) for path in run.folder.parent.iterdir() if path.is_dir())


def test_a_finished_training_is_left_alone(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path)
    assert train(run)
    assert not train(run)
    assert "trained before, left as it is" in capsys.readouterr().out
    for key, value in {"device": "cpu", "log_every": 3, "save_per_steps": 7, "scales": [1.0]}.items():
        assert not train(make_run(tmp_path, **{key: value})), key
    assert folders(run) == [""]


@pytest.mark.parametrize("finish", [True, False])
def test_other_settings_are_another_training(tmp_path: Path, capsys, finish: bool) -> None:
    run = make_run(tmp_path)
    train(run, finish)
    other = make_run(tmp_path, rank=8, resume=True)
    assert other.folder == run.folder
    assert train(other)
    assert "trained with rank 16, now 8; moved to" in capsys.readouterr().out
    assert folders(run) == ["", "_old1"]
    assert (run.folder.with_name(f"{run.name}_old1") / "losses.jsonl").read_text() == "log"
    assert train(run)
    assert folders(run) == ["", "_old1", "_old2"]


def test_other_inputs_are_another_training(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path)
    train(run)
    assert train(run, inputs="other")
    assert "trained on other images or prompts; moved to" in capsys.readouterr().out


def test_a_config_that_cannot_be_read_is_moved_aside(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path)
    train(run)
    run.config_path.write_text("rankk: 3")
    assert train(run)
    assert "its config is of another version" in capsys.readouterr().out
    run.config_path.unlink()
    assert train(run)
    assert "it has no config; moved to" in capsys.readouterr().out


def test_a_stopped_training_is_gone_on_with_or_kept(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path)
    train(run, finish=False)
    kept = run.state_path.read_bytes()
    with claimed(replace(run, config=replace(run.config, resume=True)), INPUTS) as todo:
        assert todo
        assert run.state_path.read_bytes() == kept
    assert train(run)
    assert "which --resume would continue; this is a new one; moved to" in capsys.readouterr().out
    assert (run.folder.with_name(f"{run.name}_old1") / "state.pt").read_bytes() == kept


@pytest.mark.parametrize("how", ["cut", "flipped", "no state", "step 0", "step -5", "step beyond the last"])
def test_a_state_that_was_changed_is_moved_aside_and_told(tmp_path: Path, capsys, how: str) -> None:
    run = make_run(tmp_path, resume=True)
    train(run, finish=False)
    good = run.state_path.read_bytes()
    steps = {"step 0": 0, "step -5": -5, "step beyond the last": run.config.train_iteration + 1}
    if how in steps:
        state(steps[how]).save(run.state_path)
    else:
        bad = {"cut": good[:-1], "flipped": good[:-1] + bytes([good[-1] ^ 1]), "no state": b"half"}
        run.state_path.write_bytes(bad[how])
    with claimed(run, INPUTS) as todo:
        assert todo
        assert not run.state_path.exists()
    assert "its state can't be gone on from (" in capsys.readouterr().out
    assert folders(run) == ["", "_old1"]


def test_a_training_that_saved_nothing_is_begun_again(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    save_config(run.config, run.config_path)
    run.inputs_path.write_text(INPUTS)
    assert train(run)
    assert folders(run) == [""]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    hold = (
        "import sys; from pathlib import Path; from tests.training.test_claims import claimed, make_run\n"
        "with claimed(make_run(Path(sys.argv[1])), 'abc'): print('held', flush=True); sys.stdin.read()"
    )
    paths = [str(Path(__file__).resolve().parents[2])]
    code = f"import sys; sys.path[:0] = {paths!r}\n{hold}"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="found another process training in it"), claimed(run, INPUTS):
            pass
        other.kill()  # and a killed one holds nothing
    assert train(run)
