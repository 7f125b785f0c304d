"""What a LoRA file's header says of itself, carried on and brought up to date when a file is made of others.

Beside the project's own keys: modelspec.* (Stability AI's ModelSpec 1.0.1, which galleries show), and ss_* of
sd-scripts. Hashes are of the file, not kept: utils/lora/tensor_files.py makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.lora.names import TRANSFORMER, by_part
from utils.models.families import FAMILIES
from utils.models.family import Family

if TYPE_CHECKING:
    from utils.lora.files import LoraFile
    from utils.lora.linear import LinearLora

BASE_MODEL, BASE_HASH = "base_model", "base_hash"
TEXT_ENCODERS = "text_encoders"
"""Those that have a part in the file."""

HISTORY = "history"
"""What was done to the file, a line each."""

_SPEC = "modelspec."
_SAME = ("sai_model_spec", "architecture", "implementation", "resolution")
"""Of several files' modelspec, what a file made of them has if they agree in it."""


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def modelspec(title: str, architecture: str, resolution: int | None = None) -> dict[str, str]:
    """The modelspec keys of a new LoRA, of today.

    Args:
        title: the edit's name.
        architecture: of `architecture_of`; without one there is no modelspec.
        resolution: side in pixels that it was trained at.
    """
    if not architecture:
        return {}
    said = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        "implementation": "diffusers",
        "title": title,
        **({"resolution": f"{resolution}x{resolution}"} if resolution else {}),
        "date": now(),
        "trigger_phrase": "",
        "usage_hint": "no words start it: the strength of the LoRA is the strength of the edit",
    }
    return {_SPEC + key: text for key, text in said.items()}


def architecture_of(family: Family, guidance: bool) -> str:
    """flux-1-dev/lora and the like; "" for a family that modelspec has no word for.

    Args:
        family: of the base.
        guidance: whether the base takes distilled guidance.
    """
    names = family.lora.architectures
    return f"{names[0 if guidance else 1]}/lora" if names else ""


def architecture_at(folder: Path) -> str:
    """`architecture_of` the transformer in a diffusers folder, or a pipeline's; "" if it does not say."""
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    try:
        config = json.loads((inner / "config.json").read_text(encoding="utf-8"))
        family = next(each for each in FAMILIES.values() if each.transformer == config["_class_name"])
        return architecture_of(family, bool(config.get("guidance_embeds")))
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return ""  # the weights alone are enough to extract from


def renewed(metadata: Mapping[str, str]) -> dict[str, str]:
    """The header of a file with other weights: modelspec's date is today's."""
    return {key: now() if key == f"{_SPEC}date" else text for key, text in metadata.items()}


def merged(files: Sequence[LoraFile], names: Sequence[str], title: str) -> dict[str, str]:
    """The base and modelspec of a file that is made of several; raises `UserError` if their bases differ."""
    spec: dict[str, str] = {}
    for key in (_SPEC + name for name in _SAME):
        said = {file.metadata.get(key, "") for file in files}
        spec |= {key: said.pop()} if len(said) == 1 and "" not in said else {}
    if f"{_SPEC}architecture" in spec:
        triggers = [file.metadata.get(f"{_SPEC}trigger_phrase", "") for file in files]
        spec |= {
            f"{_SPEC}title": title,
            f"{_SPEC}date": now(),
            f"{_SPEC}trigger_phrase": ", ".join(filter(None, dict.fromkeys(triggers))),
            f"{_SPEC}merged_from": ", ".join(names),
        }
    return {**_common_base(files), **spec}


def sizes(loras: Mapping[str, LinearLora]) -> dict[str, str]:
    """What the header says of rank and alpha, of the greatest rank there is."""
    greatest = max(loras.values(), key=lambda lora: lora.rank)
    rank, alpha = str(greatest.rank), f"{greatest.alpha:g}"
    return {"rank": rank, "alpha": alpha, "ss_network_dim": rank, "ss_network_alpha": alpha}


def text_parts(loras: Mapping[str, LinearLora]) -> dict[str, str]:
    """What the header says of text encoders; {} of a LoRA of the transformer alone."""
    parts = [part for part in by_part(loras) if part != TRANSFORMER]
    return {TEXT_ENCODERS: ", ".join(parts)} if parts else {}


def noted(metadata: Mapping[str, str], what: str) -> dict[str, str]:
    """Metadata with what was done added to the file's history."""
    return {**metadata, HISTORY: "\n".join(filter(None, [metadata.get(HISTORY), what]))}


def _common_base(files: Sequence[LoraFile]) -> dict[str, str]:
    """What the header says of the base; raises `UserError` for LoRAs of different bases."""
    recorded = {file.metadata[BASE_HASH]: file for file in files if BASE_HASH in file.metadata}
    if len(recorded) > 1:
        bases = ", ".join(f"{file.metadata.get(BASE_MODEL)} ({found})" for found, file in recorded.items())
        raise UserError(f"merge: expected LoRAs of one base, found {bases}")
    return {
        key: file.metadata[key]
        for file in recorded.values()
        for key in (BASE_MODEL, BASE_HASH)
        if key in file.metadata
    }
