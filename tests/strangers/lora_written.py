"""Our LoRA files for others' tools: alpha, suffixes, types and headers as those tools take them."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.mini_loras import assert_same, change, random_lora
from tests.strangers import case
from tests.strangers.lora import OUT, SINGLE, close, given, refused, run
from utils.lora.files import read_lora, read_metadata, save_lora, write_lora
from utils.lora.folding import fold_alpha
from utils.lora.linear import LinearLora


@case("a .pt for the authors' code has the alpha that it takes for granted, and says what it refuses")
def for_the_authors(folder: Path) -> None:
    write_lora(folder / "x", given(alpha=16.0), "diffusers", {})
    said = run("convert", str(folder / "x"), str(folder / "x.pt"), "--to", "reference")
    assert "will refuse it, since it loads strictly: 7 linears inside attention are missing" in said
    assert "1 linears lie outside of attention" in said
    for name, lora in read_lora(folder / "x.pt").loras.items():
        assert lora.alpha == 1
        close(name, {name: lora}, change(given(alpha=16.0)[name]))


@case("a kohya file says which linears its readers leave out")
def for_sd_scripts(folder: Path) -> None:
    lora = random_lora(8, 8, 2, 2.0, torch.Generator().manual_seed(2))
    write_lora(folder / "x", given(proj_out=lora, x_embedder=lora), "diffusers", {})
    said = run("convert", str(folder / "x"), str(folder / "y.safetensors"), "--to", "kohya")
    assert "diffusers leaves out, in this format, proj_out, x_embedder" in said
    assert "sd-scripts leaves out, in this format, proj_out\n" in said


@case("proj_out's alpha cannot be taken for that of the single blocks' proj_out")
def proj_out(folder: Path) -> None:
    loras = given(alpha=3.0, proj_out=random_lora(8, 8, 2, 2.0, torch.Generator().manual_seed(2)))
    for alpha in (2.0, 0.7):  # the first by zeros, the second by a factor
        loras["proj_out"] = LinearLora(loras["proj_out"].weight_a, loras["proj_out"].weight_b, alpha)
        write_lora(folder / "x", loras, "diffusers", {})
        read = read_lora(folder / "x").loras
        assert {lora.alpha for lora in read.values()} == {3.0}
        close("proj_out", read, change(loras["proj_out"]))


@case("alpha folded in leaves no alpha behind, one rank, and the same change; merging goes on as before")
def folded(folder: Path) -> None:
    loras = given(alpha=0.75, **{SINGLE: random_lora(8, 8, 2, 5.0, torch.Generator().manual_seed(2))})
    write_lora(folder / "x", loras, "diffusers", {})
    run("convert", str(folder / "x"), str(folder / "y.safetensors"), "--to", "diffusers", "--fold-alpha")
    assert not [key for key in load_file(folder / "y.safetensors") if "alpha" in key]
    read = read_lora(folder / "y.safetensors").loras
    assert {(lora.rank, lora.alpha) for lora in read.values()} == {(3, 3.0)}
    run("merge", f"{folder}/y.safetensors:0.5", f"{folder}/x:0.5", str(folder / "z.safetensors"))
    for name, lora in loras.items():
        close(name, read, change(lora))
        close(name, read_lora(folder / "z.safetensors").loras, change(lora))
    assert "expected --to diffusers" in refused(
        "convert", str(folder / "x"), str(folder / "k.safetensors"), "--to", "kohya", "--fold-alpha"
    )


@case("alpha / rank of a power of two is folded in without rounding, 16 bits or not")
def folded_exactly(folder: Path) -> None:
    loras = {
        name: LinearLora(lora.weight_a.bfloat16(), lora.weight_b.bfloat16(), 0.75)
        for name, lora in given().items()
    }
    for name, lora in fold_alpha(loras).items():
        assert lora.weight_b.dtype == torch.bfloat16
        assert torch.equal(change(lora), change(loras[name]))


@case("a suffix that would lie is refused, and one that lies is read")
def suffixes(folder: Path) -> None:
    write_lora(folder / "x.safetensors", given(), "reference", {})
    said = refused(
        "convert", str(folder / "x.safetensors"), str(folder / "y.safetensors"), "--to", "reference"
    )
    assert "expected a .pt for format reference, as y.pt" in said
    assert "expected a .safetensors" in refused(
        "convert", str(folder / "x.safetensors"), str(folder / "y.pt"), "--to", "kohya"
    )
    run("convert", str(folder / "x.safetensors"), str(folder / "y.safetensors"), "--to", "kohya")
    write_lora(folder / "x.pt", read_lora(folder / "y.safetensors").loras, "diffusers", {})
    assert_same(read_lora(folder / "x.pt").loras, read_lora(folder / "x.safetensors").loras)


@case("--dtype writes 16 bits, and refuses values beyond them")
def dtype(folder: Path) -> None:
    write_lora(folder / "x", given(), "diffusers", {})
    out = str(folder / "y.safetensors")
    run("convert", str(folder / "x"), out, "--to", "kohya", "--dtype", "bfloat16")
    assert {each.dtype for key, each in load_file(out).items() if "lora" in key and each.ndim} == {
        torch.bfloat16
    }
    large = {OUT: LinearLora(torch.full((1, 8), 1e6), torch.ones(8, 1), 1.0)}
    write_lora(folder / "x", large, "diffusers", {})
    message = refused("resize", str(folder / "x"), out, "--rank", "1", "--dtype", "float16", "--force")
    assert "has values beyond float16" in message


@case("modelspec is kept by what is made of a file, its date and hashes are made anew")
def modelspec(folder: Path) -> None:
    spec = {"sai_model_spec": "1.0.1", "architecture": "flux-1-dev/lora", "title": "a", "date": "2020-01-01"}
    header = {f"modelspec.{key}": text for key, text in spec.items()} | {"sshs_model_hash": "stale"}
    write_lora(folder / "x", given(), "diffusers", header)
    before = read_metadata(folder / "x")
    paths = {name: str(folder / f"{name}.safetensors") for name in ("k", "r", "m")}
    run("convert", str(folder / "x"), paths["k"], "--to", "kohya")
    run("resize", paths["k"], paths["r"], "--rank", "1")
    run("merge", paths["k"], paths["r"], paths["m"])
    headers = [before, *(read_metadata(Path(path)) for path in paths.values())]
    assert {each["modelspec.architecture"] for each in headers} == {"flux-1-dev/lora"}
    assert [each["modelspec.title"] for each in headers] == ["a", "a", "a", "m"]
    assert [each["modelspec.date"] == "2020-01-01" for each in headers] == [True, True, False, False]
    assert headers[3]["modelspec.merged_from"] == "k.safetensors, r.safetensors"
    for each in headers:
        assert each["modelspec.hash_sha256"] == f"0x{each['sshs_model_hash']}"
    assert len({each["sshs_model_hash"] for each in headers}) == 4


@case("a training's file holds no alpha that ai-toolkit would pass over")
def training(folder: Path) -> None:
    from torch import nn

    from utils.models.adapters import inject_adapter

    model = nn.Module()
    model.layer = nn.Linear(8, 8)
    inject_adapter(model, "semantic", {"layer": (4, 1.0)})
    save_lora(model, "semantic", folder / "x", {})
    assert {lora.alpha for lora in read_lora(folder / "x").loras.values()} == {4.0}
    assert not [key for key in load_file(folder / "x") if "alpha" in key]
