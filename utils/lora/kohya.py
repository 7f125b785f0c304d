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
from utils.models.families import FAMILIES, LoraNames

HEADER = "kohya_parts"
"""Metadata key of the note: {stem: [[first, rank, alpha, low] or null for each part]}, as in `Place`."""

_PREFIX = "lora_unet_"
_ENDINGS = Endings(".lora_down.weight", ".lora_up.weight")


def claims(key: str) -> bool:
    """Whether a key looks like this layout's."""
    module = key.removeprefix(_PREFIX)
    return key.startswith(_PREFIX) and any(
        module.startswith((*names.original, *names.original_outside, *names.original_untrained))
        for names in _names()
    )


def encode(loras: Mapping[str, LinearLora]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by file key, and the note for the header; see formats.Format."""
    modules: dict[str, dict[int, LinearLora]] = {}
    faults = []

    # Which module each linear is a part of.
    for name, lora in loras.items():
        module, index = _module_of(name)
        if module is None:
            faults.append(f"{name} has no place in the kohya layout")
        else:
            modules.setdefault(module, {})[index] = lora

    # Modules of several linears are fused.
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
    """The LoRA of every linear by diffusers' name; see formats.Format."""

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


def _names() -> list[LoraNames]:
    """The names of every family that has an original code of its own."""
    return [family.lora for family in FAMILIES.values() if family.lora.original]


def _shares(linears: Sequence[str]) -> list[int]:
    """Outputs of fused linears, in units of the hidden size."""
    wider = {name: times for names in _names() for name, times in names.wider.items()}
    return [wider.get(name.rpartition(".")[2], 1) if len(linears) > 1 else 1 for name in linears]


def _linears_of(module: str) -> tuple[str, ...] | None:
    """double_blocks_0_img_attn_qkv -> its linears in diffusers; None for what is no module."""
    for names in _names():
        if module in names.original_outside:
            return (names.original_outside[module],)
        for block, (name, modules) in names.original.items():
            match = re.fullmatch(rf"{block}_(\d+)_(\w+)", module)
            if match and match[2] in modules:
                return tuple(f"{name}.{match[1]}.{linear}" for linear in modules[match[2]])
    return None


def _module_of(name: str) -> tuple[str | None, int]:
    """A linear's module, None if it has none, and which part of it the linear is."""
    for names in _names():
        for module, linear in names.original_outside.items():
            if linear == name:
                return module, 0
        for block, (kind, modules) in names.original.items():
            match = re.fullmatch(rf"{kind}\.(\d+)\.(.+)", name)
            for module, linears in modules.items() if match else ():
                if match and match[2] in linears:
                    return f"{block}_{match[1]}_{module}", linears.index(match[2])
    return None, 0


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
