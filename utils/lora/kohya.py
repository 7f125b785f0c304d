"""The layout of sd-scripts' networks.lora_flux, which older ComfyUI loaders read too.

It names the modules of FLUX's original code, where q, k and v (in single blocks also the MLP's input) are one
linear: utils/lora/fusing.py makes one LoRA of theirs and takes it apart again. The header notes the places of
the parts, so that reading back is lossless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from torch import Tensor

from utils.lora.fusing import Place, fuse, split
from utils.lora.linear import MAX_ALPHA, MAX_RANK, Endings, LinearLora, Misfit

HEADER = "kohya_parts"
"""Metadata key of the note: {stem: [[first, rank, alpha, low] or null for each part]}, as in `Place`."""

_PREFIX = "lora_unet_"
_ENDINGS = Endings(".lora_down.weight", ".lora_up.weight")

# kind of block -> (its name in diffusers, {module: linears in diffusers, in the order of their rows})
_BLOCKS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "double_blocks": (
        "transformer_blocks",
        {
            "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "img_attn_proj": ("attn.to_out.0",),
            "txt_attn_proj": ("attn.to_add_out",),
            "img_mlp_0": ("ff.net.0.proj",),
            "img_mlp_2": ("ff.net.2",),
            "txt_mlp_0": ("ff_context.net.0.proj",),
            "txt_mlp_2": ("ff_context.net.2",),
            "img_mod_lin": ("norm1.linear",),
            "txt_mod_lin": ("norm1_context.linear",),
        },
    ),
    "single_blocks": (
        "single_transformer_blocks",
        {
            "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
            "linear2": ("proj_out",),
            "modulation_lin": ("norm.linear",),
        },
    ),
}
# outside of blocks; sd-scripts has no LoRA for the final layer
_OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    **{
        f"{module}_{layer}": f"time_text_embed.{embedder}_embedder.linear_{number}"
        for module, embedder in (("time_in", "timestep"), ("guidance_in", "guidance"), ("vector_in", "text"))
        for number, layer in ((1, "in_layer"), (2, "out_layer"))
    },
}
_MODULES = {
    (name, linear): (block, module, index)
    for block, (name, modules) in _BLOCKS.items()
    for module, linears in modules.items()
    for index, linear in enumerate(linears)
}
_LIKELY = re.compile(
    rf"{_PREFIX}(double_blocks|single_blocks|img_in|txt_in|\w+_in_(in|out)_layer|final_layer)"
)


def claims(key: str) -> bool:
    """Whether a key looks like this layout's."""
    return _LIKELY.match(key) is not None


def encode(loras: Mapping[str, LinearLora]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by file key, and the note for the header; see lora_formats.Format."""
    modules: dict[str, dict[int, LinearLora]] = {}
    faults = []
    for name, lora in loras.items():
        module, index = _module_of(name)
        if module is None:
            faults.append(f"{name} has no place in the kohya layout")
        else:
            modules.setdefault(module, {})[index] = lora
    tensors: dict[str, Tensor] = {}
    notes = {}
    for module, present in modules.items():
        shares, stem = _shares(_linears_of(module) or ()), _PREFIX + module
        if len(shares) == 1:
            tensors |= _ENDINGS.tensors(stem, present[0])
            continue
        try:
            fused, places = fuse([present.get(index) for index in range(len(shares))], shares)
        except Misfit as misfit:
            faults.append(f"{module}: {misfit}")
        else:
            tensors |= _ENDINGS.tensors(stem, fused)
            notes[stem] = [place and astuple(place) for place in places]
    if faults:
        raise Misfit(faults)
    return tensors, {HEADER: json.dumps(notes, separators=(",", ":"))} if notes else {}


def decode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, LinearLora]:
    """The LoRA of every linear by diffusers' name; see lora_formats.Format."""

    def module_of(stem: str) -> str | None:
        module = stem.removeprefix(_PREFIX)
        return module if stem.startswith(_PREFIX) and _linears_of(module) else None

    notes = _notes(metadata)
    loras: dict[str, LinearLora] = {}
    faults = []
    for module, fused in _ENDINGS.gather(tensors, module_of).items():
        linears = _linears_of(module) or ()
        shares = _shares(linears)
        if fused.shape[0] % sum(shares):
            faults.append(f"{module} of {fused.shape[0]} outputs where a multiple of {sum(shares)} fits")
            continue
        parts = [fused] if len(shares) == 1 else split(fused, shares, notes.get(_PREFIX + module))
        loras |= {name: part for name, part in zip(linears, parts, strict=True) if part is not None}
    if faults:
        raise Misfit(faults)
    return loras


def _shares(linears: Sequence[str]) -> list[int]:
    """Outputs of fused linears, in units of the hidden size: FLUX's MLP is four times as wide."""
    fused = len(linears) > 1
    return [4 if fused and name.endswith(".proj_mlp") else 1 for name in linears]


def _linears_of(module: str) -> tuple[str, ...] | None:
    """double_blocks_0_img_attn_qkv -> its linears in diffusers; None for what is no module."""
    match = re.fullmatch(r"(double_blocks|single_blocks)_(\d+)_(\w+)", module)
    if match is None:
        return (_OUTSIDE[module],) if module in _OUTSIDE else None
    block, number, rest = match.groups()
    name, modules = _BLOCKS[block]
    return tuple(f"{name}.{number}.{linear}" for linear in modules[rest]) if rest in modules else None


def _module_of(name: str) -> tuple[str | None, int]:
    """A linear's module, None if it has none, and which part of it the linear is."""
    match = re.fullmatch(r"((?:single_)?transformer_blocks)\.(\d+)\.(.+)", name)
    if match is None:
        return next((module for module, linear in _OUTSIDE.items() if linear == name), None), 0
    kind, number, linear = match.groups()
    if (kind, linear) not in _MODULES:
        return None, 0
    block, module, index = _MODULES[kind, linear]
    return f"{block}_{number}_{module}", index


def _notes(metadata: Mapping[str, str]) -> dict[str, list[Place | None]]:
    """The places in the header; raises Misfit for what is none."""
    try:
        notes = json.loads(metadata.get(HEADER, "{}"))
        return {stem: [_place(entry) for entry in entries] for stem, entries in notes.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Misfit([f"{HEADER} in its header is damaged: {error}"]) from None


def _place(entry: Any) -> Place | None:
    if entry is None:
        return None
    first, rank, alpha, low = entry
    counts = [first, rank, *([] if low is None else [low])]
    sane = all(type(count) is int and 0 <= count <= len(entry) * MAX_RANK for count in counts)
    if not sane or rank == 0 or not (isinstance(alpha, int | float) and abs(alpha) <= MAX_ALPHA):
        raise ValueError(f"place {entry}")
    return Place(first, rank, float(alpha), low)
