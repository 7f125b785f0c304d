"""Captioned images of noise for the miniature FLUX, and runs that learn them, as short as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from utils.config.load import read_settings
from utils.config.runs import Run
from utils.models.base import Base
from utils.training.cache import Cache, cached_prompts
from utils.training.captioned import CaptionedImages
from utils.training.trainer import train_run

RATIOS = ((32, 32), (72, 32), (32, 72), (80, 20), (20, 80))
"""Five aspect ratios, each of a size of its own at the miniature's resolution."""


def picture(path: Path, size: tuple[int, int] = (32, 32), caption: str = "", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)


def dataset(folder: Path, sizes: Sequence[tuple[int, int]] = RATIOS, name: str = "anna") -> Path:
    """folder/NAME with a picture of each size."""
    for number, size in enumerate(sizes):
        caption = f"a photo of [trigger] person, smiling, on the {('red', 'blue')[number % 2]} hill"
        picture(folder / name / f"{number}.png", size, caption, seed=number)
    return folder / name


def subject_runs(folder: Path, base: Base | Path, **changes) -> Sequence[Run]:
    """The runs on folder/anna, its output beside it."""
    settings = {
        "pretrained_model_name_or_path": str(base if isinstance(base, Path) else base.path),
        "python_name": "train_subject",
        **{"device": "cpu", "dtype": "float32", "resolution": MINI_RESOLUTION},
        **{"max_sequence_length": MINI_SEQUENCE_LENGTH, "num_inference_steps": 4, "skips": [0]},
        **{"datasets_folder": str(folder), "datasets": ["anna"], "output_folder": str(folder / "out")},
        **{"rank": 2, "lr": 1e-2, "train_iteration": 6, "save_per_steps": 4, "log_every": 2, "batch_size": 2},
        **{"trigger": "ohwx", "class_word": "person", "timesteps": "uniform"},
    }
    return CaptionedImages.runs(read_settings({"test": settings | changes}))


def subject_run(folder: Path, base: Base | Path, **changes) -> Run:
    (run,) = subject_runs(folder, base, **changes)
    return run


def learn_subject(run: Run, base: Base) -> CaptionedImages:
    """Train it, as the command does; gives what it learned from."""
    source = CaptionedImages.of(run)
    source.read()
    embeds = cached_prompts(base, source.prompts, run.config.max_sequence_length, Cache.of(run.config))
    train_run(run, base, source, embeds)
    return source
