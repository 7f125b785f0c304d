"""What is known of a family of base models without loading one: the form of a row of FAMILIES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.errors import UserError, nearest
from utils.models.text_names import TextEncoder

IMAGE_STREAM = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
TEXT_STREAM = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
"""Linears of the attention of double blocks, as diffusers names them in every family that has such blocks."""


@dataclass(frozen=True)
class LoraNames:
    """What a family's linears are called in LoRA files.

    Attributes:
        linears: kind of block -> its linears, "" for those outside of blocks, as diffusers names them.
        original: kind of block in the original code -> (its name in diffusers, {module: linears that are one
            there, in the order of their rows}).
        original_outside: module outside of blocks in the original code -> linear.
        original_aliases: kind of block in the original code -> {other name of its modules: linears}.
        swapped: linears whose two halves of outputs stand the other way round in the original code.
        wider: linears of fused modules whose outputs are a multiple of the others'.
        sizes: kind of block in the original code -> {module: (outputs, inputs)}, in units of the hidden size,
            of the modules that other families have by the same name.
        network_module: sd-scripts' own for this family, as LoRA headers say it; "" where it has none.
        architectures: as LoRA headers' modelspec.architecture says it, of a base with distilled guidance and
            of one without; () where there is no word for it.
    """

    linears: Mapping[str, tuple[str, ...]]
    original: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = field(default_factory=dict)
    original_outside: Mapping[str, str] = field(default_factory=dict)
    original_aliases: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    swapped: tuple[str, ...] = ()
    wider: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    network_module: str = ""
    architectures: tuple[str, ...] = ()
    text: tuple[TextEncoder, ...] = ()


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        pipeline: the class that its model_index.json names.
        base: its `Base`, "module:Class".
        transformer: the class of what is edited.
        pixel_multiple: of the sides of its images.
        targets: train_method -> ends of the names of the linears that get a LoRA.
        blocks: names of the transformer's lists of repeated blocks.
        lora: names in LoRA files.
        presets: base in config/base/ -> GB of the card that it is for, in the order of what they need.
        tags: of its LoRAs on the hub.
    """

    pipeline: str
    base: str
    transformer: str
    pixel_multiple: int
    targets: Mapping[str, tuple[str, ...]]
    blocks: tuple[str, ...]
    lora: LoraNames
    presets: Mapping[str, int] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def check_size(self, pixels: int, where: str) -> None:
        """Raise `UserError` for an image side that the family can't have; `where` it stands."""
        if pixels <= 0 or pixels % self.pixel_multiple:
            raise UserError(f"{where}: expected a multiple of {self.pixel_multiple}, found {pixels}")

    def check_learned_text(self, keys: Sequence[str]) -> None:
        """Raise `UserError` for keys of what is learned in text encoders, where none can learn."""
        if keys and not self.lora.text:
            raise UserError(
                f"{keys[0]}: expected a base whose text encoders can learn, such as of FluxPipeline, "
                f"found {self.pipeline}"
            )

    def linears(self, train_method: str) -> tuple[str, ...]:
        """Ends of the names of the linears that a train_method trains; `UserError` for an unknown one."""
        if train_method not in self.targets:
            raise UserError(
                f"train_method: expected one of {', '.join(self.targets)}, found {train_method!r}"
                f"{nearest(train_method, self.targets)}"
            )
        return self.targets[train_method]
