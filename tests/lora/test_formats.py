"""The formats: foreign loaders give the same output; round trips to the bit; foreign files; strange names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.mini_loras import SCALES, assert_same, block_loras, change, forward, fresh, outputs, random_lora
from utils.errors import UserError
from utils.lora.files import load_lora, read_lora, write_lora
from utils.lora.linear import LinearLora
from utils.models.adapters import linear_layers

DOUBLE, SINGLE = "transformer_blocks.0.", "single_transformer_blocks.1."


@pytest.fixture
def transformer(mini_flux) -> nn.Module:
    return fresh(mini_flux)


def ours(transformer: nn.Module, path: Path) -> list[Tensor]:
    load_lora(transformer, path, "edit")
    return outputs(transformer, "edit")


def assert_close(mine: list[Tensor], theirs: list[Tensor], bare: Tensor) -> None:
    worst = max((one - two).abs().max().item() for one, two in zip(mine, theirs, strict=True))
    assert worst <= 1e-5
    assert min((one - bare).abs().max().item() for one in mine) > 1e-3


def stock_outputs(mini_flux: Path, path: Path) -> list[Tensor]:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(mini_flux)
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="edit")
    results = []
    for scale in SCALES:
        pipeline.set_adapters("edit", scale)
        results.append(forward(pipeline.transformer))
    return results


# --- foreign loaders ---


def test_stock_diffusers_loads_the_diffusers_format(transformer, mini_flux, tmp_path):
    path = tmp_path / "edit.safetensors"
    write_lora(path, block_loras(transformer), "diffusers", {"dataset": "glasses"})
    bare = forward(transformer)
    assert_close(ours(transformer, path), stock_outputs(mini_flux, path), bare)


def test_the_reference_format_by_its_definition(transformer, mini_flux, tmp_path):
    """A loader of a few lines: W + scale * alpha / rank * up @ down on lora_unet_{name with underscores}."""
    write_lora(tmp_path / "edit.pt", block_loras(transformer), "reference", {})
    state = torch.load(tmp_path / "edit.pt", weights_only=True)
    assert "lora_unet_transformer_blocks_1_attn_to_out_0.lora_up.weight" in state
    theirs = []
    for scale in SCALES:
        foreign = fresh(mini_flux)
        for name, linear in linear_layers(foreign).items():
            flat = "lora_unet_" + name.replace(".", "_")
            if f"{flat}.alpha" in state:
                linear.weight.data += scale * delta(state, flat)
        theirs.append(forward(foreign))
    bare = forward(transformer)
    assert_close(ours(transformer, tmp_path / "edit.pt"), theirs, bare)


def delta(state: dict[str, Tensor], module: str) -> Tensor:
    down, up = state[f"{module}.lora_down.weight"], state[f"{module}.lora_up.weight"]
    return state[f"{module}.alpha"] / down.shape[0] * up @ down


def original_modules(transformer: nn.Module) -> dict[str, list[str]]:
    """FLUX's own modules -> the diffusers linears stacked in them, in order."""
    modules = {}
    for index in range(2):
        block = f"transformer_blocks.{index}"
        streams = {
            "img": ("to_q to_k to_v", "to_out.0", "ff", "norm1"),
            "txt": ("add_q_proj add_k_proj add_v_proj", "to_add_out", "ff_context", "norm1_context"),
        }
        for stream, (qkv, proj, ff, norm) in streams.items():
            start = f"double_blocks_{index}_{stream}"
            modules[f"{start}_attn_qkv"] = [f"{block}.attn.{name}" for name in qkv.split()]
            modules[f"{start}_attn_proj"] = [f"{block}.attn.{proj}"]
            modules[f"{start}_mlp_0"] = [f"{block}.{ff}.net.0.proj"]
            modules[f"{start}_mlp_2"] = [f"{block}.{ff}.net.2"]
            modules[f"{start}_mod_lin"] = [f"{block}.{norm}.linear"]
        single, start = f"single_{block}", f"single_blocks_{index}"
        names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        modules[f"{start}_linear1"] = [f"{single}.{name}" for name in names]
        modules[f"{start}_linear2"] = [f"{single}.proj_out"]
        modules[f"{start}_modulation_lin"] = [f"{single}.norm.linear"]
    return modules


def kohya_outputs(mini_flux: Path, path: Path) -> list[Tensor]:
    """By definition: stack the base's weights as FLUX's own code does, add the change, take them apart."""
    state = load_file(path)
    results = []
    for scale in SCALES:
        foreign = fresh(mini_flux)
        linears = linear_layers(foreign)
        for module, names in original_modules(foreign).items():
            weights = [linears[name].weight.data for name in names]
            fused = torch.cat(weights)
            if f"lora_unet_{module}.alpha" in state:
                fused = fused + scale * delta(state, f"lora_unet_{module}")
            for weight, changed in zip(weights, fused.split([len(rows) for rows in weights]), strict=True):
                weight.copy_(changed)
        results.append(forward(foreign))
    return results


@pytest.mark.parametrize("among", ["blocks.", ".attn.", ".to_k", ".proj_mlp"])
def test_the_kohya_format_by_its_definition(transformer, mini_flux, tmp_path, among):
    path = tmp_path / "edit.safetensors"
    write_lora(path, block_loras(transformer, among), "kohya", {})
    modules = {f"lora_unet_{module}" for module in original_modules(transformer)}
    assert {key.split(".")[0] for key in load_file(path)} <= modules
    bare = forward(transformer)
    assert_close(ours(transformer, path), kohya_outputs(mini_flux, path), bare)


def test_stock_diffusers_loads_the_kohya_format(transformer, mini_flux, tmp_path):
    """Double blocks: of single ones it knows FLUX.1's width alone."""
    path = tmp_path / "edit.safetensors"
    loras = block_loras(transformer)
    write_lora(path, {name: lora for name, lora in loras.items() if "single" not in name}, "kohya", {})
    bare = forward(transformer)
    assert_close(ours(transformer, path), stock_outputs(mini_flux, path), bare)


@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (1, 3, 2, 4)])
def test_stock_diffusers_reads_single_blocks_of_flux_width(tmp_path, ranks):
    from diffusers import FluxPipeline

    generator = torch.Generator().manual_seed(0)
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    loras = {
        SINGLE + name: random_lora(12288 if "mlp" in name else 3072, 3072, rank, rank / 2, generator)
        for name, rank in zip(names, ranks, strict=True)
    }
    write_lora(tmp_path / "x.safetensors", loras, "kohya", {})
    state = FluxPipeline.lora_state_dict(tmp_path / "x.safetensors")
    probe = torch.randn(3072, generator=generator)
    for name, lora in loras.items():
        weight_a, weight_b = (state[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        expected = lora.scale * lora.weight_b @ (lora.weight_a @ probe)
        torch.testing.assert_close(weight_b @ (weight_a @ probe), expected, atol=1e-5, rtol=1e-5)


# --- round trips ---


@pytest.mark.parametrize(
    "order",
    [
        ("diffusers", "kohya", "diffusers"),
        ("diffusers", "reference", "diffusers"),
        ("kohya", "reference", "kohya", "diffusers", "reference"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trips_are_exact_to_the_bit(transformer, tmp_path, order, dtype):
    """Ranks and alpha / rank differ between the parts of a fused linear; names of files say nothing."""
    generator = torch.Generator().manual_seed(2)
    loras = {
        name: LinearLora(lora.weight_a.to(dtype), lora.weight_b.to(dtype), lora.alpha)
        for name, lora in block_loras(transformer).items()
        if torch.rand((), generator=generator) < 0.7
    }
    current = loras
    for number, kind in enumerate(order):
        write_lora(tmp_path / f"{number}.bin", current, kind, {})
        file = read_lora(tmp_path / f"{number}.bin")
        assert file.format == kind
        current = file.loras
    expected = read_alphas_as_float32(loras)
    if dtype == torch.bfloat16:  # where a ratio is folded in, the file is float32; the values are the same
        current, expected = (in_float32(each) for each in (current, expected))
    assert_same(current, expected)


def read_alphas_as_float32(loras: dict[str, LinearLora]) -> dict[str, LinearLora]:
    """Files hold alpha as float32, so that 0.7 comes back as its neighbour."""
    alphas = {name: torch.tensor(lora.alpha).item() for name, lora in loras.items()}
    return {name: LinearLora(lora.weight_a, lora.weight_b, alphas[name]) for name, lora in loras.items()}


def in_float32(loras: dict[str, LinearLora]) -> dict[str, LinearLora]:
    return {
        name: LinearLora(lora.weight_a.float(), lora.weight_b.float(), lora.alpha)
        for name, lora in loras.items()
    }


def some(**ranks: int) -> dict[str, LinearLora]:
    """On projections of one double block, alpha / rank the same for all."""
    generator = torch.Generator().manual_seed(5)
    return {
        f"{DOUBLE}attn.{name}": random_lora(8, 8, rank, 0.5 * rank, generator) for name, rank in ranks.items()
    }


@pytest.mark.parametrize("loras", [some(to_q=2, to_k=2, to_v=2), some(to_q=1, to_v=3), some(to_k=3)])
def test_structure_alone_gives_the_parts_back(tmp_path, loras):
    write_lora(tmp_path / "with", loras, "kohya", {})
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    assert_same(read_lora(tmp_path / "without").loras, loras)


@pytest.mark.parametrize("names", [("to_q", "to_k", "to_v"), ("to_q", "to_v"), ("add_k_proj",)])
def test_a_fresh_lora_whose_b_is_zero(tmp_path, names):
    loras = {
        name: LinearLora(lora.weight_a, torch.zeros_like(lora.weight_b), lora.alpha)
        for name, lora in some(**dict.fromkeys(names, 2)).items()
    }
    write_lora(tmp_path / "with", loras, "kohya", {})
    assert_same(read_lora(tmp_path / "with").loras, loras)
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    assert all((change(lora) == 0).all() for lora in read_lora(tmp_path / "without").loras.values())


def test_columns_of_zeros_without_a_note(tmp_path):
    """No part's: they go along and do nothing."""
    loras = some(to_q=1, to_v=3)
    loras[f"{DOUBLE}attn.to_v"].weight_b[:, 1] = 0
    write_lora(tmp_path / "with", loras, "kohya", {})
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    read = read_lora(tmp_path / "without").loras
    assert read.keys() == loras.keys()
    assert all(torch.allclose(change(read[name]), change(lora)) for name, lora in loras.items())


# --- foreign kohya files ---


def dense_file(path: Path, alpha: float | None) -> dict[str, Tensor]:
    """q, k, v and the MLP trained as one, as sd-scripts does unless told to split them."""
    generator = torch.Generator().manual_seed(9)
    tensors = {}
    for stem, out in (
        ("lora_unet_double_blocks_0_img_attn_qkv", 24),
        ("lora_unet_single_blocks_1_linear1", 56),
    ):
        tensors[f"{stem}.lora_down.weight"] = torch.randn(3, 8, generator=generator)
        tensors[f"{stem}.lora_up.weight"] = torch.randn(out, 3, generator=generator)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata={"ss_network_dim": "3"})
    return tensors


@pytest.mark.parametrize("alpha", [1.0, None])
def test_a_dense_foreign_file(tmp_path, alpha):
    """Its parts share A, each with its rows of B; and back, it is the same file again."""
    tensors = dense_file(tmp_path / "foreign", alpha)
    file = read_lora(tmp_path / "foreign")
    assert (file.format, file.metadata) == ("kohya", {"ss_network_dim": "3"})
    rows = {DOUBLE: [8, 8, 8], SINGLE: [8, 8, 8, 32]}
    for block, stem in ((DOUBLE, "double_blocks_0_img_attn_qkv"), (SINGLE, "single_blocks_1_linear1")):
        names = [*(f"{block}attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{SINGLE}proj_mlp"]
        ups = tensors[f"lora_unet_{stem}.lora_up.weight"].split(rows[block])
        for name, up in zip(names, ups, strict=False):
            lora = file.loras[name]
            assert lora.alpha == (alpha or 3)
            assert torch.equal(lora.weight_a, tensors[f"lora_unet_{stem}.lora_down.weight"])
            assert torch.equal(lora.weight_b, up)
    assert len(file.loras) == 7
    write_lora(tmp_path / "x.pt", file.loras, "reference", {})
    write_lora(tmp_path / "back", read_lora(tmp_path / "x.pt").loras, "kohya", {})
    again = load_file(tmp_path / "back")
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


def test_a_note_that_no_longer_holds_is_passed_over(tmp_path):
    """Someone changed alpha, or trained on: the matrices count."""
    loras = some(to_q=2, to_k=2, to_v=2)
    write_lora(tmp_path / "x", loras, "kohya", {})
    with safe_open(tmp_path / "x", framework="pt") as file:
        header = file.metadata()
    for key, value in {
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(6.0),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(24, 6),
    }.items():
        tensors = {**load_file(tmp_path / "x"), key: value}
        save_file(tensors, tmp_path / "changed", metadata=header)
        read = read_lora(tmp_path / "changed").loras
        whole = torch.cat([change(lora) for lora in read.values()]).float()
        torch.testing.assert_close(whole, delta(tensors, "lora_unet_double_blocks_0_img_attn_qkv"))


@pytest.mark.parametrize(
    "note",
    ["{", "[1]", '{"x": 3}', '{"x": [3]}', '{"x": [[0, 0, 1, null]]}', '{"x": [[0, 1, "a", null]]}'],
)
def test_a_damaged_note(tmp_path, note):
    write_lora(tmp_path / "x", some(to_q=2), "kohya", {})
    save_file(load_file(tmp_path / "x"), tmp_path / "bad", metadata={"kohya_parts": note})
    with pytest.raises(UserError, match="kohya_parts in its header is damaged"):
        read_lora(tmp_path / "bad")


# --- names and sizes ---


def test_every_linear_of_flux_has_a_place(transformer, tmp_path):
    loras = block_loras(transformer, "")
    write_lora(tmp_path / "x", loras, "reference", {})
    assert_same(read_lora(tmp_path / "x").loras, read_alphas_as_float32(loras))
    left = {"norm_out.linear", "proj_out"}
    loras = {name: lora for name, lora in loras.items() if name not in left}
    write_lora(tmp_path / "x", loras, "kohya", {})
    assert read_lora(tmp_path / "x").loras.keys() == loras.keys()


@pytest.mark.parametrize("kind", ["kohya", "reference"])
def test_names_without_a_place(tmp_path, kind):
    lora = some(to_q=1)[f"{DOUBLE}attn.to_q"]
    loras = {f"{DOUBLE}attn.to_q": lora, "blocks.0.nowhere": lora, f"{DOUBLE}attn.to_x": lora}
    message = rf"found: blocks\.0\.nowhere has no place .*; {DOUBLE}attn\.to_x has no place in the {kind}"
    with pytest.raises(UserError, match=message):
        write_lora(tmp_path / "x", loras, kind, {})
    write_lora(tmp_path / "x", loras, "diffusers", {})
    assert_same(read_lora(tmp_path / "x").loras, loras)


def test_parts_whose_sizes_do_not_go_together(tmp_path):
    loras = some(to_q=1)
    generator = torch.Generator().manual_seed(0)
    loras[f"{DOUBLE}attn.to_k"] = random_lora(9, 8, 1, 1.0, generator)
    with pytest.raises(UserError, match="double_blocks_0_img_attn_qkv: parts of shapes"):
        write_lora(tmp_path / "x", loras, "kohya", {})
    mlp = {f"{SINGLE}proj_mlp": random_lora(9, 8, 1, 1.0, generator)}
    with pytest.raises(UserError, match=r"linear1: parts of shapes \(9, 8\)"):
        write_lora(tmp_path / "x", mlp, "kohya", {})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_te1_text_model_x.lora_down.weight", "lora_te1_text_model_x.* is of a text encoder"),
        ("lora_unet_double_blocks_0_img_nothing.lora_up.weight", "img_nothing.* matches no linear of FLUX"),
        ("lora_unet_final_layer_linear.alpha", "final_layer_linear.alpha matches no linear"),
        ("lora_unet_transformer_blocks_0_attn_to_q.alpha", "to_q.alpha matches no linear"),
        ("lora_unet_double_blocks_0_img_attn_qkv.dora_scale", "dora_scale matches no linear"),
    ],
)
def test_keys_that_the_kohya_layout_lacks(tmp_path, key, message):
    tensors = dense_file(tmp_path / "foreign", 1.0)
    save_file({**tensors, key: torch.zeros(2, 2)}, tmp_path / "bad")
    with pytest.raises(UserError, match=message):
        read_lora(tmp_path / "bad")


def test_rows_that_cannot_be_shared_out(tmp_path):
    tensors = dense_file(tmp_path / "foreign", 1.0)
    tensors["lora_unet_single_blocks_1_linear1.lora_up.weight"] = torch.ones(55, 3)
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(UserError, match="linear1 of 55 outputs where a multiple of 7 fits"):
        read_lora(tmp_path / "bad")
