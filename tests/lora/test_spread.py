"""Whether an edit is of a part of the image, by its LoRA's header."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from utils.config.runs import Run
from utils.config.schema import Config
from utils.lora.spread import share_of_change, with_locality


def lora(path: Path, *shares: float, **metadata: str) -> Path:
    entries = [{"pair": str(number), "share": f"{share:.3f}"} for number, share in enumerate(shares)]
    save_file({"a": torch.zeros(1)}, path, {"learned_from": json.dumps(entries), **metadata})
    return path


def run(locality: bool = True) -> Run:
    return Run(Config(locality=locality), "sketch", 1.0, 1)


def test_the_share_is_the_pairs_mean(tmp_path: Path) -> None:
    assert share_of_change(lora(tmp_path / "a.safetensors", 0.8, 0.6)) == pytest.approx(0.7)


def test_a_file_that_does_not_say_is_held_as_asked(tmp_path: Path) -> None:
    older = lora(tmp_path / "a.safetensors", learned_from='[{"pair": "1"}]')
    foreign, broken = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    broken.write_bytes(b"no LoRA")
    for path in (older, foreign, broken, tmp_path / "d.pt", tmp_path / "missing.safetensors"):
        assert share_of_change(path) is None
        assert with_locality(run(), [path]).config.locality


def test_a_style_is_not_held_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, style = lora(tmp_path / "part.safetensors", 0.1, 0.3), lora(tmp_path / "all.safetensors", 0.8)
    assert with_locality(run(), [part]).config.locality
    assert capsys.readouterr().out == ""
    assert not with_locality(run(), [part, style]).config.locality
    assert f"{style}: its pairs change 80% of the image; locality is off for it" in capsys.readouterr().out
    assert with_locality(run(locality=False), [style]) == run(locality=False)
    assert capsys.readouterr().out == ""
