"""Whether an edit is of a part of the image or of all of it, by what its LoRA's header says of its pairs.

A style changes every position; holding it to the unedited image would undo it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from utils.config.runs import Run

SHARE = "share"
"""In `learned_from`, of each pair: the least share of the positions that holds 90% of its change."""
EVERYWHERE = 0.5
"""Of the positions: an edit whose pairs change more is of all of the image. Of the shipped edits of a part
none has more than 0.31, of the styles none less than 0.61."""

AnyRun = TypeVar("AnyRun", bound=Run)


def share_of_change(path: Path) -> float | None:
    """The mean of the pairs' `SHARE`, None where the file does not say; no torch is needed."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            entries = json.loads((file.metadata() or {}).get("learned_from", "[]"))
        shares = [float(entry[SHARE]) for entry in entries]
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None  # whoever applies the file says what is wrong with it
    return sum(shares) / len(shares) if shares else None


def with_locality(run: AnyRun, loras: Sequence[Path]) -> AnyRun:
    """The run, with `locality` off if one of the LoRAs that it applies edits all of the image; says so."""
    if not run.config.locality:
        return run
    for path in loras:
        share = share_of_change(path)
        if share is not None and share > EVERYWHERE:
            print(f"{path}: its pairs change {share:.0%} of the image; locality is off for it", flush=True)
            return replace(run, config=replace(run.config, locality=False))
    return run
