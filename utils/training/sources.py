"""What runs learn from: image pairs, one photograph. A new source is one class, here or in its own file.

A source says where its files lie from the start and reads them when first asked, so that a command can list,
hash and check them before anything heavy is loaded. Equal sources are read once, see `shared`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from utils.config.runs import RealRun, Run, expand_real_runs, expand_runs
from utils.config.schema import Config
from utils.files import find_images
from utils.models.families import pixel_multiple_at
from utils.models.family import Family

if TYPE_CHECKING:
    from PIL.Image import Image

    from utils.data.pairs import ImagePair
    from utils.data.photos import Photo
    from utils.models.base import Base, PromptEmbeds
    from utils.training.batches import Batches


class Source(ABC):
    """What a run learns from.

    Attributes:
        kind: in words, for tables.
        trained_by: the command that trains on it.
        captioned: whether the keys of captioned images make a difference to it.
        counted: whether pair_count says how much of it is learned from.
        prompts: every text that the base is to encode for it.
    """

    kind: ClassVar[str]
    trained_by: ClassVar[str] = "train_image_script.py"
    captioned: ClassVar[bool] = False
    counted: ClassVar[bool] = False
    prompts: Sequence[str] = ("",)

    @classmethod
    @abstractmethod
    def of(cls, run: Run, prompts_folder: Path | None = None) -> Self:
        """The source of a run.

        Args:
            run: names and settings.
            prompts_folder: where prompt files lie, if not in the run's datasets_folder.
        """

    @classmethod
    def runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[Run]:
        """The runs of a config's sweep; `given` are the keys that the command line gave."""
        return expand_runs(config)

    @classmethod
    def trained_runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[Run]:
        """The same runs for what comes after their training."""
        return cls.runs(config, given)

    @abstractmethod
    def paths(self) -> dict[str, Path]:
        """Where it lies on disk, by what it is."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of what is learned; another one means another training."""

    @abstractmethod
    def read(self) -> None:
        """Read it, unless it was; raises `UserError` for whatever is wrong with it."""

    @abstractmethod
    def batches(self, base: Base, embeds: Mapping[str, PromptEmbeds], config: Config) -> Batches[Any]:
        """What a training step draws; `embeds` are those of its prompts."""

    def summary(self) -> list[str]:
        """What training on it will be, a line each, for a dry run."""
        return []

    def look(self, dataset: str) -> list[str]:
        """What there is to say of it before it is learned, a line each; what may be wrong says "check"."""
        return []

    def sheet(self) -> Image | None:
        """A picture of it as it is learned, if there is one worth drawing."""
        return None

    def settled(self, run: Run) -> Run:
        """The run with what the source itself sets."""
        return run

    def check_fits(self, family: Family) -> None:  # noqa: B027  most have nothing that might not
        """Raise `UserError` for what a base of this family can't learn from."""


@dataclass(frozen=True)
class ImagePairs(Source):
    """Images before and after an edit, in two folders, matched by file stem; see `load_pairs`."""

    kind: ClassVar[str] = "image pairs"
    counted: ClassVar[bool] = True
    source_folder: Path
    target_folder: Path
    resolution: int
    resize: str = "error"
    count: int = 0
    align: str = "none"
    multiple: int = 1

    @classmethod
    def of(cls, run: Run, prompts_folder: Path | None = None) -> Self:
        """See `Source.of`."""
        config = run.config
        multiple = pixel_multiple_at(config.pretrained_model_name_or_path)
        how = config.resolution, config.resize, config.pair_count, config.align, multiple
        return cls(run.source_folder, run.target_folder, *how)

    def paths(self) -> dict[str, Path]:
        """See `Source.paths`."""
        return {"source": self.source_folder, "target": self.target_folder}

    def fingerprint(self) -> str:
        """Of the files' content."""
        found = map(find_images, (self.source_folder, self.target_folder))
        chosen = [list(by_stem.values())[: self.count or None] for by_stem in found]
        return _hash_of([path for paths in chosen for path in paths])

    @cached_property
    def pairs(self) -> list[ImagePair]:
        """The pairs' pixels."""
        from utils.data.pairs import load_pairs

        how = self.resolution, self.resize, self.count, self.align, self.multiple
        return load_pairs(self.source_folder, self.target_folder, *how)

    def read(self) -> None:
        """See `Source.read`."""
        _ = self.pairs

    def look(self, dataset: str) -> list[str]:
        """See `Source.look` and utils/data/pair_checks.py."""
        from utils.data.pair_checks import in_words, look_at

        return in_words(dataset, *look_at(self.pairs))

    def sheet(self) -> Image | None:
        """Each pair beside its difference."""
        from utils.data.pair_sheet import pair_sheet

        return pair_sheet(self.pairs)

    def batches(self, base: Base, embeds: Mapping[str, PromptEmbeds], config: Config) -> Batches[Any]:
        """Latents of pairs."""
        from utils.training.batches import PairBatches

        return PairBatches(base, self.pairs, config)


@dataclass(frozen=True)
class Photograph(Source):
    """One photograph.

    Attributes:
        path, resolution, resize, multiple: see `load_photo`.
        pixels: in place of the file, for a picture that was never in one.
    """

    kind: ClassVar[str] = "one photograph"
    path: Path
    resolution: int
    pixels: Photo | None = field(default=None, compare=False)
    resize: str = "error"
    multiple: int = 1

    @classmethod
    def of(cls, run: Run, prompts_folder: Path | None = None) -> Self:
        """See `Source.of`."""
        if not isinstance(run, RealRun):
            raise TypeError(f"expected the run of a photograph, found {run.name}")
        config, multiple = run.config, pixel_multiple_at(run.config.pretrained_model_name_or_path)
        return cls(run.photograph, config.resolution, resize=config.resize, multiple=multiple)

    @classmethod
    def runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[RealRun]:
        """One a photograph."""
        return expand_real_runs(config)

    def paths(self) -> dict[str, Path]:
        """See `Source.paths`."""
        return {"photo": self.path}

    def fingerprint(self) -> str:
        """Of the file's content, or of the pixels in its place."""
        if self.pixels is not None:
            return sha256(self.pixels.pixels.numpy().tobytes()).hexdigest()
        return _hash_of([self.path])

    @cached_property
    def photo(self) -> Photo:
        """The photograph, whole and what of it is learned."""
        from utils.data.photos import load_photo

        return self.pixels or load_photo(self.path, self.resolution, self.resize, self.multiple)

    def read(self) -> None:
        """See `Source.read`."""
        _ = self.photo

    def batches(self, base: Base, embeds: Mapping[str, PromptEmbeds], config: Config) -> Batches[Any]:
        """Latents of the photograph, as a pair of itself."""
        from utils.data.pairs import ImagePair
        from utils.training.batches import PairBatches

        pixels = self.photo.pixels
        return PairBatches(base, [ImagePair(self.path.stem, pixels, pixels, self.path, self.path)], config)


def shared(sources: Mapping[str, Source]) -> dict[str, Source]:
    """The same sources, equal ones as one object, which is read once."""
    known: dict[Source, Source] = {}
    return {name: known.setdefault(source, source) for name, source in sources.items()}


def _hash_of(files: Sequence[Path]) -> str:
    digest = sha256(repr([]).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
