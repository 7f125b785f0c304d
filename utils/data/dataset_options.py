"""The options of a captioned dataset, by the names that sd-scripts' dataset config has: every one it knows.

Each is taken over, has no effect here, or is refused where what is learned would be something else; and each
has its place in a TOML, from which what lies below inherits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.config.keys import PATH_OR_NONE, Group, coerce, key, keys_of, kinds_of, takes
from utils.config.yaml_files import shorten
from utils.data.captions import CaptionRules

DATASETS = Group("datasets", "images that are drawn into batches together", trains=True)
SUBSETS = Group("subsets", "images that come from one place, under the same rules", trains=True)
SIDE: dict[str, Any] = {"ge": 1, "le": 8192}


@dataclass(frozen=True)
class DatasetOptions:
    """What holds for a dataset as a whole: sizes of images and of batches."""

    # fmt: off
    resolution: list[int] = key(DATASETS, ..., "side of a square, or [width, height]", expected="1 to 8192, or [width, height] of these", filled=True, **SIDE)
    batch_size: int = key(DATASETS, 1, "images a step", ge=1, le=4096)
    enable_bucket: bool = key(DATASETS, False, "images keep their aspect ratio, each batch has one size; else all are cropped to resolution")
    min_bucket_reso: int = key(DATASETS, 256, "least side of a bucket", **SIDE)
    max_bucket_reso: int = key(DATASETS, 1024, "greatest side of a bucket", **SIDE)
    bucket_reso_steps: int = key(DATASETS, 64, "of which sides are multiples", **SIDE)
    bucket_no_upscale: bool = key(DATASETS, False, "no image is enlarged; buckets are what that makes them, without bounds")
    # fmt: on

    @property
    def size(self) -> tuple[int, int]:
        """resolution as (width, height)."""
        return self.resolution[0], self.resolution[-1]


@dataclass(frozen=True)
class SubsetOptions:
    """Where a subset's images and captions lie, and how often they come."""

    # fmt: off
    image_dir: str = key(SUBSETS, "", "the folder of images; only beside metadata_file it may be left out", **PATH_OR_NONE)
    metadata_file: str = key(SUBSETS, "", "JSON with a caption for each image, in place of files beside them", **PATH_OR_NONE)
    caption_extension: str = key(SUBSETS, "", 'of files with captions; "": .txt or .caption, whichever is there')
    class_tokens: str = key(SUBSETS, "", "the caption of images without a file")
    num_repeats: int = key(SUBSETS, 1, "how often each image comes in an epoch; 0 leaves the subset out", ge=0, le=100_000)
    is_reg: bool = key(SUBSETS, False, "regularization images: of the class, not the subject")
    flip_aug: bool = key(SUBSETS, False, "each time mirrored or not")
    # fmt: on


OWNERS = (DatasetOptions, SubsetOptions, CaptionRules)
TAKEN: dict[str, type] = {name: owner for owner in OWNERS for name in keys_of(owner)}
"""Key -> the class that holds it."""


@dataclass(frozen=True)
class NotTaken:
    """A key that sd-scripts knows and that is not taken over.

    Attributes:
        why: in words.
        idle: values under which it does nothing in sd-scripts either.
        refused: whether any other is refused, as something else would be learned; else it is said to do nothing.
    """

    why: str
    idle: tuple[Any, ...] = ()
    refused: bool = True


NOT_TAKEN: dict[str, NotTaken] = {
    "color_aug": NotTaken("images are encoded once, so their colours can't vary from step to step", (False,)),
    "random_crop": NotTaken("images are encoded once, so their crop can't vary from step to step", (False,)),
    "face_crop_aug_range": NotTaken("images are encoded once, so their crop can't vary from step to step"),
    "token_warmup_step": NotTaken("captions do not grow with training; every step sees whole ones", (0,)),
    "token_warmup_min": NotTaken("captions do not grow with training", (1,), refused=False),
    "alpha_mask": NotTaken("the loss counts all of an image", (False,)),
    "network_multiplier": NotTaken("a LoRA is trained at scale 1", (1,)),
    "custom_attributes": NotTaken("they turn on another loss for some images", ({},)),
    "conditioning_data_dir": NotTaken("it trains a ControlNet"),
    "validation_split": NotTaken("no images are held out; move those that are to be elsewhere", (0,)),
    "validation_seed": NotTaken("no images are held out", refused=False),
    "resize_interpolation": NotTaken("images are resampled by Lanczos", ("lanczos",), refused=False),
    "cache_info": NotTaken("captions and sizes are read anew each time", (False,), refused=False),
}

ELSEWHERE: dict[str, str] = {
    "train_batch_size": "batch_size",
    "dataset_repeats": "num_repeats",
    "train_data_dir": "image_dir",
    "reg_data_dir": "image_dir, with is_reg = true",
    "in_json": "metadata_file",
}
"""Options of sd-scripts' command line -> what they are in a TOML."""

KNOWN = (*TAKEN, *NOT_TAKEN)
GENERAL, DATASET, SUBSET = "[general]", "[[datasets]]", "[[datasets.subsets]]"
_OWN = ("image_dir", "metadata_file", "is_reg", "alpha_mask", "conditioning_data_dir")
_OF_A_DATASET = (*keys_of(DatasetOptions), "network_multiplier", "validation_split", "validation_seed")


def places_of(name: str) -> tuple[str, ...]:
    """Where in a TOML a key may stand; what lies below inherits it."""
    if name in _OWN:
        return (SUBSET,)
    return (GENERAL, DATASET) if name in _OF_A_DATASET else (GENERAL, DATASET, SUBSET)


def read_option(name: str, value: Any) -> Any:
    """A key's value out of a TOML, in which types are written; raises ValueError, in words, for another."""
    own, kind = keys_of(TAKEN[name])[name], kinds_of(TAKEN[name])[name]
    if name == "resolution":
        value = value if isinstance(value, list) else [value]
        fits = len(value) in (1, 2) and all(type(side) is int for side in value)
    elif kind is float:
        fits = type(value) in (int, float)
    else:
        fits = type(value) is kind
    if not fits:
        found = shorten(repr(value if name != "resolution" or len(value) != 1 else value[0]))
        wanted = "true or false" if kind is bool else takes(own, kind)
        raise ValueError(f"expected {wanted}, found {found}")
    return coerce(TAKEN[name], name, value)


def of_layers(owner: type, *layers: Mapping[str, Any]) -> Any:
    """`owner` of the values in layers, of which a later one goes before an earlier one."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {name: value for name, value in layer.items() if TAKEN.get(name) is owner}
    return owner(**values)
