"""How much of a base a LoRA changes: ||dW|| / ||W|| by linear, and the share of parameters trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.lora.algebra import change_norm
from utils.lora.base_weights import open_weights, parts_at
from utils.lora.linear import LinearLora, Misfit
from utils.lora.names import by_part, part_of_linear

_NUMBER = r"(?<=\.)\d+(?=\.)"


@dataclass(frozen=True)
class Share:
    """One linear's.

    Attributes:
        change: Frobenius norm of alpha / rank B A.
        weight: of the base's own weight.
    """

    change: float
    weight: float

    @property
    def ratio(self) -> float:
        """Of the two; infinite where the base's weight is 0."""
        return self.change / self.weight if self.weight else math.inf


def shares_of(loras: Mapping[str, LinearLora], weights: open_weights) -> dict[str, Share]:
    """The share of every linear.

    Args:
        loras: by linear.
        weights: of the base, of every part that `loras` are of.

    Raises:
        Misfit: naming the linears that are not in the base or have another shape there.
    """
    faults = []
    for name, lora in loras.items():
        if f"{name}.weight" not in weights:
            faults.append(f"{name} is no linear of it")
        elif lora.shape != (found := weights.shape(f"{name}.weight")):
            faults.append(f"{name} of shape {lora.shape} (out, in) where {found} fits")
    if faults:
        raise Misfit(faults)
    return {
        name: Share(change_norm(lora), weights[f"{name}.weight"].double().norm().item())
        for name, lora in loras.items()
    }


def print_shares(loras: Mapping[str, LinearLora], base: Path) -> None:
    """Print the table, a row for each kind of linear, its blocks together.

    Raises:
        UserError: if the base is not there, or the LoRA does not fit it.
    """
    parts = by_part(loras)
    there = parts_at(base)
    if missing := [part for part in parts if part not in there]:
        raise UserError(f"{base}: expected a base with {' and '.join(missing)}, found {', '.join(there)}")
    with open_weights(base, parts) as weights:
        try:
            shares = shares_of(loras, weights)
        except Misfit as misfit:
            raise UserError(f"{base}: expected the base of this LoRA, found: {misfit}") from None
        for part, own in parts.items():
            print(_trained(part, own, weights))
    _print_table(shares)


def _trained(part: str, loras: Mapping[str, LinearLora], weights: open_weights) -> str:
    """What a LoRA trained of a part's parameters, in words."""
    own = [name for name in weights if part_of_linear(name) == part]
    whole = sum(math.prod(weights.shape(name)) for name in own)
    trained = sum(lora.rank * sum(lora.shape) for lora in loras.values())
    return f"{part}: {trained} parameters trained, {trained / whole:.2%} of its {whole}"


def _print_table(shares: Mapping[str, Share]) -> None:
    """By kind of linear: how many, and ||dW|| / ||W|| over all of them, the least and the greatest."""
    kinds: dict[str, dict[str, Share]] = {}
    for name, share in shares.items():
        kinds.setdefault(re.sub(_NUMBER, "*", name, count=1), {})[name] = share
    rows: list[tuple[str, ...]] = [("||dW|| / ||W||", "linears", "all", "least", "", "greatest", "")]
    for kind, own in kinds.items():
        least, greatest = (pick(own, key=lambda name: shares[name].ratio) for pick in (min, max))
        whole = Share(*(math.hypot(*norms) for norms in zip(*map(_norms, own.values()), strict=True)))
        ends = [text for name in (least, greatest) for text in (f"{shares[name].ratio:.3g}", _block(name))]
        rows.append((kind, str(len(own)), f"{whole.ratio:.3g}", *ends))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _norms(share: Share) -> tuple[float, float]:
    return share.change, share.weight


def _block(name: str) -> str:
    """The number that `*` stands for in the kind's name."""
    match = re.search(_NUMBER, name)
    return f"in {match[0]}" if match else ""
