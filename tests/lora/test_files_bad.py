"""LoRA files that are damaged, lie about themselves or would do harm: refused, never loaded in part."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.mini_loras import fresh
from utils.errors import UserError
from utils.lora.files import adapter_loras, read_lora, save_lora, save_reference, write_lora
from utils.lora.loading import load_lora
from utils.models.adapters import adapter_names


def damaged(trained: nn.Module, tmp_path: Path) -> dict[str, torch.Tensor]:
    save_lora(trained, "semantic", tmp_path / "good", {})
    return load_file(tmp_path / "good")


KEY = "transformer.transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update(
                {f"transformer.nowhere.lora_{part}.weight": torch.zeros(1, 1) for part in "AB"}
            ),
            "nowhere matches no linear of the model",
        ),
        (lambda d: d.update({"a\nb": torch.zeros(1)}), r"a\?b matches no linear"),
        (lambda d: d.update({"x.alpha": torch.zeros(1)}), "x.alpha matches no linear of FLUX"),
        (
            lambda d: d.update({"lora_te1_x.alpha": torch.zeros(1)}),
            "lora_te1_x.alpha matches no linear of a text encoder",
        ),
        (lambda d: d.pop(f"{KEY}.lora_B.weight"), "to_q without its B matrix"),
        (
            lambda d: d.update({f"{KEY}.lora_A.weight": torch.zeros(3, 31)}),
            r"to_q of shape \(32, 31\).*where \(32, 32\) fits",
        ),
        (
            lambda d: d.update({f"{KEY}.lora_B.weight": torch.zeros(32, 2)}),
            r"to_q of shapes A \(3, 32\), B \(32, 2",
        ),
        (lambda d: d.update({f"{KEY}.lora_A.weight": torch.zeros(())}), "to_q of shapes"),
        (lambda d: d.update({f"{KEY}.lora_A.weight": torch.full((3, 32), torch.nan)}), "not finite"),
        (
            lambda d: d.update({f"{KEY}.lora_A.weight": torch.ones(3, 32, dtype=torch.int32)}),
            "type torch.int32",
        ),
        (
            lambda d: d.update(
                {f"{KEY}.lora_A.weight": torch.ones(8193, 32), f"{KEY}.lora_B.weight": torch.ones(32, 8193)}
            ),
            "rank 8193 where 8192 is the most",
        ),
        (lambda d: d.update({f"{KEY}.alpha": torch.tensor(torch.inf)}), "not finite"),
        (
            lambda d: d.update(
                {f"{KEY}.lora_A.weight": torch.zeros(0, 32), f"{KEY}.lora_B.weight": torch.zeros(32, 0)}
            ),
            "shapes A",
        ),
        (lambda d: d.update({f"{KEY}.alpha": torch.zeros(2)}), "alpha of shape"),
        (lambda d: d.clear(), "no tensors"),
    ],
)
def test_a_file_that_does_not_fit_is_never_loaded_in_part(trained, mini_flux, tmp_path, change, message):
    tensors = damaged(trained, tmp_path)
    change(tensors)
    save_file(tensors, tmp_path / "bad")
    other = fresh(mini_flux)
    with pytest.raises(UserError, match=message) as caught:
        load_lora(other, tmp_path / "bad", "edit")
    assert "\n" not in str(caught.value)
    assert adapter_names(other) == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{broken", "JSON object"),
        ("[1]", "JSON object"),
        ('{"transformer.lora_alpha": "two"}', "lora_alpha 'two' in its header where a number fits"),
        ('{"transformer.use_dora": true}', "use_dora in its header, and no magnitudes"),
    ],
)
def test_a_header_that_cannot_be_followed(trained, transformer, tmp_path, header, message):
    save_file(damaged(trained, tmp_path), tmp_path / "bad", metadata={"lora_adapter_metadata": header})
    with pytest.raises(UserError, match=message):
        load_lora(transformer, tmp_path / "bad", "edit")


def test_many_faults_are_counted(trained, transformer, tmp_path):
    tensors = {f"x{index}": torch.zeros(1) for index in range(12)}
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(UserError, match="and 7 more"):
        load_lora(transformer, tmp_path / "bad", "edit")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x04.", b"\xff" * 8 + b"{"])
def test_a_file_that_is_no_lora(transformer, tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.pt: expected a LoRA file"):
        load_lora(transformer, tmp_path / "bad.pt", "edit")


def test_a_missing_file(transformer, tmp_path):
    with pytest.raises(UserError, match="expected a LoRA file, found nothing"):
        load_lora(transformer, tmp_path / "none.pt", "edit")
    with pytest.raises(UserError, match="found a folder"):
        load_lora(transformer, tmp_path, "edit")


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [lambda content, path: torch.save(content, path), None])
def test_a_pickle_runs_no_code(transformer, tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pt"
    if write is None:
        path.write_bytes(pickle.dumps({"lora_unet_x.alpha": Trap()}))
    else:
        write({"lora_unet_x.alpha": Trap()}, path)
    with pytest.raises(UserError, match="expected a LoRA file"):
        load_lora(transformer, path, "edit")
    assert not (tmp_path / "trapped").exists()


def test_a_state_dict_of_other_things(transformer, tmp_path):
    torch.save({"step": 3}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="state dict of tensors"):
        load_lora(transformer, tmp_path / "state.pt", "edit")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", ["diffusers", "kohya", "reference"])
def test_half_a_file(trained, transformer, tmp_path, kind, share):
    write_lora(tmp_path / "whole", adapter_loras(trained, "semantic"), kind, {})
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "half").write_bytes(data[: int(share * len(data))])
    before = adapter_names(transformer)
    with pytest.raises(UserError, match="half: expected a LoRA file") as caught:
        load_lora(transformer, tmp_path / "half", "edit")
    assert "\n" not in str(caught.value)
    assert adapter_names(transformer) == before


def test_a_header_that_lies_about_sizes(tmp_path):
    header = {"transformer.x.lora_A.weight": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (tmp_path / "lie").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(UserError, match="lie: expected a LoRA file"):
        read_lora(tmp_path / "lie")


def test_a_compressed_pt_is_not_opened(trained, tmp_path, monkeypatch):
    """torch.save compresses nothing; a bomb does."""
    save_reference(trained, "semantic", tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for member in good.namelist():
            bomb.writestr(member, good.read(member), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UserError, match=r"expected a \.pt, whose parts are not compressed"):
        read_lora(tmp_path / "bomb.pt")


def test_a_view_that_repeats_its_bytes(tmp_path):
    huge = torch.zeros(1).expand(1_000_000, 1_000_000)
    torch.save({"lora_unet_proj_out.lora_down.weight": huge}, tmp_path / "huge.pt")
    with pytest.raises(UserError, match="found tensors of 4000000000000 bytes in"):
        read_lora(tmp_path / "huge.pt")


def test_too_many_tensors(tmp_path):
    save_file({f"x{index}": torch.zeros(1) for index in range(20_001)}, tmp_path / "many")
    with pytest.raises(UserError, match="found 20001 parts"):
        read_lora(tmp_path / "many")


def test_metadata_of_a_pt_and_unknown_formats(trained, tmp_path):
    loras = adapter_loras(trained, "semantic")
    with pytest.raises(ValueError, match="no header"):
        write_lora(tmp_path / "x", loras, "reference", {"dataset": "glasses"})
    with pytest.raises(
        UserError, match=r"one of diffusers, kohya, reference, found koyha \(did you mean 'kohya"
    ):
        write_lora(tmp_path / "x", loras, "koyha", {})
    assert not list(tmp_path.iterdir())
