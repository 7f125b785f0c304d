"""LoRA files for FLUX.2, whose original code has modules called as FLUX.1's, of other sizes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.mini_loras import change, random_lora
from tests.strangers import case
from utils.config.schema import Config
from utils.errors import UserError
from utils.jobs.prepare import check_fits
from utils.lora.files import read_lora, write_lora
from utils.lora.reading import sort_tensors
from utils.models.families import FAMILIES

OF_FLUX2 = {  # module of the original code -> (outputs, inputs), diffusers' linear
    "single_blocks.0.linear1": ((72, 8), "single_transformer_blocks.0.attn.to_qkv_mlp_proj"),
    "single_blocks.0.linear2": ((8, 32), "single_transformer_blocks.0.attn.to_out"),
    "double_blocks.0.img_mlp.0": ((48, 8), "transformer_blocks.0.ff.linear_in"),
    "double_blocks.0.txt_mlp.2": ((8, 24), "transformer_blocks.0.ff_context.linear_out"),
    "double_blocks.0.img_attn.proj": ((8, 8), "transformer_blocks.0.attn.to_out.0"),
    "single_stream_modulation.lin": ((24, 8), "single_stream_modulation.linear"),
}
OF_FLUX1 = {
    "single_blocks.0.linear2": ((8, 40), "single_transformer_blocks.0.proj_out"),
    "double_blocks.0.img_mlp.0": ((32, 8), "transformer_blocks.0.ff.net.0.proj"),
    "double_blocks.0.txt_mlp.2": ((8, 32), "transformer_blocks.0.ff_context.net.2"),
}


def tensors_of(sizes: Mapping[str, tuple[int, int]], a: str, b: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for stem, (outputs, inputs) in sizes.items():
        tensors[stem + a] = torch.randn(2, inputs, generator=generator)
        tensors[stem + b] = torch.randn(outputs, 2, generator=generator)
    return tensors


@case("the original code's names are a family's own linears by their sizes, alone and together")
def by_size(folder: Path) -> None:
    for modules in (OF_FLUX2, OF_FLUX1, *({name: own} for name, own in {**OF_FLUX1, **OF_FLUX2}.items())):
        for prefix, flat, endings in (
            ("diffusion_model.", False, (".lora_A.weight", ".lora_B.weight")),
            ("lora_unet_", True, (".lora_down.weight", ".lora_up.weight")),
        ):
            named = {
                prefix + (name.replace(".", "_") if flat else name): size
                for name, (size, _) in modules.items()
            }
            tensors = tensors_of(named, *endings)
            save_file(tensors, folder / "x.safetensors")
            read = read_lora(folder / "x.safetensors").loras
            for stem, (_, linear) in zip(named, modules.values(), strict=True):
                expected = tensors[stem + endings[1]].double() @ tensors[stem + endings[0]].double()
                torch.testing.assert_close(change(read[linear]), expected)


@case("a module of no size of its own goes by the others of its file")
def by_neighbours(folder: Path) -> None:
    tensors = {
        "lycoris_single_blocks_0_linear2.oft_blocks": torch.zeros(1),
        "lycoris_double_stream_modulation_img_lin.oft_blocks": torch.zeros(1),
    }
    adapters = sort_tensors(tensors).adapters
    found = adapters["lycoris_single_blocks_0_linear2"].module.linears
    assert found == ("single_transformer_blocks.0.attn.to_out",)


@case("LoKr, LoHa and full differences say a family, too, by their factors")
def other_kinds(folder: Path) -> None:
    for parts in (
        {"lokr_w1": (9, 2), "lokr_w2": (8, 4)},
        {"lokr_w1_a": (9, 3), "lokr_w1_b": (3, 2), "lokr_w2_a": (8, 1), "lokr_w2_b": (1, 4)},
        {"hada_w1_a": (72, 2), "hada_w1_b": (2, 8), "hada_w2_a": (72, 2), "hada_w2_b": (2, 8)},
        {"diff": (72, 8)},
    ):
        stem = "diffusion_model.single_blocks.0.linear1"
        adapters = sort_tensors(
            {f"{stem}.{part}": torch.zeros(size) for part, size in parts.items()}
        ).adapters
        assert adapters[stem].module.linears == ("single_transformer_blocks.0.attn.to_qkv_mlp_proj",)


@case("written in any format, a LoRA of FLUX.2 is read back as it was")
def round_trip(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    qkv = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v", "add_q_proj")]
    sizes = {linear: size for size, linear in OF_FLUX2.values()} | dict.fromkeys(qkv, (8, 8))
    loras = {
        linear: random_lora(outputs, inputs, 2, 2.0, generator) for linear, (outputs, inputs) in sizes.items()
    }
    for name, suffix in (("diffusers", ".safetensors"), ("kohya", ".safetensors"), ("reference", ".pt")):
        path = folder / f"{name}{suffix}"
        write_lora(path, loras, name, {})
        read = read_lora(path).loras
        assert read.keys() == loras.keys()
        for linear, lora in loras.items():
            torch.testing.assert_close(change(read[linear]), change(lora))


@case("what a base's text encoder can't learn is told before anything is loaded")
def text_that_learns(folder: Path) -> None:
    for keys in ({"new_token": "<new1>"}, {"text_rank": 2}):
        check_fits(replace(Config(), **keys), FAMILIES["flux1"])
        try:
            check_fits(replace(Config(), **keys), FAMILIES["flux2"])
        except UserError as error:
            said = str(error)
        assert said.startswith(
            f"{next(iter(keys))}: expected a base whose text encoders can learn, such as of FluxPipeline"
        )
        assert said.endswith("found Flux2KleinPipeline")
