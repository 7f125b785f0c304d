"""Captioned images as what a run learns from: a subject, a style; see utils/data/captioned.py for where."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from utils.config.load import read_config
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config, warmup_faults
from utils.data.buckets import Buckets, Size, bucket_size
from utils.data.caption_files import CaptionedImage
from utils.data.captioned import Captioned, CaptionedDataset, find_captioned, read_captioned
from utils.data.captions import TRIGGER, steady_caption
from utils.data.dataset_summary import DatasetCount, SizeOf, count_epoch, in_words
from utils.data.epochs import Step, plan_steps, spelled, steps_of_epoch, without_words
from utils.errors import UserError
from utils.machine import launched_processes
from utils.models.families import pixel_multiple_at
from utils.models.family import Family
from utils.training.captioned_faults import unfit_together
from utils.training.class_images import given_class_images
from utils.training.sources import Source

if TYPE_CHECKING:
    from torch import Tensor

    from utils.models.base import Base, PromptEmbeds
    from utils.training.batches import Batches


@dataclass(frozen=True)
class CaptionedImages(Source):
    """Images with captions: a folder, or sd-scripts' dataset TOML.

    Attributes:
        path: of the folder or TOML.
        config: the run's.
        seed: of order and captions.
    """

    kind: ClassVar[str] = "captioned images"
    trained_by: ClassVar[str] = "train_subject_script.py"
    captioned: ClassVar[bool] = True
    path: Path
    config: Config
    seed: int

    def __hash__(self) -> int:
        return hash((self.path, self.seed))

    @classmethod
    def of(cls, run: Run, prompts_folder: Path | None = None) -> Self:
        """See `Source.of`; raises `UserError` for a dataset that is not there."""
        return cls(find_captioned(Path(run.config.datasets_folder), run.dataset), run.config, run.seed)

    @classmethod
    def runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[Run]:
        """With the steps that train_epochs stand for, and a prior where the dataset brings its images."""
        return [cls.of(run).settled(run) for run in expand_runs(config)]

    @classmethod
    def trained_runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[Run]:
        """As `runs`, with the steps and the prior of what was trained, by however many processes.

        So the dataset need not be there, or may have changed since.
        """
        return [_as_trained(run) or cls.of(run).settled(run) for run in expand_runs(config)]

    def settled(self, run: Run) -> Run:
        """See `Source.settled`."""
        config = run.config
        if config.prior == "none" and self.class_images:
            config = replace(config, prior="images")
        if config.train_epochs:
            config = replace(config, train_iteration=config.train_epochs * self.steps_of_epoch)
        if config.save_per_epochs:
            config = replace(config, save_per_steps=config.save_per_epochs * self.steps_of_epoch)
        if faults := warmup_faults(config):
            raise UserError("; ".join(faults))
        return replace(run, config=config)

    # --- what there is on disk ---

    @cached_property
    def everything(self) -> Captioned:
        """The dataset as it is read, images of the class among it."""
        config = self.config
        defaults = {
            "resolution": [config.resolution],
            "batch_size": config.batch_size,
            "shuffle_caption": config.shuffle_caption,
            "keep_tokens": config.keep_tokens,
            "caption_dropout_rate": config.caption_drop,
            "caption_tag_dropout_rate": config.tag_drop,
            "flip_aug": config.flip,
        }
        unsaid = " ".join(filter(None, (self.name, self.config.class_word)))
        return read_captioned(self.path, defaults, self.name, unsaid, config.resolutions)

    @property
    def name(self) -> str:
        """The word that stands for the subject: the token that learns, or trigger."""
        return self.config.new_token or self.config.trigger

    @cached_property
    def datasets(self) -> tuple[CaptionedDataset, ...]:
        """The images of the subject."""
        return self._only(is_reg=False)

    @cached_property
    def class_images(self) -> tuple[CaptionedImage, ...]:
        """The dataset's own images of the class, as often as it says, each under one caption."""
        subsets = [subset for dataset in self._only(is_reg=True) for subset in dataset.subsets]
        return tuple(
            replace(image, caption=steady_caption(image.caption, image.tags, subset.rules), tags=())
            for subset in subsets
            for image in subset.images
            for _ in range(image.repeats)
        )

    @cached_property
    def given_of_class(self) -> list[Path]:
        """Images of the class in prior_folder, where it is these that are learned."""
        of_folder = self.config.prior == "images" and not self.class_images
        return list(given_class_images(self.config).values()) if of_folder else []

    def _only(self, is_reg: bool) -> tuple[CaptionedDataset, ...]:
        """The datasets without images of the other kind."""
        datasets = []
        for dataset in self.everything.datasets:
            subsets = [
                replace(subset, images=tuple(each for each in subset.images if each.is_reg == is_reg))
                for subset in dataset.subsets
            ]
            if kept := tuple(subset for subset in subsets if subset.images):
                datasets.append(replace(dataset, subsets=kept))
        return tuple(datasets)

    def pictures(self) -> Tensor:
        """The subject's images (R, 3, S, S) in [-1, 1], of the most common size, each once; for measuring."""
        import torch

        from utils.data.pixels import load_cropped

        sizes = list(self._sizes.values())
        size = max(sizes, key=sizes.count)
        paths = dict.fromkeys(image.path for dataset in self.datasets for image in dataset.images)
        return torch.stack([load_cropped(path, size) for path in paths])

    # --- sizes, steps ---

    @cached_property
    def multiple(self) -> int:
        """Of which sides are multiples."""
        return pixel_multiple_at(self.config.pretrained_model_name_or_path)

    def bucketing(self, dataset: CaptionedDataset) -> SizeOf:
        """What gives a dataset's images their sizes: a TOML's own rules, or those of all other images."""
        options = dataset.options
        if self.path.is_dir():
            side = options.size[0]
            return lambda width, height, where: bucket_size(width, height, side, self.multiple, where)
        if not options.enable_bucket:
            return lambda width, height, where: options.size
        return Buckets(
            options.size,
            options.min_bucket_reso,
            options.max_bucket_reso,
            options.bucket_reso_steps,
            options.bucket_no_upscale,
        ).of

    @cached_property
    def _sizes(self) -> dict[tuple[str, Path], Size]:
        """By dataset and image."""
        from utils.data.decoding import read_size  # here, as Pillow takes a while

        return {
            (dataset.place, image.path): of(*read_size(image.path), image.path)
            for dataset in self.datasets
            for of in [self.bucketing(dataset)]
            for image in dataset.images
        }

    def _size_of(self, dataset: CaptionedDataset, image: CaptionedImage) -> Size:
        return self._sizes[dataset.place, image.path]

    @cached_property
    def steps_of_epoch(self) -> int:
        """Steps that show every image as often as its repeats say, of all processes together."""
        _ = self.count
        return steps_of_epoch(self.datasets, self._size_of, launched_processes())

    @cached_property
    def plan(self) -> list[Step]:
        """What every step of the training sees."""
        _ = self.count
        steps = self.config.train_iteration
        return plan_steps(self.datasets, self._size_of, steps, launched_processes(), self.seed, self.name)

    @cached_property
    def count(self) -> Sequence[DatasetCount]:
        """The epoch in numbers; raises `UserError`, naming each image that can't be read or has no size."""
        return count_epoch(Captioned(self.datasets), self.bucketing)

    # --- what a source says ---

    def paths(self) -> dict[str, Path]:
        """See `Source.paths`."""
        return {"images": self.path}

    def summary(self) -> list[str]:
        """See `Source.summary`."""
        return [*self.everything.notes, *in_words(self.count, self.config.train_iteration)]

    def look(self, dataset: str) -> list[str]:
        """See `Source.look`."""
        return self.summary()

    def fingerprint(self) -> str:
        """Of the images' bytes, their captions and what becomes of them."""
        digest = sha256(repr([(self.datasets, self.class_images), self.bucketing_in_words]).encode())
        images = [image.path for each in self.everything.datasets for image in each.images]
        for path in dict.fromkeys([*images, *self.given_of_class]):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    @property
    def bucketing_in_words(self) -> str:
        """What sizes depend on, beside the datasets' options."""
        return f"{not self.path.is_dir()} {self.multiple}"

    def class_caption(self, caption: str) -> str:
        """A caption without the words that name the subject."""
        return without_words(caption, (self.name, TRIGGER))

    @cached_property
    def prompts(self) -> Sequence[str]:  # type: ignore[override]
        """All captions of all steps, those of the prior, and those that pictures are drawn under."""
        captions = dict.fromkeys(sample.caption for step in self.plan for sample in step.samples)
        of_prior = {
            "none": [],
            "base": [self.class_caption(caption) for caption in captions],
            "images": [self.class_prompt, *(image.caption for image in self.class_images)],
        }[self.config.prior]
        config = self.config
        wanted = [*captions, *of_prior, *self.sample_prompts]
        return list(dict.fromkeys(spelled(prompt, config.new_token, config.token_init) for prompt in wanted))

    @property
    def class_prompt(self) -> str:
        """What images of the class are generated and learned under, where there are none of the dataset's."""
        return self.config.class_prompt or f"a photo of a {self.config.class_word}"

    @property
    def sample_prompts(self) -> list[str]:
        """What pictures are drawn under while it trains: the config's, or the first caption."""
        return self.config.sample_prompts or [self.plan[0].samples[0].caption]

    def read(self) -> None:
        """See `Source.read`."""
        if faults := unfit_together(self):
            raise UserError("; ".join(faults))
        _ = self.plan

    def check_fits(self, family: Family) -> None:
        """See `Source.check_fits`: sizes that a TOML gives."""
        for width, height in sorted({step.size for step in self.plan}):
            family.check_size(width, f"{self.path}: resolution or bucket")
            family.check_size(height, f"{self.path}: resolution or bucket")

    def batches(self, base: Base, embeds: Mapping[str, PromptEmbeds], config: Config) -> Batches[Any]:
        """Latents of the images, in the plan's batches."""
        from utils.training.captioned_batches import CaptionedBatches

        return CaptionedBatches(base, self, embeds, config)


def _as_trained(run: Run) -> Run | None:
    """The run with what its dataset set when it was trained, for so many epochs; None: it was not."""
    if not run.config_path.is_file():
        return None
    try:
        there, config = read_config(run.config_path), run.config
    except UserError:  # of another version: the dataset says it, if it is there
        return None
    if (there.train_epochs, there.save_per_epochs) != (config.train_epochs, config.save_per_epochs):
        return None
    if config.prior == "none":
        config = replace(config, prior=there.prior)
    if config.train_epochs:
        config = replace(config, train_iteration=there.train_iteration)
    if config.save_per_epochs:
        config = replace(config, save_per_steps=there.save_per_steps)
    return replace(run, config=config)
