"""What a LoRA's slider is good for, found by measurement and kept in the header of its file.

eval_scripts/calibrate.py measures and writes it; `scales: auto` reads it back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from utils.config.runs import Run
from utils.errors import UserError

KEY = "calibration"
STEPS = 6
PAIRS_STRENGTH = 0.95
"""A slider only approaches the last few points of the pairs' own change."""

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True)
class Calibration:
    """A slider, measured.

    Attributes:
        pairs_scale: the scale that gives the pairs' own change, PAIRS_STRENGTH of it; None if none does.
        usable: the greatest scale to use: where the image breaks, or else the greatest measured.
        saturates: the scale from which on nothing is gained; None if it rises to the end.
        breaks: where damage passes `limit`; None if it nowhere does.
        judge: what measured strength and damage.
        limit: most damage to put up with.
        skip: step index from which the edit acted.
        identities: how many images at each scale.
    """

    pairs_scale: float | None
    usable: float
    saturates: float | None
    breaks: float | None
    judge: str
    limit: float
    skip: int
    identities: int

    def scales(self) -> list[float]:
        """STEPS scales from 0 to the pairs' own change, or to the end of what is usable if that is less."""
        end = min(self.usable, self.usable if self.pairs_scale is None else self.pairs_scale)
        return [round(end * step / (STEPS - 1), 3) for step in range(STEPS)]

    def metadata(self) -> dict[str, str]:
        """As the header of a LoRA's file holds it."""
        return {KEY: json.dumps(asdict(self))}


def read_calibration(path: Path) -> Calibration:
    """The calibration in a LoRA file; raises `UserError` if it has none, or one that is damaged."""
    from utils.lora.files import read_metadata

    metadata = read_metadata(path)
    if KEY not in metadata:
        raise UserError(
            f"scales: auto: expected a calibrated LoRA, found {path} without; "
            f"calibrate it: python eval_scripts/calibrate.py {path}"
        )
    try:
        return Calibration(**json.loads(metadata[KEY]))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected its calibration in the header, found {error}") from None


def with_scales(run: AnyRun, loras: list[Path]) -> AnyRun:
    """A run whose `scales: auto` are those of its LoRAs' calibrations; another run as it is."""
    config = run.config
    if config.scales or config.lora_scales:
        return run
    calibrations = [read_calibration(path) for path in loras]
    for path, calibration in zip(loras, calibrations, strict=True):
        if config.skips != [calibration.skip]:
            found = f"found skips {config.skips}"
            raise UserError(
                f"scales: auto: expected the skip {path} was calibrated at, {calibration.skip}; {found}"
            )
    each = [calibration.scales() for calibration in calibrations]
    several = each if len(each) > 1 else []
    return replace(run, config=replace(config, scales=each[0], lora_scales=several))
