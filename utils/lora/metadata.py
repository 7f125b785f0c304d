"""What a trained LoRA's file says of itself: base, method, what it learned from, settings, versions.

The header of a .safetensors holds texts only; what is not one is JSON. Beside the project's own keys stand
those of sd-scripts (ss_*) and modelspec.*, as far as they have a counterpart, so that others' tools can read
the file. rank and alpha are those of the training; ss_network_* are of the file, which has alpha folded in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from utils.config.runs import Run
from utils.errors import UserError
from utils.lora.header import BASE_HASH, BASE_MODEL, architecture_of, modelspec, now
from utils.models.families import family_of, name_of
from utils.models.family import Family
from utils.models.identity import base_hash
from utils.records import project_version, software

BASE_FAMILY = "base_model_version"  # sd-scripts' word, and its "flux1"


def training_metadata(
    run: Run,
    transformer: nn.Module,
    learned_from: list[dict[str, str]],
    step: int,
    processes: int = 1,
    about: str = "",
    optimizer: str = "torch.optim.AdamW",
) -> dict[str, str]:
    """The header of a run's LoRA after `step` steps.

    Args:
        run: names and settings.
        transformer: the base.
        learned_from: as `Batches` says.
        step: optimizer steps done.
        processes: that trained together, each on batch_size samples a step.
        about: the method, in a sentence.
        optimizer: its class.
    """
    config = run.config
    own: dict[str, Any] = {
        BASE_MODEL: config.pretrained_model_name_or_path,
        BASE_HASH: base_hash(transformer),
        "method": config.python_name,
        "about": about,
        "learned_from": learned_from,
        "rank": config.rank,
        "alpha": config.alpha,
        "step": step,
        "processes": processes,
        "config": asdict(config),
        "pairedit_version": project_version(),
        "software": software(),
        "date": now(),
    }
    family = family_of(transformer)
    guidance = bool(getattr(transformer.config, "guidance_embeds", False))
    theirs = _sd_scripts(run, family, len(learned_from), step) | {"optimizer": optimizer}
    return {
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in own.items()},
        **{f"ss_{key}": str(value) for key, value in theirs.items()},
        **modelspec(run.name, architecture_of(family, guidance), config.resolution),
    }


def check_base(path: Path, metadata: Mapping[str, str], transformer: nn.Module) -> None:
    """Raise `UserError` if a LoRA says that it was trained on another base than this one."""
    recorded = metadata.get(BASE_HASH)
    if recorded is not None and recorded != (found := base_hash(transformer)):
        raise UserError(
            f"{path}: expected the base it was trained on, {metadata.get(BASE_MODEL)} ({recorded}), found "
            f"another ({found}); other_base=1 applies it all the same"
        )


def _sd_scripts(run: Run, family: Family, images: int, step: int) -> dict[str, Any]:
    """The keys of sd-scripts that have a counterpart, without their ss_."""
    config = run.config
    return {
        **({"network_module": family.lora.network_module} if family.lora.network_module else {}),
        "network_dim": config.rank,
        "network_alpha": config.rank,
        BASE_FAMILY: name_of(family),
        "sd_model_name": config.pretrained_model_name_or_path,
        "output_name": run.name,
        "learning_rate": config.lr,
        "lr_scheduler": config.lr_scheduler,
        "max_train_steps": config.train_iteration,
        "steps": step,
        "batch_size_per_device": config.batch_size,
        "num_train_images": images,
        "resolution": f"({config.resolution}, {config.resolution})",
        "seed": run.seed,
        "gradient_checkpointing": config.gradient_checkpointing,
        "guidance_scale": config.guidance_scale,
    }
