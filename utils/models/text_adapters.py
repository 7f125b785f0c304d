"""LoRA adapters on text encoders, by the same means as on the transformer: utils/models/adapters.py.

At rest they are inactive. To let one act, or learn, and to put everything back:

    with use_mixes(base.part("text_encoder"), [Mix({"subject": 1.0}, ("subject",))]):
        embeds = base.encode_prompts(prompts, length)    # gradients reach the adapter
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from utils.errors import UserError
from utils.flow.mixes import Mix
from utils.models.adapters import inject_fresh, linears_ending, use_mixes
from utils.models.base import Base


def add_text_adapter(
    base: Base, name: str, rank: int, alpha: float, seed: int = 0, part: str = "text_encoder"
) -> None:
    """Add a fresh LoRA on every linear inside attention of a text encoder, as `adapters.add_adapter` does.

    Args:
        base: with its text encoders, with or without other adapters on them.
        name: free name.
        rank: at least 1.
        alpha: scaling numerator.
        seed: of A.
        part: the text encoder's name in the pipeline.

    Raises:
        UserError: if the family has no such text encoder that takes a LoRA.
        ValueError: if the name is taken.
    """
    encoders = {encoder.part: encoder for encoder in base.family.lora.text}
    if part not in encoders:
        known = ", ".join(encoders) or "none"
        raise UserError(f"text encoder: expected one of {known}, found {part}")
    ends = [f".{linear}" for linear in encoders[part].attention]
    model = base.part(part)
    inject_fresh(model, name, linears_ending(model, ends), rank, alpha, seed)


@contextmanager
def use_text_scales(base: Base, scales: Mapping[str, Mapping[str, float]]) -> Iterator[None]:
    """Inside, adapters act on text encoders: {part: {adapter: scale}}; afterwards all is as it was."""
    with ExitStack() as acting:
        for part, own in scales.items():
            acting.enter_context(use_mixes(base.part(part), [Mix(own)]))
        yield
