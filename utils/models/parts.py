"""Loading the parts of a diffusers pipeline, each when it is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from utils.errors import UserError
from utils.models.base import Base
from utils.models.quantization import quantize


def load_parts(pipeline_class: Any, every: Sequence[str], names: Sequence[str], base: Base) -> dict[str, Any]:
    """Some parts of a pipeline, frozen and in eval mode, on the base's device and in its dtype.

    Args:
        pipeline_class: of diffusers.
        every: the names of all parts that it takes.
        names: of those to load; the transformer is quantized as the base says.
        base: gives the path, device, dtype and quantization.

    Raises:
        UserError: if they are not there, are another family's, or can't be quantized.
    """
    for name in names:
        _check_class(Path(base.path), name)

    # each part's own bars would be a dozen for a second's work; downloads keep theirs
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    others: dict[str, Any] = dict.fromkeys(set(every) - set(names))
    try:
        pipeline = pipeline_class.from_pretrained(base.path, dtype=base.dtype, **others)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"pretrained_model_name_or_path: expected a diffusers {pipeline_class.__name__} at {base.path}, "
            f"found: {reason}"
        ) from error
    parts = {name: getattr(pipeline, name) for name in names}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            if missing := [own for own, weight in part.named_parameters() if weight.is_meta]:
                raise UserError(
                    f"{base.path}: {name}: expected the weights of a {type(part).__name__}, "
                    f"found none for {len(missing)} of them, as {missing[0]}"
                )
            part.requires_grad_(False).eval()
            if name == "transformer":
                quantize(part, base.quantization, base.device)
            part.to(base.device)
    return parts


def _check_class(folder: Path, name: str) -> None:
    """Raise `UserError` for a part in a pipeline's folder of another class than the pipeline says."""

    def read(path: Path) -> dict[str, Any]:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    try:
        expected = read(folder / "model_index.json").get(name, [None, None])[1]
        found = read(folder / name / "config.json").get("_class_name")
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return  # the loader says what is wrong with it
    if found and expected and found != expected:
        raise UserError(f"{folder}: {name}: expected a {expected}, found a {found}")
