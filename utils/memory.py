"""What to do when a device's memory does not suffice."""

from __future__ import annotations

import torch

from utils.config import Config

# GB of a card -> the base for it, in config/base/
PRESETS = {80: "flux_dev", 24: "flux_dev_24gb", 16: "flux_dev_16gb", 12: "flux_dev_12gb"}


def out_of_memory(config: Config, device: torch.device) -> str:
    """One line for a run that ran out of memory: the next smaller preset, or else what takes less."""
    has = torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else 0.0
    found = f"out of memory with base={config.base}" + (f" on a card of {has:.0f} GB" if has else "")
    own = next((size for size, base in PRESETS.items() if base == config.base), None)
    if own is not None and (smaller := [size for size in PRESETS if size < own]):
        fitting = [size for size in smaller if not has or size <= 1.1 * has] or [min(smaller)]
        return f"{found}; base={PRESETS[max(fitting)]} needs less"
    less = {
        "gradient_checkpointing=1": not config.gradient_checkpointing,
        "joint_passes=0": config.joint_passes,
        "batch_size=1": config.batch_size > 1,
        "batch_size_gen=1": config.batch_size_gen > 1,
        "a smaller resolution": True,
    }
    return f"{found}; {' or '.join(key for key, helps in less.items() if helps)} needs less"
