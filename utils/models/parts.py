"""Loading the parts of a FLUX pipeline, each when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import nn

from utils.errors import UserError
from utils.models.quantization import quantize

TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
PARTS = ("transformer", "vae", "scheduler", *TEXT)


def load_parts(
    path: str, names: Sequence[str], device: torch.device, dtype: torch.dtype, quantization: str = "none"
) -> dict[str, Any]:
    """Some parts of a FLUX pipeline, frozen and in eval mode.

    Args:
        path: a folder in diffusers layout, or a hub id.
        names: of PARTS.
        device: where they go.
        dtype: theirs.
        quantization: of the transformer, a key of QUANTIZATIONS.

    Raises:
        UserError: if they are not there, or can't be quantized.
    """
    others: dict[str, Any] = dict.fromkeys(set(PARTS) - set(names))
    try:
        pipeline = FluxPipeline.from_pretrained(path, dtype=dtype, **others)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"pretrained_model_name_or_path: expected a diffusers FLUX model at {path}, found: {reason}"
        ) from error
    parts = {name: getattr(pipeline, name) for name in names}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
            if name == "transformer":
                quantize(part, quantization, device)
            part.to(device)
    return parts
