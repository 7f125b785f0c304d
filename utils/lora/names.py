"""Where in a model a LoRA file's keys belong, by whichever of the names in use they have.

A key is a stem, which names a module, and an ending, which says what part of its LoRA the tensor is
(utils/lora/parts.py). Stems differ in three things, and all of their combinations are read:

    prefix      transformer., diffusion_model., base_model.model., lora_unet_, lora_transformer_, lycoris_
                and others, or none
    modules     diffusers' linears, or those of FLUX's original code, where q, k and v are one; XLabs' too
    separator   dots, or underscores in their place

Families have modules of the same name in their original codes that are other linears: whose they are, the
other modules of the file tell, and how many inputs and outputs each has.

Text encoders' linears have names of their own, behind text_encoder., lora_te1_ and others: see
utils/models/text_names.py. Here they are called as in a pipeline, behind the encoder's name in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from utils.models.families import FAMILIES
from utils.models.family import LoraNames
from utils.models.text_names import TextEncoder

T = TypeVar("T")

DIFFUSERS_PREFIX = "transformer."
PEFT_PREFIX = "base_model.model."
UNET_PREFIX = "lora_unet_"
_PREFIXES = (
    DIFFUSERS_PREFIX,
    PEFT_PREFIX,
    UNET_PREFIX,
    *("diffusion_model.", "model.diffusion_model.", "lora_transformer_", "lycoris_"),
)
TRANSFORMER = DIFFUSERS_PREFIX.rstrip(".")
BUNDLED = "bundle_emb."
"""Of the embeddings of new words that some LoRA files carry along."""

_TEXT_ENCODERS = ("lora_te", "text_encoder", "clip_l.", "t5xxl.", "t5.", BUNDLED)


@dataclass(frozen=True)
class Module:
    """What a stem names.

    Attributes:
        linears: dotted names in diffusers, in the order of their rows; several where they are one module; a
            text encoder's behind its name in the pipeline.
        shares: outputs of each, in units of the hidden size.
        prefix: that the stem begins with, "" for none.
        body: the stem without its prefix.
        original: whether it is a module of the original code, not a linear of diffusers'.
        swapped: whether the two halves of its outputs stand the other way round in diffusers.
    """

    linears: tuple[str, ...]
    shares: tuple[int, ...]
    prefix: str
    body: str
    original: bool = False
    swapped: bool = False

    @property
    def part(self) -> str:
        """Of the pipeline: the transformer, or a text encoder."""
        return part_of_linear(self.linears[0])


def module_at(stem: str, whose: LoraNames | None = None) -> Module | None:
    """The module that a stem names; None if there is none of that name in any family.

    Behind "transformer." any dotted name is taken as it is: which linears there are, the model knows.

    Args:
        stem: of a key.
        whose: the family whose original code it may be of, as `original_of` says; None: any that has it.
    """
    if module := text_module(stem):
        return module
    prefix, body = _without_prefix(stem)
    flat = body.replace(".", "_")
    if linear := _linear(flat):
        return Module((linear,), (1,), prefix, body)
    for names in original_names() if whose is None else [whose]:
        if linears := _original(names, flat):
            swapped = linears[0] in names.swapped
            return Module(linears, shares(linears), prefix, body, True, swapped)
    return Module((body,), (1,), prefix, body) if prefix.startswith(DIFFUSERS_PREFIX) and body else None


def original_of(sizes: Mapping[str, tuple[int, int] | None]) -> LoraNames | None:
    """The first family whose original code all of a file's modules may be of; None if there is none.

    Args:
        sizes: stem -> (outputs, inputs) of the linear that it is for, None where its tensors do not say.
    """
    bodies = {_without_prefix(stem)[1].replace(".", "_"): size for stem, size in sizes.items()}
    every = original_names()
    of_original = {
        flat: size for flat, size in bodies.items() if any(_original(names, flat) for names in every)
    }
    linears = [linear for flat in bodies if (linear := _linear(flat))]
    return next(
        (
            names
            for names in every
            if _has_all(names, linears)
            and all(_may_be(names, flat, size) for flat, size in of_original.items())
        ),
        None,
    )


def families_of(linears: Iterable[str]) -> list[str]:
    """The families in which all of these linears of a transformer are known, by diffusers' names."""
    linears = list(linears)
    return [name for name, family in FAMILIES.items() if _has_all(family.lora, linears)]


def text_encoders() -> dict[str, TextEncoder]:
    """Every family's text encoders by their names in the pipeline."""
    return {encoder.part: encoder for family in FAMILIES.values() for encoder in family.lora.text}


def text_module(stem: str) -> Module | None:
    """The linear of a text encoder that a stem names; None if there is none of that name.

    Which encoder a stem without a prefix means, as peft and LyCORIS have it, the layers' names tell.
    """
    body = stem.removeprefix(PEFT_PREFIX)
    for encoder in text_encoders().values():
        for prefix in (*encoder.prefixes, "lycoris_", ""):
            if body.startswith(prefix) and (linear := encoder.linear(body.removeprefix(prefix))):
                return Module((f"{encoder.part}.{linear}",), (1,), prefix, linear)
    return None


def text_stem(linear: str) -> str | None:
    """text_encoder.text_model.x -> lora_te1_text_model_x, as sd-scripts has it; None of another part's."""
    part, _, name = linear.partition(".")
    encoder = text_encoders().get(part)
    return encoder.prefixes[0] + name.replace(".", "_") if encoder else None


def part_of_linear(linear: str) -> str:
    """The part of a pipeline that a linear lies in, by its name as of `Module.linears`."""
    part = linear.partition(".")[0]
    return part if part in text_encoders() else TRANSFORMER


def by_part(loras: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """What is known of linears, by the part of the pipeline that they lie in; names stay whole."""
    parts: dict[str, dict[str, T]] = {}
    for linear, lora in loras.items():
        parts.setdefault(part_of_linear(linear), {})[linear] = lora
    return parts


def of_text_encoder(key: str) -> bool:
    """Whether a key is of a text encoder's LoRA, or of what else goes with the text."""
    return key.removeprefix(PEFT_PREFIX).startswith(_TEXT_ENCODERS)


def underscored(linear: str) -> str | None:
    """transformer_blocks.0.ff.net.2 -> transformer_blocks_0_ff_net_2; None if no way leads back."""
    flat = linear.replace(".", "_")
    return flat if _linear(flat) == linear else None


def original_names() -> list[LoraNames]:
    """The names of every family that has an original code of its own."""
    return [family.lora for family in FAMILIES.values() if family.lora.original]


def original_module(linear: str) -> tuple[str, tuple[str, ...], bool] | None:
    """The original code's module that a linear lies in, underscored; all its linears; whether swapped."""
    for names in original_names():
        for module, outside in names.original_outside.items():
            if outside == linear:
                return module, (linear,), linear in names.swapped
        for block, (kind, modules) in names.original.items():
            match = re.fullmatch(rf"{re.escape(kind)}\.(\d+)\.(.+)", linear)
            for module, parts in modules.items() if match else ():
                if match and match[2] in parts:
                    linears = tuple(f"{kind}.{match[1]}.{part}" for part in parts)
                    return f"{block}_{match[1]}_{module}", linears, False
    return None


def shares(linears: Sequence[str]) -> tuple[int, ...]:
    """Outputs of linears that are one module, in units of the hidden size; (1,) for one alone."""
    wider = {name: times for names in original_names() for name, times in names.wider.items()}
    return tuple(wider.get(name.rpartition(".")[2], 1) if len(linears) > 1 else 1 for name in linears)


def attention_linears(present: Sequence[str]) -> set[str]:
    """Every linear inside attention of the blocks up to the last ones that some linears lie in."""
    wanted: set[str] = set()
    known = families_of(name for name in present if part_of_linear(name) == TRANSFORMER)
    for kind, linears in FAMILIES[known[0]].lora.linears.items() if known else _blocks():
        numbers = [int(match[1]) for name in present if (match := re.match(rf"{kind}\.(\d+)\.", name))]
        attention = [linear for linear in linears if linear.startswith("attn.")]
        for number in range(max(numbers) + 1) if numbers else ():
            wanted |= {f"{kind}.{number}.{linear}" for linear in attention}
    return wanted


def _without_prefix(stem: str) -> tuple[str, str]:
    """All prefixes that a stem begins with, and the rest of it."""
    body = stem
    while prefix := next((prefix for prefix in _PREFIXES if body.startswith(prefix)), ""):
        body = body.removeprefix(prefix)
    return stem[: len(stem) - len(body)], body


def _has_all(names: LoraNames, linears: Iterable[str]) -> bool:
    """Whether a family has linears of all these names."""

    def has(linear: str) -> bool:
        match = re.fullmatch(r"(\w+)\.\d+\.(.+)", linear)
        kind, name = (match[1], match[2]) if match else ("", linear)
        return name in names.linears.get(kind, ())

    return all(has(linear) for linear in linears)


def _may_be(names: LoraNames, flat: str, size: tuple[int, int] | None) -> bool:
    """Whether a module of (outputs, inputs) can be the one that a family's original code calls so."""
    if _original(names, flat) is None:
        return False
    match = re.fullmatch(r"(\w+?)_\d+_(\w+)", flat)
    expected = names.sizes.get(match[1], {}).get(match[2]) if match else None
    return expected is None or size is None or size[0] * expected[1] == size[1] * expected[0]


def _blocks() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every family's kinds of blocks, "" for what lies outside of them, and their linears."""
    for family in FAMILIES.values():
        yield from family.lora.linears.items()


def _linear(flat: str) -> str | None:
    """transformer_blocks_0_ff_net_2 -> transformer_blocks.0.ff.net.2; None for what is no family's linear."""
    for kind, linears in _blocks():
        names = {name.replace(".", "_"): name for name in linears}
        match = re.fullmatch(rf"{kind}_(\d+)_(\w+)", flat) if kind else None
        if match and match[2] in names:
            return f"{kind}.{match[1]}.{names[match[2]]}"
        if not kind and flat in names:
            return names[flat]
    return None


def _original(names: LoraNames, flat: str) -> tuple[str, ...] | None:
    """double_blocks_0_img_attn_qkv -> its linears in diffusers; None for what is no module."""
    if flat in names.original_outside:
        return (names.original_outside[flat],)
    for block, (kind, modules) in names.original.items():
        match = re.fullmatch(rf"{block}_(\d+)_(\w+)", flat)
        linears = {**modules, **names.original_aliases.get(block, {})}.get(match[2]) if match else None
        if match and linears:
            return tuple(f"{kind}.{match[1]}.{linear}" for linear in linears)
    return None
