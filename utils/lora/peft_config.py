"""Alpha as peft keeps it: not in the tensors, but in a LoraConfig, which diffusers writes into the header.

peft's own files have it beside them, as adapter_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.lora.linear import MAX_ALPHA, Misfit

HEADER = "lora_adapter_metadata"
"""Metadata key of a LoraConfig as JSON, its keys behind "transformer." or a text encoder's name."""

_BESIDE = "adapter_config.json"
_REFUSED = ("lora_bias",)


@dataclass(frozen=True)
class PeftConfig:
    """What a LoraConfig says of alpha.

    Attributes:
        alpha: of every linear that `pattern` does not name; None: its rank.
        pattern: end of a linear's name, or ^ and all of it -> alpha; the first that fits counts.
        rank_stabilized: the LoRA acts by alpha / sqrt(rank) (Kalajdzievski 2023).
        dora: it is a DoRA.
    """

    alpha: float | None = None
    pattern: Mapping[str, float] = field(default_factory=dict)
    rank_stabilized: bool = False
    dora: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, str], part: str) -> PeftConfig:
        """A part's in a header; raises `Misfit` if it is damaged or asks for more than a plain LoRA."""
        if HEADER not in metadata:
            return cls()
        try:
            config = json.loads(metadata[HEADER])
        except (ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise Misfit([f"{HEADER} in its header is no JSON object"])
        own = f"{part}."
        settings = {
            key.removeprefix(own): value
            for key, value in config.items()
            if key.startswith(own) or "." not in key
        }
        if special := [key for key in _REFUSED if settings.get(key)]:
            raise Misfit([f"{', '.join(special)} in its header where a plain LoRA fits"])
        alpha, pattern = settings.get("lora_alpha"), settings.get("alpha_pattern") or {}
        if not isinstance(pattern, dict):
            raise Misfit([f"alpha_pattern {pattern!r} in its header where names and numbers fit"])
        for name, value in {"lora_alpha": alpha, **pattern}.items():
            if not (value is None and name == "lora_alpha") and not _is_alpha(value):
                raise Misfit([f"{name} {value!r} in its header where a number fits"])
        names = {str(name).replace("\\.", "."): float(value) for name, value in pattern.items()}
        if strange := [
            name for name in names if not name.lstrip("^").replace("_", "").replace(".", "").isalnum()
        ]:
            raise Misfit([f"alpha_pattern {strange[0]!r} in its header where the name of a linear fits"])
        rank_stabilized, dora = (bool(settings.get(key)) for key in ("use_rslora", "use_dora"))
        return cls(None if alpha is None else float(alpha), names, rank_stabilized, dora)

    def alpha_of(self, name: str, rank: int) -> float:
        """Alpha of a linear, of which alpha / rank is the factor on B A."""
        fits = (value for end, value in self.pattern.items() if _fits(end, name))
        alpha = next(fits, self.alpha)
        if alpha is None:
            return float(rank)
        return alpha * sqrt(rank) if self.rank_stabilized else alpha


def config_beside(path: Path) -> dict[str, str]:
    """The header that a file of peft's own lacks, from its adapter_config.json; {} if there is none.

    Raises:
        UserError: if it cannot be read.
    """
    beside = path.parent / _BESIDE
    if not beside.is_file():
        return {}
    try:
        return {HEADER: beside.read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{beside}: expected peft's settings of {path.name}, found: {error}") from None


def _is_alpha(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_ALPHA
    )  # NaN no


def _fits(end: str, name: str) -> bool:
    """As peft matches: all of the name, or its end from a dot on unless ^ forbids that."""
    return name == end.removeprefix("^") or (not end.startswith("^") and name.endswith(f".{end}"))
