"""LoRAs on the miniature transformer, and its output, for tests of LoRA files and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from utils.flow.mixes import Mix
from utils.lora.linear import LinearLora
from utils.lora.names import text_encoders
from utils.models.adapters import linear_layers, use_mixes
from utils.models.base import Base

SCALES = [0.5, 1.0, -1.0]


def fresh(mini_flux: Path) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(mini_flux, subfolder="transformer").requires_grad_(False)


def forward(transformer: nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The velocity of two random latents, the same ones every time."""
    generator = torch.Generator().manual_seed(1)
    return transformer(
        hidden_states=torch.randn(2, 4, 64, generator=generator).to(dtype),
        encoder_hidden_states=torch.randn(2, 5, 24, generator=generator).to(dtype),
        pooled_projections=torch.randn(2, 20, generator=generator).to(dtype),
        timestep=torch.tensor([0.3, 0.8]),
        guidance=torch.tensor([3.5, 3.5]),
        img_ids=torch.zeros(4, 3),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


def use_adapters(
    transformer: nn.Module, scales: Mapping[str, float], train: Sequence[str] = ()
) -> AbstractContextManager[None]:
    """Inside, these adapters act on the whole batch."""
    return use_mixes(transformer, [Mix(scales, tuple(train))])


def outputs(transformer: nn.Module, name: str) -> list[torch.Tensor]:
    """At each of SCALES."""
    results = []
    for scale in SCALES:
        with use_adapters(transformer, {name: scale}):
            results.append(forward(transformer))
    return results


def random_lora(out: int, width: int, rank: int, alpha: float, generator: torch.Generator) -> LinearLora:
    matrices = [torch.randn(shape, generator=generator) * 0.1 for shape in ((rank, width), (out, rank))]
    return LinearLora(*matrices, alpha)


def block_loras(transformer: nn.Module, among: str = "blocks.") -> dict[str, LinearLora]:
    """On every linear in blocks, or whose name has `among` in it; ranks 1 to 4, alpha / rank of all sorts."""
    generator = torch.Generator().manual_seed(3)
    linears = {name: linear for name, linear in linear_layers(transformer).items() if among in name}
    return {
        name: random_lora(
            linear.out_features, linear.in_features, 1 + index % 4, (0.7, 1.0, 3.3)[index % 3], generator
        )
        for index, (name, linear) in enumerate(linears.items())
    }


def text_loras(base: Base, *parts: str, alphas: Sequence[float] = (0.75, 1.0, 3.25)) -> dict[str, LinearLora]:
    """On every linear of text encoders; ranks 1 to 3, alphas in turn."""
    generator = torch.Generator().manual_seed(5)
    loras = {}
    for part in parts:
        for index, (name, linear) in enumerate(linear_layers(base.part(part)).items()):
            shape = (linear.out_features, linear.in_features, 1 + index % 3)
            alpha = alphas[index % len(alphas)]
            loras[text_encoders()[part].full_name(name)] = random_lora(*shape, alpha, generator)
    return loras


def change(lora: LinearLora) -> torch.Tensor:
    """alpha / rank B A, in float64."""
    return lora.alpha / lora.rank * lora.weight_b.double() @ lora.weight_a.double()


def assert_same(left: dict[str, LinearLora], right: dict[str, LinearLora]) -> None:
    """Bit for bit, dtypes and alphas too."""
    assert left.keys() == right.keys()
    for name, mine in left.items():
        other = right[name]
        assert mine.alpha == other.alpha, name
        for one, two in ((mine.weight_a, other.weight_a), (mine.weight_b, other.weight_b)):
            assert one.dtype == two.dtype
            assert torch.equal(one, two), name
