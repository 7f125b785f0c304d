"""LoRA files as others' tools have them: their names, alphas, types and kinds; and ours for those tools."""

import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.mini_loras import change, random_lora
from tests.strangers import case
from utils.errors import UserError
from utils.lora.__main__ import main
from utils.lora.files import read_lora
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
