"""The parts of the kohya layout: names of blocks, and the change that a module's weights make."""

from __future__ import annotations

from torch import Tensor

DOUBLE, SINGLE = "transformer_blocks.0.", "single_transformer_blocks.1."


def delta(state: dict[str, Tensor], module: str) -> Tensor:
    down, up = state[f"{module}.lora_down.weight"], state[f"{module}.lora_up.weight"]
    return state[f"{module}.alpha"] / down.shape[0] * up @ down
