"""The layouts that LoRA files are written in: how each names and packs the LoRA of every linear.

    diffusers   transformer.LINEAR.lora_A.weight (rank, in), .lora_B.weight (out, rank), .alpha
                Loads in stock FluxPipeline.load_lora_weights and in ComfyUI, alpha included. Where alpha is
                the rank, and the rank is one for all, alpha says nothing and is left out: ai-toolkit passes
                it over, and InvokeAI takes no file that has it.
    kohya       lora_unet_MODULE.lora_down.weight (rank, in), .lora_up.weight (out, rank), .alpha, with the
                modules of FLUX's original code, q, k and v fused: sd-scripts' own; utils/lora/kohya.py.
    reference   lora_unet_LINEAR.lora_down.weight, .lora_up.weight, .alpha, with the dots of LINEAR as
                underscores, a torch state dict (.pt): what the authors' implementation writes and reads.
                It takes alpha from its own settings, 1, whatever the file says, so 1 is what the file has.

Text encoders' linears are text_encoder.LINEAR (CLIP) and text_encoder_2.LINEAR (T5) in the first, and behind
lora_te1_ and lora_te3_ in the others.

LINEAR is a linear's dotted name in diffusers. No model is needed for any. Many more layouts are read:
utils/lora/reading.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from utils.errors import UserError, nearest
from utils.lora import kohya, peft_config, words
from utils.lora.folding import of_one_alpha, unmistakable, with_alpha
from utils.lora.linear import Endings, LinearLora, Misfit
from utils.lora.names import (
    DIFFUSERS_PREFIX,
    TRANSFORMER,
    UNET_PREFIX,
    attention_linears,
    by_part,
    original_module,
    text_encoders,
    text_stem,
    underscored,
)

REFERENCE_ALPHA = 1.0
"""What the authors' scripts build their network with; loading a file does not change it."""

_DIFFUSERS = Endings(".lora_A.weight", ".lora_B.weight")
_REFERENCE = Endings(".lora_down.weight", ".lora_up.weight")

Encoded = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by file key, and what the header must say for them to be read back as they were."""


@dataclass(frozen=True)
class Format:
    """One layout.

    Attributes:
        suffixes: of its files' names; the first is a .safetensors, whose header takes metadata, or a .pt.
        encode: {linear: LoRA} -> Encoded; raises Misfit naming the linears it has no place for.
        warn: {linear: LoRA} -> what its readers will refuse or leave out, a line each.
    """

    suffixes: tuple[str, ...]
    encode: Callable[[Mapping[str, LinearLora]], Encoded]
    warn: Callable[[Mapping[str, LinearLora]], list[str]] = lambda loras: []

    @property
    def safetensors(self) -> bool:
        """Whether it is one, with a header."""
        return self.suffixes[0] == ".safetensors"


OWN_HEADER = (peft_config.HEADER, kohya.HEADER, words.HEADER)
"""Keys of metadata that only say how to read the tensors."""


def format_named(name: str) -> Format:
    """The format of a name; raises `UserError`, naming those there are."""
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"format: expected one of {known}, found {name}{nearest(name, FORMATS)}")
    return FORMATS[name]


def _encode_diffusers(loras: Mapping[str, LinearLora]) -> Encoded:
    tensors: dict[str, Tensor] = {}
    for part, own in by_part(loras).items():
        alike = unmistakable(own) if part == TRANSFORMER else of_one_alpha(own)
        ranks = {lora.rank for lora in alike.values()}
        needed = len(ranks) > 1 or any(lora.alpha != lora.rank for lora in alike.values())
        prefix = DIFFUSERS_PREFIX if part == TRANSFORMER else ""
        for name, lora in alike.items():
            tensors |= _DIFFUSERS.tensors(prefix + name, lora, needed)
    return tensors, {}


def _warn_diffusers(loras: Mapping[str, LinearLora]) -> list[str]:
    """Stock FluxPipeline knows LoRAs on its first text encoder alone."""
    of_t5 = by_part(loras).get(list(text_encoders())[1], {})
    return [f"diffusers leaves out the LoRA of T5, {len(of_t5)} linears"] if of_t5 else []


def _warn_kohya(loras: Mapping[str, LinearLora]) -> list[str]:
    """Stock diffusers drops what lies outside of blocks, or its alpha; sd-scripts the last layer."""
    modules = {name: found[0] for name in loras if (found := original_module(name))}
    outside = [name for name, module in modules.items() if "blocks" not in module]
    last = [name for name, module in modules.items() if module.startswith("final_layer")]
    readers = {"diffusers": outside, "sd-scripts": last}
    return _warn_diffusers(loras) + [
        f"{reader} leaves out, in this format, {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for reader, names in readers.items()
        if names
    ]


def _encode_reference(loras: Mapping[str, LinearLora]) -> Encoded:
    tensors: dict[str, Tensor] = {}
    stems = {name: text_stem(name) or _unet_stem(name) for name in loras}
    if strange := [name for name, stem in stems.items() if stem is None]:
        raise Misfit([f"{name} has no place in the reference format" for name in strange])
    for name, lora in loras.items():
        tensors |= _REFERENCE.tensors(str(stems[name]), with_alpha(lora, REFERENCE_ALPHA))
    return tensors, {}


def _unet_stem(name: str) -> str | None:
    flat = underscored(name)
    return flat and UNET_PREFIX + flat


def _warn_reference(loras: Mapping[str, LinearLora]) -> list[str]:
    """The authors' code loads strictly: every linear inside attention, of one rank, and no other."""
    wanted, parts = attention_linears(list(loras)), by_part(loras)
    faults = []
    if of_text := sum(len(own) for part, own in parts.items() if part != TRANSFORMER):
        faults.append(f"{of_text} linears are text encoders'")
    if missing := sorted(wanted - loras.keys()):
        faults.append(f"{len(missing)} linears inside attention are missing, as {missing[0]}")
    if others := sorted(parts.get(TRANSFORMER, {}).keys() - wanted):
        faults.append(f"{len(others)} linears lie outside of attention, as {others[0]}")
    ranks = sorted({lora.rank for lora in loras.values()})
    if len(ranks) > 1:
        faults.append(f"ranks are {', '.join(map(str, ranks))}, not one")
    said = (
        [f"the authors' code will refuse it, since it loads strictly: {'; '.join(faults)}"] if faults else []
    )
    return said or [
        f"the authors' code takes it with rank {ranks[0]} and alpha {REFERENCE_ALPHA:g} in its settings"
    ]


FORMATS: dict[str, Format] = {
    "diffusers": Format((".safetensors",), _encode_diffusers, _warn_diffusers),
    "kohya": Format((".safetensors",), kohya.encode, _warn_kohya),
    "reference": Format((".pt", ".pth", ".ckpt", ".bin"), _encode_reference, _warn_reference),
}
