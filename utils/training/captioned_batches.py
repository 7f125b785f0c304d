"""What a training step draws of captioned images: the plan's batch of latents, and images of the class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from utils.config.schema import Config
from utils.data.buckets import Size
from utils.data.epochs import Sample
from utils.data.pixels import load_cropped, pixel_hash
from utils.flow.passes import CaptionedBatch
from utils.flow.timesteps import draw_sigmas
from utils.models.base import Base, PromptEmbeds
from utils.training.batches import to_device
from utils.training.cache import Cache, cached_latents
from utils.training.class_images import generated_class_images
from utils.training.distributed import on_main, process_count, share

if TYPE_CHECKING:
    from utils.training.captioned import CaptionedImages


@dataclass(frozen=True)
class _OfClass:
    """Images of the class at one size: latents (N, C, h, w) and their captions."""

    latents: Tensor
    captions: list[str]


class CaptionedBatches:
    """Batches of cached latents in the order of the source's plan; noise and its levels are drawn."""

    def __init__(
        self, base: Base, source: CaptionedImages, embeds: Mapping[str, PromptEmbeds], config: Config
    ) -> None:
        self.source, self.config, self.device = source, config, base.device
        self.cache = Cache.of(config)
        self.sample_prompts = source.sample_prompts
        self.learned_from: list[dict[str, str]] = []

        # Every image at its size, once; some also mirrored.
        self.latents: dict[tuple[Path, Size, bool], Tensor] = {}
        named: set[Path] = set()
        for step in source.plan:
            for sample in step.samples:
                key = (sample.image.path, step.size, sample.flipped)
                if key not in self.latents:
                    pixels = load_cropped(sample.image.path, step.size)
                    self.latents[key] = self._encode(base, pixels.flip(2) if sample.flipped else pixels)
                    if sample.image.path not in named:
                        named.add(sample.image.path)
                        self.learned_from.append(
                            {"image": sample.image.path.stem, "pixels": pixel_hash(pixels)}
                        )
        sizes = sorted({step.size for step in source.plan})
        self.levels = {size: self._levels(base, size) for size in sizes}

        # Images of the class at every size that there is a step of.
        self.of_class: dict[Size, _OfClass] = {}
        if config.prior == "images":
            found = [(image.path, image.caption or source.class_prompt) for image in source.class_images]
            if not found:
                prompt = source.class_prompt
                paths = on_main(generated_class_images, base, embeds[prompt], prompt, config)
                found = [(path, prompt) for path in paths]
            for size in sizes:
                latents = [self._encode(base, load_cropped(path, size)) for path, _ in found]
                self.of_class[size] = _OfClass(torch.stack(latents), [caption for _, caption in found])

    def _encode(self, base: Base, pixels: Tensor) -> Tensor:
        return cached_latents(base, pixels, self.cache)

    def _levels(self, base: Base, size: Size) -> Tensor:
        _, height, width = base.latent_shape(size[1], size[0])
        return base.sigmas(self.config.num_inference_steps, height, width)

    def draw(self, generator: Generator, global_step: int = 1) -> CaptionedBatch:
        """The batch of a step, from 1 on: this process's share of it."""
        config, step = self.config, self.source.plan[global_step - 1]
        count, own = len(step.samples), share(len(step.samples) // process_count())
        first: Sample = step.samples[0]
        shape = self.latents[first.image.path, step.size, first.flipped].shape

        noise = torch.randn(count, *shape, generator=generator)
        bounds = config.start_step, config.end_step
        drawn = self.levels[step.size], *bounds, count, generator, config.timestep_shift
        sigma = draw_sigmas(config.timesteps, *drawn)
        samples = step.samples[own]
        x_0 = torch.stack([self.latents[each.image.path, step.size, each.flipped] for each in samples])
        captions = [each.caption for each in samples]

        class_x_0, class_prompts = None, list[str]()
        if of_class := self.of_class.get(step.size):
            index = torch.randint(len(of_class.captions), (count,), generator=generator)[own]
            class_x_0 = of_class.latents[index.to(self.device)]
            class_prompts = [of_class.captions[each] for each in index.tolist()]
        return CaptionedBatch(
            x_0=x_0,
            sigma=sigma[own],
            noise=to_device(noise[own], self.device),
            captions=captions,
            class_captions=[self.source.class_caption(caption) for caption in captions],
            class_x_0=class_x_0,
            class_prompts=class_prompts,
        )
