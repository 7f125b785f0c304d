"""A miniature FLUX with the real names, LoRAs on it, and how far two readings of a file are apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from utils.lora.linear import LinearLora
from utils.lora.names import original_module, shares

HIDDEN, BLOCKS = 16, 2

Changes = dict[str, Tensor]
"""Change of weight (out, in) at scale 1, float64, by the linear's name in diffusers."""


def transformer() -> Any:
    """diffusers' FLUX, two blocks of each kind, 16 wide."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=8,
        num_layers=BLOCKS,
        num_single_layers=BLOCKS,
        attention_head_dim=8,
        num_attention_heads=HIDDEN // 8,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    ).requires_grad_(False)


@cache
def linears() -> dict[str, tuple[int, int]]:
    """(out, in) of every linear."""
    found = transformer().named_modules()
    return {
        name: (each.out_features, each.in_features) for name, each in found if isinstance(each, nn.Linear)
    }


def loras(
    keep: Callable[[str], bool] = lambda name: True,
    rank: Callable[[int], int] = lambda number: 1 + number % 4,
    alpha: Callable[[int], float] = lambda number: (0.7, 1.0, 3.3)[number % 3],
) -> dict[str, LinearLora]:
    """Random LoRAs of the linears to keep, of the rank and alpha that their number says."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for number, (name, (out, width)) in enumerate(linears().items()):
        if keep(name):
            a, b = (
                torch.randn(shape, generator=generator)
                for shape in ((rank(number), width), (out, rank(number)))
            )
            made[name] = LinearLora(a, b, alpha(number))
    return made


def in_attention(name: str) -> bool:
    """Whether a linear is one that train_method full trains."""
    return ".attn." in name


def in_blocks(name: str) -> bool:
    """Whether a linear lies in a block."""
    return "blocks." in name


def changes(of: Mapping[str, LinearLora]) -> Changes:
    """What LoRAs change."""
    return {name: lora.scale * lora.weight_b.double() @ lora.weight_a.double() for name, lora in of.items()}


def worst(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> float:
    """Greatest difference of a linear's change, relative to its greatest number; inf if one is missing."""
    if {name for name, each in theirs.items() if each.any()} != {
        name for name, each in ours.items() if each.any()
    }:
        return float("inf")
    return max(((theirs[name] - each).abs().max() / each.abs().max()).item() for name, each in ours.items())


def originals() -> dict[str, tuple[str, ...]]:
    """Dotted modules of FLUX's original code -> the linears of each."""
    found = {}
    for name in linears():
        module = original_module(name)
        if module:
            found[dotted(module[0])] = module[1]
    return found


def dotted(module: str) -> str:
    """double_blocks_0_img_attn_qkv -> double_blocks.0.img_attn.qkv."""
    text = re.sub(r"^(double|single)_blocks_(\d+)_", r"\1_blocks.\2.", module)
    text = re.sub(r"((?:img|txt)_(?:attn|mlp|mod)|modulation|final_layer)_", r"\1.", text)
    return re.sub(r"_(in_layer|out_layer|1)$", r".\1", text)


def by_linear(of_modules: Mapping[str, Tensor]) -> Changes:
    """Changes of the original code's modules, by dotted or underscored name, shared out to the linears."""
    names = {module.replace(".", "_"): found for module, found in originals().items()}
    made: Changes = {}
    for module, change in of_modules.items():
        found = names[module.replace(".", "_")]
        unit = change.shape[0] // sum(shares(found))
        rows = change.double().split([share * unit for share in shares(found)])
        if found == ("norm_out.linear",):  # shift and scale there, scale and shift here
            rows = (torch.cat(rows[0].chunk(2)[::-1]),)
        made |= dict(zip(found, rows, strict=True))
    return made


class DoubleStreamBlock(nn.Module):
    """Of the original code, by name alone."""


class SingleStreamBlock(nn.Module):
    """Of the original code, by name alone."""


class Attention(nn.Module):
    """Of diffusers as the authors used it, by name alone."""


def tree(shapes: Mapping[str, tuple[int, int]], classes: Mapping[str, type[nn.Module]]) -> nn.Module:
    """Linears of zeros by dotted name, (out, in); modules whose name fits a pattern are of its class."""
    root = nn.Module()
    for name, (out, width) in shapes.items():
        at, path = root, ""
        for part in name.split(".")[:-1]:
            path = f"{path}.{part}".lstrip(".")
            if not hasattr(at, part):
                kind = next(
                    (each for pattern, each in classes.items() if re.fullmatch(pattern, path)), nn.Module
                )
                at.add_module(part, kind())
            at = getattr(at, part)
        linear = nn.Linear(width, out, bias=False)
        nn.init.zeros_(linear.weight)
        at.add_module(name.rpartition(".")[2], linear)
    return root


def original_tree() -> nn.Module:
    """The original code's modules, with the names of its classes."""
    shapes = {
        module: (sum(linears()[name][0] for name in found), linears()[found[0]][1])
        for module, found in originals().items()
    }
    blocks = {r"double_blocks\.\d+": DoubleStreamBlock, r"single_blocks\.\d+": SingleStreamBlock}
    return tree(shapes, blocks)
