"""What a training step draws: latents of image pairs, or the base model's own half-made images for a prompt.

Every random choice comes from the generator given, on the CPU, so that it is the same on every device. Of
several processes each draws the samples of all, and takes its own: N of them learn what one would of N times
the batch_size. The images of a step are of one size, of all processes; one drawn at random says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor

from utils.config.schema import Config
from utils.data.pair_checks import share_of_positions
from utils.data.pairs import ImagePair
from utils.data.pixels import pixel_hash
from utils.data.prompts import SliderPrompt
from utils.flow.passes import PairBatch, TextBatch
from utils.flow.sampling import euler_sample
from utils.lora.spread import SHARE
from utils.models.base import Base, PromptEmbeds
from utils.models.velocity import Velocity
from utils.training.distributed import process_count, share

Drawn = TypeVar("Drawn", covariant=True)


class Batches(Protocol[Drawn]):
    """Random training batches."""

    @property
    def learned_from(self) -> list[dict[str, str]]:
        """What they are drawn from, for the header of the LoRA's file: names and hashes, or prompts."""
        ...

    @property
    def sample_prompts(self) -> Sequence[str]:
        """Those under which pictures are drawn while it trains."""
        ...

    def draw(self, generator: Generator, global_step: int = 1) -> Drawn:
        """The batch of a step, from 1 on; most draw alike at every one."""
        ...


@dataclass(frozen=True)
class PairBucket:
    """Cached latents (N, C, h, w) of pairs of one size, and the noise levels (K,) that are drawn for it."""

    sources: Tensor
    targets: Tensor
    sigmas: Tensor


class PairBatches:
    """Batches of cached latents, drawn with replacement; step indices uniform in start_step..end_step.

    Every pair is as likely as any other, in whatever size: a step's size is that of a pair drawn from all.
    """

    sample_prompts = ("",)

    def __init__(self, base: Base, pairs: Sequence[ImagePair], config: Config) -> None:
        self.learned_from = [
            {
                "pair": pair.stem,
                "source": pixel_hash(pair.source),
                "target": pixel_hash(pair.target),
                SHARE: f"{share_of_positions(pair.source, pair.target):.3f}",
            }
            for pair in pairs
        ]
        of_size: dict[tuple[int, ...], list[ImagePair]] = {}
        for pair in pairs:
            of_size.setdefault(pair.source.shape, []).append(pair)
        self.buckets = [_bucket(base, config, own) for own in of_size.values()]
        self.batch_size = config.batch_size

    def draw(self, generator: Generator, global_step: int = 1) -> PairBatch:
        """Latents of batch_size pairs, their sigma and noise."""
        bucket = self.buckets[draw_bucket([len(each.sources) for each in self.buckets], generator)]
        sources, sigmas = bucket.sources, bucket.sigmas
        device, size, own = sources.device, self.batch_size * process_count(), share(self.batch_size)
        index = to_device(torch.randint(len(sources), (size,), generator=generator)[own], device)
        step = to_device(torch.randint(len(sigmas), (size,), generator=generator)[own], device)
        noise = to_device(torch.randn(size, *sources.shape[1:], generator=generator)[own], device)
        return PairBatch(sources[index], bucket.targets[index], sigmas[step], noise)


class TextBatches:
    """Batches for a text slider: each draws one of its prompts and a step index, and denoises to there."""

    def __init__(
        self, base: Base, prompts: Sequence[SliderPrompt], embeds: Mapping[str, PromptEmbeds], config: Config
    ) -> None:
        keys = ("target", "positive", "unconditional", "neutral", "action")
        self.learned_from = [{key: getattr(prompt, key) for key in keys} for prompt in prompts]
        self.base, self.prompts, self.embeds, self.config = base, prompts, embeds, config
        self.sample_prompts = (prompts[0].target,)
        sides = {prompt.resolution or config.resolution for prompt in prompts}
        self.shapes = {side: base.latent_shape(side, side) for side in sides}
        self.sigmas = {
            side: base.sigmas(config.num_inference_steps, *shape[1:]) for side, shape in self.shapes.items()
        }
        self.targets = {
            prompt.target: Velocity(base, embeds[prompt.target], config.guidance_scale) for prompt in prompts
        }

    def draw(self, generator: Generator, global_step: int = 1) -> TextBatch:
        """x_t at sigmas[k] of the base's own trajectory for the target prompt, k in start_step..end_step."""
        config = self.config
        prompt = self.prompts[int(torch.randint(len(self.prompts), (), generator=generator))]
        step = int(torch.randint(config.start_step, config.end_step + 1, (), generator=generator))
        side = prompt.resolution or config.resolution
        noise = torch.randn(prompt.batch_size * process_count(), *self.shapes[side], generator=generator)
        noise = to_device(noise[share(prompt.batch_size)], self.base.device)
        sigmas, model = self.sigmas[side], self.targets[prompt.target]
        return TextBatch(
            x_t=euler_sample(model.scaled({}), noise, sigmas, 0, step),
            sigma=sigmas[step].expand(prompt.batch_size),
            target=prompt.target,
            start=prompt.neutral,
            positive=prompt.positive,
            negative=prompt.unconditional,
            eta=prompt.eta,
        )


def draw_bucket(counts: Sequence[int], generator: Generator) -> int:
    """Which bucket a step is of, each as likely as it has samples; of one alone nothing is drawn."""
    if len(counts) == 1:
        return 0
    drawn = int(torch.randint(sum(counts), (), generator=generator))
    return next(index for index, upto in enumerate(accumulate(counts)) if drawn < upto)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, without waiting for what the device is at."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _bucket(base: Base, config: Config, pairs: Sequence[ImagePair]) -> PairBucket:
    """The latents of pairs of one size."""
    sources = torch.cat([base.encode_images(pair.source[None]) for pair in pairs])
    targets = torch.cat([base.encode_images(pair.target[None]) for pair in pairs])
    return PairBucket(sources, targets, _training_sigmas(base, config, *sources.shape[-2:]))


def _training_sigmas(base: Base, config: Config, height: int, width: int) -> Tensor:
    """The noise levels that training draws from."""
    sigmas = base.sigmas(config.num_inference_steps, height, width)
    return sigmas[config.start_step : config.end_step + 1]
