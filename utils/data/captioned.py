"""Datasets of captioned images: out of a folder, or of sd-scripts' dataset TOML, the same typed thing.

    NAME/a.png a.txt             a folder with captions beside the images, or in metadata.jsonl
    NAME/10_ohwx man/a.png       sd-scripts' folders: repeats, and the caption of images without any
    NAME.toml                    sd-scripts' dataset config, see utils/data/dataset_toml.py
    NAME.yaml, .toml, .sh, ...   another trainer's config, see utils/data/foreign/read.py

No image is decoded here and no model loaded: all that is wrong with a dataset is said at once, in one error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.data.caption_files import METADATA, CaptionedImage, read_folder, read_metadata
from utils.data.captions import TRIGGER, CaptionRules
from utils.data.dataset_options import DatasetOptions, SubsetOptions, of_layers, read_option
from utils.data.dataset_toml import DatasetTable, SubsetTable, read_tables
from utils.data.findings import Findings, counted, some_of
from utils.data.foreign.read import is_foreign
from utils.errors import UserError, nearest
from utils.files import SUFFIXES, in_folder

_REPEATS = re.compile(r"(\d+)(?:_(.*))?")


@dataclass(frozen=True)
class CaptionedSubset:
    """Images from one place, whose captions vary by the same rules.

    Attributes:
        place: where they come from, in words.
        images: in the order of their files.
        rules: see `utils.data.captions.draw_caption`.
        flip_aug: whether each may be mirrored whenever it is drawn.
    """

    place: str
    images: tuple[CaptionedImage, ...]
    rules: CaptionRules
    flip_aug: bool = False


@dataclass(frozen=True)
class CaptionedDataset:
    """Subsets that are drawn into batches together, under one resolution and one size of batches."""

    place: str
    options: DatasetOptions
    subsets: tuple[CaptionedSubset, ...]

    @property
    def images(self) -> list[CaptionedImage]:
        """Of all subsets."""
        return [image for subset in self.subsets for image in subset.images]


@dataclass(frozen=True)
class Captioned:
    """All that a name stands for: datasets, each with sizes of its own, and what is to be said of them."""

    datasets: tuple[CaptionedDataset, ...]
    notes: tuple[str, ...] = ()


def find_captioned(folder: Path, name: str) -> Path:
    """The dataset `name` of a folder, NAME or NAME.toml in it; raises `UserError` for neither and both.

    The whole name of another trainer's config stands for the dataset that this one describes.
    """
    if is_foreign(foreign := in_folder(folder, name)):
        return foreign
    plain, toml = in_folder(folder, name), in_folder(folder, f"{name.removesuffix('.toml')}.toml")
    there = [path for path, is_there in ((plain, plain.is_dir()), (toml, toml.is_file())) if is_there]
    if len(there) > 1:
        raise UserError(f"{folder}: expected one dataset {name}, found {plain.name} and {toml.name}")
    if there:
        return there[0]
    names = sorted({path.stem for path in folder.glob("*") if path.is_dir() or path.suffix == ".toml"})
    raise UserError(
        f"{folder}: expected a folder {name} or a file {toml.name}, found none{nearest(name, names)}; "
        f"there are: {', '.join(names) or 'none'}"
    )


def read_captioned(
    path: Path,
    defaults: Mapping[str, Any],
    trigger: str = "",
    unsaid: str = "",
    resolutions: Sequence[int] = (),
) -> Captioned:
    """Read a dataset's files, all but the images' pixels.

    Args:
        path: a folder, a TOML of sd-scripts, or another trainer's config.
        defaults: options by sd-scripts' names, for what the dataset itself does not say.
        trigger: the word that `[trigger]` in captions stands for; "": there is none.
        unsaid: the caption of images in folders where none has any; "": these are faults.
        resolutions: in place of the defaults' one: every image comes at each; none: that one.

    Raises:
        UserError: all that is wrong with the dataset, in one line.
    """
    has_tables = (path.suffix == ".toml" and not path.is_dir()) or is_foreign(path)
    if not has_tables and not path.is_dir():
        beside = [each.name for each in path.parent.glob("*")]
        raise UserError(
            f"{path}: expected a folder of images, or a .toml, found none{nearest(path.name, beside)}"
        )
    findings = Findings()
    base = {name: read_option(name, value) for name, value in defaults.items()}
    tables: dict[tuple[str, tuple[int, ...]], DatasetTable] = {}
    for own in [{**base, "resolution": [side]} for side in resolutions] or [base]:
        found = read_tables(path, own, findings) if has_tables else [_table_of_folder(path, own, findings)]
        for table in found:  # one with a resolution of its own is the same each time
            tables.setdefault((table.place, tuple(table.options.resolution)), table)
    several = len({place for place, _ in tables}) < len(tables)
    read = [_dataset(table, path.parent, unsaid, findings, several) for table in tables.values()]
    datasets = tuple(dataset for dataset in read if dataset.subsets)
    if not findings.faults:
        findings.faults += _faults(path, datasets, trigger)
    findings.faults = list(dict.fromkeys(findings.faults))
    findings.settle()
    return Captioned(datasets, tuple(dict.fromkeys(findings.notes)))


# --- folders ---


def _table_of_folder(folder: Path, base: Mapping[str, Any], findings: Findings) -> DatasetTable:
    """A folder as the options that a TOML would give: one dataset, of one subset or of `10_class` folders."""
    options, own = of_layers(DatasetOptions, base), of_layers(SubsetOptions, base)
    rules = of_layers(CaptionRules, base)
    subsets = [SubsetTable(f"{folder}", replace(own, image_dir=str(folder)), rules)]
    if _holds_subsets(folder):
        subsets = []
        for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
            if found := _REPEATS.fullmatch(below.name):
                repeats, words = int(found.group(1)), (found.group(2) or "").strip()
                there = replace(
                    own, image_dir=str(below), num_repeats=repeats, class_tokens=words or own.class_tokens
                )
                subsets.append(SubsetTable(f"{below}", there, rules))
            else:
                findings.notes.append(
                    f"{below}: left out, as its name does not begin with repeats, as in 10_cat"
                )
    return DatasetTable(f"{folder}", options, tuple(subsets))


def _holds_subsets(folder: Path) -> bool:
    """Whether images lie in folders with repeats in their names, and none beside these."""
    if not folder.is_dir() or (folder / METADATA).is_file():
        return False
    there = list(folder.iterdir())
    return not any(path.suffix.lower() in SUFFIXES and path.is_file() for path in there) and any(
        path.is_dir() and _REPEATS.fullmatch(path.name) for path in there
    )


# --- options to images ---


def _dataset(
    table: DatasetTable, beside: Path, unsaid: str, findings: Findings, several: bool
) -> CaptionedDataset:
    """The images of a dataset's subsets; those left out are noted. `several`: it comes at several sizes."""
    subsets, seen = [], set()
    for subset in table.subsets:
        options = subset.options
        if options.num_repeats < 1:
            findings.notes.append(f"{subset.place}: left out, as it comes {options.num_repeats} times")
            continue
        before = len(findings.faults)
        folder = _path(f"{subset.place}: image_dir", options.image_dir, beside, findings)
        metadata = _path(f"{subset.place}: metadata_file", options.metadata_file, beside, findings)
        where = metadata or folder
        if where is None or len(findings.faults) > before:
            continue
        if where in seen:
            findings.notes.append(f"{subset.place}: left out, as {where} comes before in the same dataset")
            continue
        seen.add(where)
        subsets.append(_subset(subset, folder, metadata, unsaid, findings))
    place = f"{table.place} at {table.options.size[0]}" if several else table.place
    return CaptionedDataset(place, table.options, _balanced(subsets, table.place, findings))


def _path(place: str, text: str, beside: Path, findings: Findings) -> Path | None:
    """Where an option leads from here, else from `beside`; None if not given or, with a fault, if nowhere."""
    path = Path(text)
    if not text or path.exists():
        return path if text else None
    if (other := beside / path).exists():
        findings.notes.append(f"{place}: {text} found as {other}")
        return other
    looked = f"{path}" if path.is_absolute() else f"{path} in {Path.cwd()} or in {beside.resolve()}"
    findings.faults.append(f"{place}: expected {looked}, found none")
    return None


def _subset(
    table: SubsetTable, folder: Path | None, metadata: Path | None, unsaid: str, findings: Findings
) -> CaptionedSubset:
    """The images of a subset as its options have them."""
    options = table.options
    if metadata is not None:
        images = read_metadata(metadata, folder, findings)
    else:
        assert folder is not None  # one of both is given, see dataset_toml
        unsaid = "" if options.is_reg else unsaid
        images = read_folder(folder, findings, options.caption_extension, options.class_tokens, unsaid)
    if not table.rules.enable_wildcard:
        several = [image.path.name for image in images if "\n" in image.caption]
        if several:
            findings.notes.append(
                f"{table.place}: {counted(len(several), 'caption')} of several lines, of which the first is "
                f"learned (enable_wildcard draws one): {some_of(several)}"
            )
    repeats, is_reg = options.num_repeats, options.is_reg
    own = tuple(replace(image, repeats=repeats, is_reg=is_reg) for image in images)
    return CaptionedSubset(table.place, own, table.rules, options.flip_aug)


def _balanced(subsets: list[CaptionedSubset], place: str, findings: Findings) -> tuple[CaptionedSubset, ...]:
    """As sd-scripts has it: as many regularization images in an epoch as others, whatever their repeats.

    Each comes as often as its subset says until there are enough, and if there are not, once more in turn.
    """
    wanted = sum(image.repeats for subset in subsets for image in subset.images if not image.is_reg)
    pool = [image for subset in subsets for image in subset.images if image.is_reg]
    if not pool or not wanted:
        return tuple(subsets)
    repeats, have = [0] * len(pool), 0
    for index, image in enumerate(pool):
        if have < wanted:
            repeats[index] = image.repeats
            have += image.repeats
    if have < wanted:
        rounds, rest = divmod(wanted - have, len(pool))
        repeats = [each + rounds + (index < rest) for index, each in enumerate(repeats)]
    if unused := repeats.count(0):
        findings.notes.append(
            f"{place}: {unused} of {counted(len(pool), 'regularization image')} left out, as there are "
            f"{counted(wanted, 'other image')} in an epoch"
        )
    drawn = iter(repeats)
    result = []
    for subset in subsets:
        images = (replace(each, repeats=next(drawn)) if each.is_reg else each for each in subset.images)
        result.append(replace(subset, images=tuple(image for image in images if image.repeats)))
    return tuple(subset for subset in result if subset.images)


# --- what fits together ---


def _faults(path: Path, datasets: tuple[CaptionedDataset, ...], trigger: str) -> list[str]:
    """What is wrong with datasets whose files are all right."""
    faults = []
    images = [image for dataset in datasets for image in dataset.images]
    if all(image.is_reg for image in images):
        found = "regularization images alone" if images else "none"
        faults.append(f"{path}: expected images to learn, found {found}")
    for subset in (subset for dataset in datasets for subset in dataset.subsets):
        around = f"{subset.rules.caption_prefix} {subset.rules.caption_suffix}"
        holding = [image for image in subset.images if TRIGGER in f"{image.caption} {image.tags} {around}"]
        if holding and holding[0].is_reg:
            faults.append(
                f"{subset.place}: expected regularization images without {TRIGGER}, found it in the captions "
                f"of {some_of([image.path.name for image in holding])}"
            )
        elif holding and not trigger:
            faults.append(
                f"{subset.place}: expected a trigger word for {TRIGGER}, which the captions of "
                f"{some_of([image.path.name for image in holding])} hold, found none"
            )
    return faults
