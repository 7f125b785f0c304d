"""What to do when a device's memory does not suffice."""

from __future__ import annotations

import torch

from utils.config.load import BASES, load_config
from utils.config.schema import Config
from utils.models.families import presets_beside

BITS = {"none": 16, "fp8": 8, "int8": 8, "nf4": 4}  # a weight


def out_of_memory(config: Config, device: torch.device) -> str:
    """One line for a run that ran out of memory: the next smaller preset, or else what takes less."""
    has = torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else 0.0
    found = f"out of memory with base={config.base}" + (f" on a card of {has:.0f} GB" if has else "")
    if smaller := _smaller(config):
        fitting = [base for base in smaller if not has or smaller[base] <= 1.1 * has] or list(smaller)[-1:]
        return f"{found}; base={fitting[0]} needs less"
    less = {
        "gradient_checkpointing=1": not config.gradient_checkpointing,
        "joint_passes=0": config.joint_passes,
        "batch_size=1": config.batch_size > 1,
        "batch_size_gen=1": config.batch_size_gen > 1,
        "a smaller resolution": True,
    }
    return f"{found}; {' or '.join(key for key, helps in less.items() if helps)} needs less"


def _smaller(config: Config) -> dict[str, int]:
    """The presets of the base's family that need less than a config of one of them, whatever it changes."""
    own = _rank(config)
    beside = presets_beside(config.base)
    configs = {base: load_config("train_image", [f"base={base}"], BASES.parent) for base in beside}
    return {base: beside[base] for base, preset in configs.items() if _rank(preset) < own}


def _rank(config: Config) -> tuple[int, bool, bool]:
    return BITS[config.quantization], not config.gradient_checkpointing, config.joint_passes
