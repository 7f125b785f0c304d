"""The layouts of LoRA files: how each names and packs the LoRA of every linear. No model is needed for any.

    diffusers   transformer.LINEAR.lora_A.weight (rank, in), .lora_B.weight (out, rank), .alpha
                Loads in stock FluxPipeline.load_lora_weights and in ComfyUI, alpha included.
    kohya       lora_unet_MODULE.lora_down.weight (rank, in), .lora_up.weight (out, rank), .alpha, with the
                modules of FLUX's original code, q, k and v fused: sd-scripts' own; utils/lora/kohya.py.
    reference   lora_unet_LINEAR.lora_down.weight, .lora_up.weight, .alpha, with the dots of LINEAR as
                underscores, a torch state dict (.pt): what the authors' implementation writes and reads.

LINEAR is a linear's dotted name in diffusers. Which layout a file has, its keys tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from utils.errors import UserError, nearest
from utils.lora import kohya
from utils.lora.linear import MAX_ALPHA, Endings, LinearLora, Misfit
from utils.models.families import FAMILIES

_DIFFUSERS_PREFIX = "transformer."
_DIFFUSERS_CONFIG = "lora_adapter_metadata"
_DIFFUSERS = Endings(".lora_A.weight", ".lora_B.weight")
_REFERENCE_PREFIX = "lora_unet_"
_REFERENCE = Endings(".lora_down.weight", ".lora_up.weight")

Encoded = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by file key, and what the header must say for them to be read back as they were."""


@dataclass(frozen=True)
class Format:
    """One layout.

    Attributes:
        safetensors: the file is a .safetensors, whose header takes metadata; else a torch .pt.
        claims: whether a key looks like this layout's.
        encode: {linear: LoRA} -> Encoded; raises Misfit naming the linears it has no place for.
        decode: tensors by file key, the header's metadata -> {linear: LoRA}; raises Misfit for every fault.
        header: keys of the metadata that are this layout's own, not the user's.
    """

    safetensors: bool
    claims: Callable[[str], bool]
    encode: Callable[[Mapping[str, LinearLora]], Encoded]
    decode: Callable[[Mapping[str, Tensor], Mapping[str, str]], dict[str, LinearLora]]
    header: tuple[str, ...] = ()


def format_named(name: str) -> Format:
    """The format of a name; raises `UserError`, naming those there are."""
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"format: expected one of {known}, found {name}{nearest(name, FORMATS)}")
    return FORMATS[name]


def recognise(keys: Iterable[str]) -> str:
    """Name of the format that most of a file's keys look like.

    Raises:
        Misfit: if none looks like any.
    """
    keys = list(keys)
    claimed = {name: sum(map(layout.claims, keys)) for name, layout in FORMATS.items()}
    best = max(claimed, key=lambda name: claimed[name])
    if not claimed[best]:
        raise Misfit([f"{key} matches no linear of a base" for key in keys] or ["no tensors"])
    return best


def _encode_diffusers(loras: Mapping[str, LinearLora]) -> Encoded:
    tensors: dict[str, Tensor] = {}
    for name, lora in loras.items():
        tensors |= _DIFFUSERS.tensors(_DIFFUSERS_PREFIX + name, lora)
    return tensors, {}


def _decode_diffusers(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, LinearLora]:
    def name_of(stem: str) -> str | None:
        return stem.removeprefix(_DIFFUSERS_PREFIX) if stem.startswith(_DIFFUSERS_PREFIX) else None

    return _DIFFUSERS.gather(tensors, name_of, _header_alpha(metadata))


def _header_alpha(metadata: Mapping[str, str]) -> float | None:
    """lora_alpha from the LoraConfig that newer diffusers writes into the header, if it is there."""
    if _DIFFUSERS_CONFIG not in metadata:
        return None
    try:
        config = json.loads(metadata[_DIFFUSERS_CONFIG])
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Misfit([f"{_DIFFUSERS_CONFIG} in its header is no JSON object"])
    settings = {key.removeprefix(_DIFFUSERS_PREFIX): value for key, value in config.items()}
    special = [key for key in ("alpha_pattern", "use_dora", "use_rslora", "lora_bias") if settings.get(key)]
    if special:
        raise Misfit([f"{', '.join(special)} in its header where a plain LoRA with one alpha fits"])
    alpha = settings.get("lora_alpha")
    if alpha is not None and not (isinstance(alpha, int | float) and abs(alpha) <= MAX_ALPHA):  # or NaN
        raise Misfit([f"lora_alpha {alpha!r} in its header where a number fits"])
    return alpha


def _encode_reference(loras: Mapping[str, LinearLora]) -> Encoded:
    tensors: dict[str, Tensor] = {}
    strange = [name for name in loras if _dotted(name.replace(".", "_")) != name]
    if strange:
        raise Misfit([f"{name} has no place in the reference format" for name in strange])
    for name, lora in loras.items():
        tensors |= _REFERENCE.tensors(_REFERENCE_PREFIX + name.replace(".", "_"), lora)
    return tensors, {}


def _decode_reference(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, LinearLora]:
    def name_of(stem: str) -> str | None:
        found = stem.startswith(_REFERENCE_PREFIX)
        return _dotted(stem.removeprefix(_REFERENCE_PREFIX)) if found else None

    return _REFERENCE.gather(tensors, name_of)


def _dotted(underscored: str) -> str | None:
    """transformer_blocks_0_ff_net_2 -> transformer_blocks.0.ff.net.2; None for what is no family's linear."""
    for family in FAMILIES.values():
        for kind, linears in family.lora.linears.items():
            names = {name.replace(".", "_"): name for name in linears}
            match = re.fullmatch(rf"{kind}_(\d+)_(\w+)", underscored) if kind else None
            if match and match[2] in names:
                return f"{kind}.{match[1]}.{names[match[2]]}"
            if not kind and underscored in names:
                return names[underscored]
    return None


FORMATS: dict[str, Format] = {
    "diffusers": Format(
        safetensors=True,
        claims=lambda key: key.startswith(_DIFFUSERS_PREFIX),
        encode=_encode_diffusers,
        decode=_decode_diffusers,
        header=(_DIFFUSERS_CONFIG,),
    ),
    "kohya": Format(
        safetensors=True,
        claims=kohya.claims,
        encode=kohya.encode,
        decode=kohya.decode,
        header=(kohya.HEADER,),
    ),
    "reference": Format(
        safetensors=False,
        claims=lambda key: key.startswith(_REFERENCE_PREFIX) and not kohya.claims(key),
        encode=_encode_reference,
        decode=_decode_reference,
    ),
}
