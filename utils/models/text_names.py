"""What a text encoder's linears are called, in its own code and in LoRA files."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family.

    Attributes:
        part: its name in the pipeline.
        tokenizer: its tokenizer's.
        gives: the tensor of a prompt's embeddings that it makes.
        layers: its list of repeated layers. What of it stands in `optional` some versions leave out.
        linears: of a layer.
        attention: those of them inside attention.
        prefixes: that LoRA files put before its linears; the first is sd-scripts' own.
        embeddings: its key in files of token embeddings.
        optional: see `layers`.
    """

    part: str
    tokenizer: str
    gives: str
    layers: str
    linears: tuple[str, ...]
    attention: tuple[str, ...]
    prefixes: tuple[str, ...]
    embeddings: str
    optional: str = ""

    def linear(self, name: str) -> str | None:
        """A linear's name with `optional`, of one with dots or underscores; None for what is no linear."""
        flat = name.replace(".", "_").removeprefix(self.optional.replace(".", "_"))
        layers = self.layers.removeprefix(self.optional).replace(".", "_")
        match = re.fullmatch(rf"{layers}_(\d+)_(\w+)", flat)
        by_flat = {linear.replace(".", "_"): linear for linear in self.linears}
        if match is None or match[2] not in by_flat:
            return None
        return f"{self.layers}.{match[1]}.{by_flat[match[2]]}"

    def full_name(self, own: str) -> str:
        """A module's or weight's name behind the encoder's, `optional` in it, of the one it has itself."""
        return f"{self.part}.{self.optional}{own.removeprefix(self.optional)}"

    def own_name(self, full: str, model: object) -> str:
        """The inverse of `full_name`, as the model has it."""
        name = full.removeprefix(f"{self.part}.")
        has_optional = bool(self.optional) and hasattr(model, self.optional.rstrip("."))
        return name if has_optional else name.removeprefix(self.optional)


_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
CLIP_L = TextEncoder(
    part="text_encoder",
    tokenizer="tokenizer",
    gives="pooled_prompt_embeds",
    layers="text_model.encoder.layers",
    linears=(*_ATTENTION, "mlp.fc1", "mlp.fc2"),
    attention=_ATTENTION,
    prefixes=("lora_te1_", "lora_te_", "text_encoder.", "text_encoders.clip_l.transformer.", "clip_l."),
    embeddings="clip_l",
    optional="text_model.",  # transformers 5 has it no more, and all files have
)

_T5_ATTENTION = tuple(f"layer.0.SelfAttention.{name}" for name in "qkvo")
T5_XXL = TextEncoder(
    part="text_encoder_2",
    tokenizer="tokenizer_2",
    gives="prompt_embeds",
    layers="encoder.block",
    linears=(*_T5_ATTENTION, *(f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo"))),
    attention=_T5_ATTENTION,
    prefixes=(
        *("lora_te3_", "lora_te2_", "text_encoder_2."),  # OneTrainer's second is T5
        *("text_encoders.t5xxl.transformer.", "t5xxl.transformer.", "t5xxl.", "t5."),
    ),
    embeddings="t5",
)
