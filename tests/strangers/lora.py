"""LoRA files as others' tools have them: their names, alphas, types and kinds; and ours for those tools."""

import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.mini_loras import assert_same, change, random_lora
from tests.strangers import case
from utils.errors import UserError
from utils.lora.__main__ import main
from utils.lora.files import read_lora, read_metadata, save_lora, write_lora
from utils.lora.folding import fold_alpha
from utils.lora.linear import LinearLora

QKV = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
OUT = "transformer_blocks.0.attn.to_out.0"
SINGLE = "single_transformer_blocks.0.proj_out"
A, B = torch.arange(24.0).reshape(3, 8) / 7, torch.arange(72.0).reshape(24, 3) / 5 - 3


def run(*arguments: str) -> str:
    """What a command prints."""
    said = StringIO()
    with redirect_stdout(said):
        main(arguments)
    return said.getvalue()


def refused(*arguments: str) -> str:
    """The error of a command, one line."""
    try:
        run(*arguments)
    except UserError as error:
        return str(error)
    raise AssertionError(f"expected {arguments} to be refused")


def given(alpha: float = 1.5, **more: LinearLora) -> dict[str, LinearLora]:
    generator = torch.Generator().manual_seed(1)
    return {name: random_lora(8, 8, 3, alpha, generator) for name in (*QKV, OUT, SINGLE)} | more


def close(name: str, read: Mapping[str, LinearLora], expected: Tensor) -> None:
    torch.testing.assert_close(change(read[name]), expected.double(), atol=1e-6, rtol=1e-6)


def file(path: Path, tensors: Mapping[str, Tensor], **header: str) -> Path:
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata=header or None)
    return path


# --- names ---

DOTTED, FLAT = "double_blocks.0.img_attn.qkv", "double_blocks_0_img_attn_qkv"
PEFT, KOHYA = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")


@case("the original code's names are read behind every prefix, and with either pair of endings")
def original_names(folder: Path) -> None:
    for stem in (
        *(f"{prefix}{DOTTED}" for prefix in ("", "diffusion_model.", "base_model.model.", "transformer.")),
        *(f"{prefix}{FLAT}" for prefix in ("lora_unet_", "lycoris_")),
    ):
        for a, b in (PEFT, KOHYA, (".lora.down.weight", ".lora.up.weight")):
            read = read_lora(
                file(folder / "x", {stem + a: A, stem + b: B, f"{stem}.alpha": torch.tensor(6.0)})
            )
            for name, rows in zip(QKV, (2 * B @ A).split(8), strict=True):
                close(name, read.loras, rows)


@case("diffusers' names are read behind every prefix, with dots, underscores and the name of an adapter")
def diffusers_names(folder: Path) -> None:
    flat = OUT.replace(".", "_")
    for stem in (
        *(f"{prefix}{OUT}" for prefix in ("", "transformer.", "diffusion_model.", "base_model.model.")),
        *(f"{prefix}{flat}" for prefix in ("lora_unet_", "lora_transformer_", "lycoris_")),
    ):
        for a, b in (
            PEFT,
            KOHYA,
            (".lora_A.default.weight", ".lora_B.default.weight"),
            (".lora_A", ".lora_B"),
        ):
            close(OUT, read_lora(file(folder / "x", {stem + a: A, stem + b: B[:8]})).loras, B[:8] @ A)


@case("XLabs' names are read")
def xlabs(folder: Path) -> None:
    tensors = {}
    for stem, rows in (
        ("double_blocks.0.processor.qkv_lora1", 24),
        ("single_blocks.0.processor.proj_lora", 8),
    ):
        tensors |= {f"{stem}.down.weight": A, f"{stem}.up.weight": B[:rows]}
    read = read_lora(file(folder / "x", tensors)).loras
    close(QKV[1], read, B[8:16] @ A)
    close(SINGLE, read, B[:8] @ A)


@case("the last layer is read, its halves in diffusers' order")
def last_layer(folder: Path) -> None:
    stem = "lora_unet_final_layer_adaLN_modulation_1"
    read = read_lora(file(folder / "x", {f"{stem}{KOHYA[0]}": A, f"{stem}{KOHYA[1]}": B[:16]})).loras
    close("norm_out.linear", read, torch.cat([B[8:16], B[:8]]) @ A)


@case("a linear under two names is refused, not taken from one of them")
def twice(folder: Path) -> None:
    tensors = {f"transformer.{OUT}{PEFT[0]}": A, f"transformer.{OUT}{PEFT[1]}": B[:8]}
    for stem in ("lora_unet_double_blocks_0_img_attn_proj", OUT):
        more = {f"{stem}{KOHYA[0]}": A, f"{stem}{KOHYA[1]}": B[:8]}
        assert "2 LoRAs" in refused("inspect", str(file(folder / "x", tensors | more)))


# --- alpha and types ---


@case("alpha is read in any number type, A and B in 8 bits too")
def types(folder: Path) -> None:
    stem = f"transformer.{OUT}"
    a, b = torch.ones(2, 8), torch.full((8, 2), 0.5)
    for alpha in (torch.tensor(1), torch.tensor([1], dtype=torch.uint8), torch.tensor(1.0).half()):
        read = read_lora(file(folder / "x", {stem + PEFT[0]: a, stem + PEFT[1]: b, f"{stem}.alpha": alpha}))
        close(OUT, read.loras, 0.5 * b @ a)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        read = read_lora(file(folder / "x", {stem + PEFT[0]: a.to(dtype), stem + PEFT[1]: b.to(dtype)}))
        close(OUT, read.loras, b @ a)


@case("alpha_pattern and use_rslora in the header count, and peft's own settings beside its file")
def peft_settings(folder: Path) -> None:
    tensors = {}
    for name in (OUT, SINGLE):
        tensors |= {f"transformer.{name}{PEFT[0]}": A, f"transformer.{name}{PEFT[1]}": B[:8]}
    config = {"transformer.lora_alpha": 6, "transformer.alpha_pattern": {"to_out.0": 3}}
    read = read_lora(file(folder / "x", tensors, lora_adapter_metadata=json.dumps(config))).loras
    close(OUT, read, B[:8] @ A)
    close(SINGLE, read, 2 * B[:8] @ A)
    config = {"transformer.lora_alpha": 6, "transformer.use_rslora": True}
    read = read_lora(file(folder / "x", tensors, lora_adapter_metadata=json.dumps(config))).loras
    close(OUT, read, 6 / 3**0.5 * B[:8] @ A)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 6}')
    own = {key.replace("transformer.", "base_model.model.", 1): each for key, each in tensors.items()}
    close(OUT, read_lora(file(folder / "adapter_model.safetensors", own)).loras, 2 * B[:8] @ A)


# --- what is no plain LoRA ---


@case("a text encoder's part is refused by name, and left out on request")
def text_encoder(folder: Path) -> None:
    write_lora(folder / "x", given(), "kohya", {})
    tensors = {**load_file(folder / "x"), "lora_te1_text_model_x.lora_down.weight": A}
    path = str(file(folder / "y", tensors))
    assert "--skip-text-encoder leaves it out" in refused("inspect", path)
    said = run("convert", path, str(folder / "z.safetensors"), "--to", "diffusers", "--skip-text-encoder")
    assert "left out: 1 tensors of a text encoder" in said
    assert len(read_lora(folder / "z.safetensors").loras) == 5


def adapters() -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Of q, k and v as one: what a file holds, and the change (24, 8) that it means on a base of ones."""
    generator = torch.Generator().manual_seed(4)
    a, b, c, d = (torch.randn(shape, generator=generator) for shape in ((24, 2), (2, 8), (24, 2), (2, 8)))
    w1, w2, m = (torch.randn(shape, generator=generator) for shape in ((6, 2), (4, 4), (24, 1)))
    weight = torch.ones(24, 8) + B @ A
    alpha = torch.tensor(1.0)
    return {
        "LoHa": (
            {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": alpha},
            0.5 * (a @ b) * (c @ d),
        ),
        "LoKr": ({"lokr_w1": w1, "lokr_w2": w2, "alpha": alpha}, torch.kron(w1, w2)),
        "full weight difference": ({"diff": a @ b, "diff_b": torch.ones(24)}, a @ b),
        "DoRA": (
            {"lora_down.weight": A, "lora_up.weight": B, "dora_scale": m},
            weight * m / weight.norm(dim=1, keepdim=True) - 1,
        ),
    }


@case("DoRA, LoKr, LoHa and full differences are refused by name, and become the nearest LoRA on request")
def other_adapters(folder: Path) -> None:
    base = {f"{name}.weight": torch.ones(8, 8) for name in QKV}
    file(folder / "diffusion_pytorch_model.safetensors", base)
    for kind, (parts, expected) in adapters().items():
        path = str(file(folder / "x", {f"lycoris_{FLAT}.{part}": each for part, each in parts.items()}))
        assert f"found {kind} (1 of 1)" in refused("inspect", path)
        out = folder / "y.safetensors"
        arguments = ("convert", path, str(out), "--to", "diffusers", "--force", "--base", str(folder))
        said = run(*arguments, "--rank", "8")
        assert ("bias" in said) == ("diff_b" in parts)
        for name, rows in zip(QKV, expected.split(8), strict=True):
            close(name, read_lora(out).loras, rows)
    assert "give --base FOLDER" in refused(*arguments[:-2], "--rank", "8")


# --- written ---


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
