"""What a LoRA's slider is good for, found by measurement and kept in the header of its file.

The end of a training and eval_scripts/calibrate.py measure and write it (utils/jobs/calibrate.py);
`scales: auto` reads it back.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from utils.config.runs import Run
from utils.errors import UserError

KEY = "calibration"
STEPS = 5
UNCALIBRATED = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The scales of a LoRA that says nothing of its slider."""
_ROUND = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
"""First digits of a round step."""

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True)
class Calibration:
    """A slider, measured.

    Attributes:
        pairs_scale: the scale that gives the pairs' own change; None if none does.
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
        """STEPS round steps from 0 to about the pairs' own change, or to the end of what is usable."""
        end = self.usable if self.pairs_scale is None else min(self.usable, self.pairs_scale)
        step = _round_step(end / STEPS, self.usable / STEPS)
        return [round(step * number, 6) for number in range(STEPS + 1)]

    def in_words(self) -> str:
        """What was found, for a person to read."""
        found = []
        if self.breaks is not None:
            found.append(f"breaks from scale {self.breaks:.2f} on")
        if self.pairs_scale is None:
            found.append(f"not as far as the pairs up to {self.usable:.2f}")
        else:
            found.append(f"as far as the pairs at {self.pairs_scale:.2f}")
            if self.breaks is not None and self.breaks < self.pairs_scale:
                found[-1] += ", which is beyond"
        scales = ", ".join(f"{scale:g}" for scale in self.scales())
        return f"{', '.join(found)}; scales: {scales} (judge {self.judge}, {self.identities} images each)"

    def metadata(self) -> dict[str, str]:
        """As the header of a LoRA's file holds it."""
        return {KEY: json.dumps(asdict(self))}


def read_calibration(path: Path) -> Calibration | None:
    """The calibration in a LoRA file, None if it has none; raises `UserError` for one that is damaged."""
    from utils.lora.files import read_metadata

    metadata = read_metadata(path)
    if KEY not in metadata:
        return None
    try:
        return Calibration(**json.loads(metadata[KEY]))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected its calibration in the header, found {error}") from None


def lacks_calibration(path: Path) -> bool:
    """Whether a .safetensors has none in its header; without torch, for commands that need none else."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return KEY not in (file.metadata() or {})


def with_scales(run: AnyRun, loras: list[Path]) -> AnyRun:
    """A run whose `scales: auto` are those of its LoRAs' calibrations; another run as it is.

    A LoRA without one, or calibrated at another skip, has the scales `UNCALIBRATED`; so has one that can't be
    read, of which its run will say so, and the others go on.
    """
    config = run.config
    if len(loras) == len(config.lora_scales) == 1:  # another way to write scales
        return replace(run, config=replace(config, scales=config.lora_scales[0], lora_scales=[]))
    if config.scales or config.lora_scales:
        return run
    each = [_scales_of(path, config.skips) for path in loras]
    several = each if len(each) > 1 else []
    return replace(run, config=replace(config, scales=each[0], lora_scales=several))


def _scales_of(path: Path, skips: list[int]) -> list[float]:
    try:
        calibration = read_calibration(path)
    except UserError as error:
        print(f"{error}; scales: auto is 0 to 1 for it", flush=True)
        return list(UNCALIBRATED)
    if calibration is None:
        return list(UNCALIBRATED)
    if skips != [calibration.skip]:
        print(
            f"{path}: calibrated at skip {calibration.skip}, which says nothing of skips {skips}", flush=True
        )
        return list(UNCALIBRATED)
    return calibration.scales()


def _round_step(wanted: float, most: float) -> float:
    """The round number nearest to `wanted`, in ratio, of those up to `most`."""
    if wanted <= 0:
        return 0.0
    magnitude = 10.0 ** math.floor(math.log10(wanted))
    candidates = [first * power for power in (magnitude / 10, magnitude, magnitude * 10) for first in _ROUND]
    return min(
        (step for step in candidates if step <= most * (1 + 1e-9)),
        key=lambda step: abs(math.log(step / wanted)),
    )
