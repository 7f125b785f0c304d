"""What a config asks of the machine, counted before anything is loaded; what can't be meant is refused.

Every figure is less than the truth, so that nothing is refused that would have run. --yes leaves them out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.schema import Config
from utils.errors import UserError
from utils.lora.calibration import UNCALIBRATED

MOST_RUNS = 1_000
"""Trainings of one config; a study of the paper's ablations has some 100."""
MOST_IMAGES = 100_000
"""Of one config; FID takes 50,000."""
MOST_TILES = 1_000
"""Images in the grid of one seed, skips x scales."""
MOST_SECONDS = 1_800.0
"""A single step of training or sampling."""
OPERATIONS = 1e12
"""A second, of the fastest CPU."""
_GPUS = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What Linux has one of where torch can have a GPU."""
_INSISTS = "--yes goes on all the same"


def check_amounts(config: Config, model_path: str, training: bool) -> None:
    """Raise `UserError`, naming the keys, for more runs, images, memory or time than can be meant.

    Args:
        config: of all runs.
        model_path: the base's folder; of a hub id nothing is known of memory and time.
        training: whether runs are trained; if not, images are made of each.
    """
    trainings = len(config.datasets) * config.train_count * len(config.noise_scales)
    counts = {"datasets x train_count x noise_scales: {} runs": (trainings, MOST_RUNS)}
    if not training or config.sample_per_steps:
        tiles = len(config.skips) * _combinations(config)
        images = trainings * config.count_gen * tiles
        counts |= {
            "skips x scales: {} images a seed": (tiles, MOST_TILES),
            "count_gen x skips x scales: {} images": (images, MOST_IMAGES),
        }
    for what, (count, most) in counts.items():
        keys, _, found = what.format(count).partition(": ")
        check_count(keys, count, found, most)

    # A GPU says itself what is too much for it, in the moment it is; a CPU swaps, or is killed.
    shape = read_shape(Path(model_path))
    if shape is None or not _on_cpu(config.device):
        return
    room = memory_bytes()
    for keys, needed in least_bytes(config, shape, training).items():
        if needed > room:
            found = f"{needed / 1e9:.0f} GB and more"
            raise UserError(f"{keys}: expected to fit in {room / 1e9:.0f} GB, found {found}; {_INSISTS}")
    seconds = least_operations(config, shape, training) / OPERATIONS
    if seconds > MOST_SECONDS:
        found = f"{seconds / 3600:.1f} hours and more"
        keys, *_ = _images(config, training)
        raise UserError(f"{keys}, batch_size: expected steps of minutes, found {found} each; {_INSISTS}")


def check_count(keys: str, count: int, found: str, most: int = MOST_RUNS) -> None:
    """Raise `UserError`, naming the keys, for a count above `most`; `found` is the count in words."""
    if count > most:
        raise UserError(f"{keys}: expected {most} at most, found {found}; {_INSISTS}")


def _combinations(config: Config) -> int:
    """Slider scales, or combinations of them of several LoRAs; see `Run.slider_scales`."""
    loras = len(config.trained_lora_path) if config.use_trained_lora_path else 1
    each = config.lora_scales or [config.scales or list(UNCALIBRATED)] * loras
    return math.prod(len(scales) for scales in each)


@dataclass(frozen=True)
class BaseShape:
    """What a base's memory depends on.

    Attributes:
        width, blocks: of the transformer.
        text_heads: of the larger text encoder.
        channels: of the autoencoder at full size, 0 without one.
        pixels: a token's sides.
    """

    width: int
    blocks: int
    text_heads: int
    channels: int
    pixels: int


def read_shape(folder: Path) -> BaseShape | None:
    """The shape of a base in diffusers layout, None where its configs do not say it."""

    def part(name: str) -> dict[str, Any]:
        path = folder / name / "config.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    try:
        transformer, vae, text = part("transformer"), part("vae"), part("text_encoder_2")
        widths = vae.get("block_out_channels", [0])
        return BaseShape(
            width=int(transformer["num_attention_heads"]) * int(transformer["attention_head_dim"]),
            blocks=int(transformer["num_layers"]) + int(transformer.get("num_single_layers", 0)),
            text_heads=int(text.get("num_heads", 0)),
            channels=int(widths[0]),
            pixels=2 ** len(widths),  # the autoencoder halves between widths, the transformer once more
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError):  # the loader says what is wrong with it
        return None


def least_bytes(config: Config, shape: BaseShape, training: bool) -> dict[str, int]:
    """Keys -> bytes that they take at least, each alone."""
    size = 4 if config.dtype == "float32" else 2
    (keys, width, height), length = _images(config, training), config.max_sequence_length
    tokens = _tokens(config, shape, training)
    forwards, kept = _forwards(config, training)
    needs = {
        # the position bias of T5, a matrix a head
        "max_sequence_length": shape.text_heads * length**2 * size + length * shape.width * size,
        # two feature maps of the autoencoder at full size
        keys: 2 * shape.channels * width * height * size,
        # queries, keys, values and the MLP's hidden layer, of one block or, to be learned from, of all
        f"{keys}, {'batch_size' if training else 'batch_size_gen'}": forwards
        * (tokens * shape.width * 7 * size * (shape.blocks if kept else 1)),
        "num_inference_steps": 16 * config.num_inference_steps,
    }
    if training:  # A and B of three linears a block: weights, gradients and two moments, float32
        needs["rank"] = 2 * config.rank * shape.width * 3 * shape.blocks * 4 * 4
    return needs


def least_operations(config: Config, shape: BaseShape, training: bool) -> float:
    """Multiplications and additions of a step: linears of 12 width^2 a block and token, and attention."""
    tokens = _tokens(config, shape, training)
    forwards, _ = _forwards(config, training)
    each = 2.0 * tokens * shape.blocks * (12 * shape.width**2 + 2 * tokens * shape.width)
    return each * forwards * (2 if training else 1)


def _images(config: Config, training: bool) -> tuple[str, int, int]:
    """The keys that say how large images are, width and height; in training of the square of that area."""
    if training or not (config.width or config.height):
        return "resolution", config.resolution, config.resolution
    return "width, height", *config.image_size


def _tokens(config: Config, shape: BaseShape, training: bool) -> int:
    """Of an image and its prompt together."""
    _, width, height = _images(config, training)
    return width // shape.pixels * (height // shape.pixels) + config.max_sequence_length


def _forwards(config: Config, training: bool) -> tuple[int, bool]:
    """Images in one forward pass, and whether all blocks' activations are kept."""
    if training:
        return config.batch_size, not config.gradient_checkpointing
    return min(config.batch_size_gen, config.count_gen * _combinations(config)), False


def _on_cpu(device: str) -> bool:
    """Whether the work is done on the CPU for certain; without torch, which takes seconds to ask."""
    if device == "cpu":
        return True
    return device == "auto" and sys.platform == "linux" and not any(Path(sign).exists() for sign in _GPUS)


def memory_bytes() -> int:
    """Of the machine, or of the container that this runs in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text(encoding="ascii").strip() if Path(path).is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    return min(limits, default=sys.maxsize)
