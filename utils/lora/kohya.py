"""The layout of sd-scripts' networks.lora_flux, which older ComfyUI loaders read too.

It names the modules of FLUX's original code, where q, k and v (in single blocks also the MLP's input) are one
linear: utils/lora/fusing.py makes one LoRA of theirs and takes it apart again. The header notes the places of
the parts, so that reading back is lossless. CLIP's linears lie behind lora_te1_, T5's behind lora_te3_.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any

from torch import Tensor

from utils.lora.fusing import Place, fuse, swap_halves
from utils.lora.linear import MAX_ALPHA, MAX_RANK, Endings, LinearLora, Misfit
from utils.lora.names import UNET_PREFIX, original_module, shares, text_stem

HEADER = "kohya_parts"
"""Metadata key of the note: {stem: [[first, rank, alpha, low] or null for each part]}, as in `Place`."""

_ENDINGS = Endings(".lora_down.weight", ".lora_up.weight")


def encode(loras: Mapping[str, LinearLora]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by file key, and the note for the header; see formats.Format."""
    modules: dict[str, dict[str, LinearLora]] = {}
    linears: dict[str, tuple[str, ...]] = {}
    tensors: dict[str, Tensor] = {}
    faults = []

    # Which module each linear is a part of; text encoders' are modules of their own.
    for name, lora in loras.items():
        if own := text_stem(name):
            tensors |= _ENDINGS.tensors(own, lora)
            continue
        found = original_module(name)
        if found is None:
            faults.append(f"{name} has no place in the kohya layout")
            continue
        module, linears[module], swapped = found[0], found[1], found[2]
        rows = swap_halves(lora.weight_b) if swapped else lora.weight_b
        modules.setdefault(module, {})[name] = replace(lora, weight_b=rows)

    # Modules of several linears are fused.
    places_of = {}
    for module, present in modules.items():
        names, stem = linears[module], UNET_PREFIX + module
        if len(names) == 1:
            tensors |= _ENDINGS.tensors(stem, present[names[0]])
            continue
        try:
            fused, places = fuse([present.get(name) for name in names], shares(names))
        except Misfit as misfit:
            faults.append(f"{module}: {misfit}")
        else:
            tensors |= _ENDINGS.tensors(stem, fused)
            places_of[stem] = [place and astuple(place) for place in places]
    if faults:
        raise Misfit(faults)
    return tensors, {HEADER: json.dumps(places_of, separators=(",", ":"))} if places_of else {}


def notes(metadata: Mapping[str, str]) -> dict[str, list[Place | None]]:
    """The places in the header; raises Misfit for what is none."""
    try:
        found = json.loads(metadata.get(HEADER, "{}"))
        return {stem: [_place(entry) for entry in entries] for stem, entries in found.items()}
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
