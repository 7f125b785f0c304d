"""The commands on LoRA files: what they write and print, what they refuse, and how fast --help is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.mini_loras import assert_same, change, fresh, random_lora
from utils.errors import run_cli
from utils.lora.__main__ import main
from utils.lora.files import read_lora, read_metadata, write_lora
from utils.lora.linear import LinearLora
from utils.models.adapters import linear_layers

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v", "transformer_blocks.1.attn.to_q")
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys) -> Cli:
    """Run a command in tmp_path; gives the exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_cli(lambda: main(arguments))
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def loras() -> dict[str, LinearLora]:
    generator = torch.Generator().manual_seed(1)
    return {name: random_lora(8, 8, 3, 1.5, generator) for name in NAMES}


@pytest.fixture
def file(tmp_path, loras) -> Path:
    metadata = {"dataset": "glasses", "config": '{"rank": 3, "scales": [0, 1]}', "calibration": "{}"}
    write_lora(tmp_path / "a.safetensors", loras, "diffusers", metadata)
    return tmp_path / "a.safetensors"


def test_convert_there_and_back(cli, file, loras):
    assert cli("convert", "a.safetensors", "k.safetensors", "--to", "kohya")[0] == 0
    assert read_lora(Path("k.safetensors")).format == "kohya"
    status, out, _ = cli("convert", "k.safetensors", "r.pt", "--to", "reference")
    assert status == 0
    assert "no header, so these are left out: calibration, config, dataset, history" in out
    assert cli("convert", "k.safetensors", "d.safetensors", "--to", "diffusers")[0] == 0
    assert_same(read_lora(Path("d.safetensors")).loras, loras)
    for name, lora in read_lora(Path("r.pt")).loras.items():
        torch.testing.assert_close(change(lora), change(loras[name]), atol=1e-7, rtol=1e-6)
    metadata = read_metadata(Path("d.safetensors"))
    assert metadata.pop("history").splitlines() == [
        "converted from a.safetensors (diffusers) to kohya",
        "converted from k.safetensors (kohya) to diffusers",
    ]
    assert metadata == read_metadata(file)


def test_inspect(cli, file):
    assert cli("inspect", "a.safetensors")[::2] == (0, "")
    out = cli("inspect", "a.safetensors")[1].splitlines()
    assert out[:5] == [
        "format       diffusers",
        "linears      3: transformer_blocks",
        "ranks        3",
        "alphas       1.5",
        "dtypes       float32",
    ]
    assert "dataset      glasses" in out
    assert "config       rank: 3" in out
    assert "             scales: [0, 1]" in out


def test_inspect_prints_no_control_characters(cli, loras):
    write_lora(Path("x"), loras, "diffusers", {"note": "a\x1b[2Jb"})
    assert "a?[2Jb" in cli("inspect", "x")[1]


def test_merge(cli, file, loras):
    second = {NAMES[0]: loras[NAMES[1]]}
    write_lora(Path("b.pt"), second, "reference", {})
    status, out, _ = cli("merge", "a.safetensors:0.7", "b.pt:-0.4", "m.safetensors")
    assert (status, out) == (0, "m.safetensors: 3 linears of rank 6 (1 times), 3 (2 times)\n")
    merged = read_lora(Path("m.safetensors"))
    expected = 0.7 * change(loras[NAMES[0]]) - 0.4 * change(second[NAMES[0]])
    torch.testing.assert_close(change(merged.loras[NAMES[0]]), expected, atol=1e-7, rtol=0)
    assert json.loads(merged.metadata["sources"]) == [
        {"file": "a.safetensors", "weight": 0.7},
        {"file": "b.pt", "weight": -0.4},
    ]
    assert merged.metadata["history"] == "merged from a.safetensors at 0.7, b.pt at -0.4"
    status, out, _ = cli("merge", "a.safetensors", "b.pt", "m.safetensors", "--rank", "2", "--force")
    assert status == 0
    assert "energy kept: " in out
    assert {lora.rank for lora in read_lora(Path("m.safetensors")).loras.values()} == {2}


def test_resize(cli, file):
    status, out, _ = cli("resize", "a.safetensors", "s.safetensors", "--rank", "1")
    assert status == 0
    assert out.splitlines()[0] == "s.safetensors: 3 linears of rank 1"
    assert "energy kept: " in out
    assert "the least, transformer_blocks." in out
    metadata = read_metadata(Path("s.safetensors"))
    assert metadata["dataset"] == "glasses"
    assert metadata["history"] == "resized from a.safetensors to rank 1"
    assert "calibration" not in metadata  # was measured on the LoRA as it was


def test_extract(cli, mini_flux, loras, tmp_path):
    tuned = fresh(mini_flux)
    linears = linear_layers(tuned)
    delta = change(random_lora(32, 32, 2, 2.0, torch.Generator().manual_seed(0)))
    linears[NAMES[0]].weight.data += delta.float()
    linears[NAMES[0]].bias.data += 1
    tuned.save_pretrained(tmp_path / "tuned")
    status, out, _ = cli("extract", str(mini_flux), "tuned", "e.safetensors", "--rank", "2")
    assert status == 0
    assert "energy kept: 100.0000%" in out
    assert f"left out, since no LoRA can hold them: 1 other parameters, as {NAMES[0]}.bias" in out
    found = read_lora(Path("e.safetensors"))
    assert list(found.loras) == [NAMES[0]]
    torch.testing.assert_close(change(found.loras[NAMES[0]]), delta, atol=1e-6, rtol=0)
    status, _, err = cli("extract", str(mini_flux), str(mini_flux), "f.safetensors", "--rank", "2")
    assert status == 2
    assert "expected linears that differ" in err


def test_what_is_there_is_kept(cli, file):
    before = file.read_bytes()
    status, _, err = cli("resize", "a.safetensors", "a.safetensors", "--rank", "1")
    assert status == 2
    assert err.endswith("expected the name of a new file, found one that exists; --force replaces it\n")
    assert file.read_bytes() == before
    assert cli("resize", "a.safetensors", "a.safetensors", "--rank", "1", "--force")[0] == 0
    assert read_lora(file).loras[NAMES[0]].rank == 1
    Path("folder").mkdir()
    assert "found a folder" in cli("resize", "a.safetensors", "folder", "--rank", "1", "--force")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "gone"], "gone: expected a LoRA file, found nothing"),
        (
            ["convert", "a.safetensors", "x", "--to", "koyha"],
            "one of diffusers, kohya, reference, found koyha",
        ),
        (["convert", "strange", "x", "--to", "kohya"], "x: expected linears that format kohya can hold"),
        (["merge", "a.safetensors:nan", "x"], "a.safetensors:nan: expected a finite weight"),
        (
            ["merge", "a.safetensors", "other", "x"],
            "expected LoRAs for the same model, found: transformer_bl",
        ),
        (["extract", ".", ".", "x", "--rank", "1"], "expected a folder with diffusion_pytorch_model"),
        (
            ["extract", "one", "two", "x", "--rank", "1"],
            "two: expected the same model as one, found: x.weight in",
        ),
    ],
)
def test_faults_are_one_line_and_exit_2(cli, file, arguments, message):
    lora = random_lora(9, 9, 1, 1.0, torch.Generator())
    write_lora(Path("strange"), {"nowhere": lora}, "diffusers", {})
    write_lora(Path("other"), {NAMES[0]: lora}, "diffusers", {})
    for folder, name in (("one", "x.weight"), ("two", "y.weight")):
        Path(folder).mkdir()
        save_file({name: torch.zeros(1)}, f"{folder}/diffusion_pytorch_model.safetensors")
    status, _, err = cli(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.parametrize("rank", ["0", "-1", "two"])
def test_a_rank_that_is_none(cli, file, rank):
    status, _, err = cli("resize", "a.safetensors", "x", f"--rank={rank}")
    assert status == 2
    assert f"expected a whole number from 1 to 100000, found '{rank}'" in err


def test_help_loads_nothing_heavy():
    """As the README has it; the modules that are loaded come on stderr."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "utils.lora", "merge", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "FILE[:WEIGHT]" in result.stdout
    assert not {"torch", "numpy", "diffusers", "safetensors"} & {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines()
    }
