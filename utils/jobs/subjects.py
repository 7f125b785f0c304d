"""Subjects measured: images of each run's prompts and of its class, with and without its LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from utils.config.runs import Run
from utils.data.captions import TRIGGER
from utils.data.epochs import without_words
from utils.data.sample_prompts import SamplePrompt
from utils.jobs.measured_rows import Row
from utils.training.captioned import CaptionedImages

if TYPE_CHECKING:
    from torch import Tensor

    from utils.measure.subjects import SubjectProbe, Values
    from utils.models.base import Base, PromptEmbeds

CLASS = "[class]"
"""What stands in a prompt for the class word."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a run: of the subject, and the same of its class."""

    of_subject: list[SamplePrompt]
    of_class: list[str]

    @property
    def texts(self) -> list[str]:
        """All that the base is to encode."""
        return list(dict.fromkeys([*(prompt.text for prompt in self.of_subject), *self.of_class]))


def prompts_of(source: CaptionedImages, prompts: Sequence[SamplePrompt]) -> Prompts:
    """A run's prompts out of those of a list, in which `[trigger]` and `[class]` stand for its words."""
    word = source.config.class_word

    def of_subject(text: str) -> str:
        return " ".join(text.replace(TRIGGER, source.name).replace(CLASS, word).split())

    def of_class(text: str) -> str:
        return without_words(text.replace(CLASS, word), (TRIGGER, source.name))

    plain = list(dict.fromkeys(of_class(prompt.text) for prompt in prompts))
    return Prompts([replace(prompt, text=of_subject(prompt.text)) for prompt in prompts], plain)


def prompts_in_words(prompts: Sequence[SamplePrompt], words: str) -> list[SamplePrompt]:
    """The prompts with a description in place of the subject, and its articles mended."""
    named = f"{TRIGGER} {CLASS}"
    return [replace(prompt, text=prompt.text.replace(named, words)) for prompt in prompts]


def measure_subject(
    run: Run,
    label: str,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    references: Tensor,
    prompts: Prompts,
    count: int,
    tools: Mapping[str, Any],
    probe: SubjectProbe | None,
) -> list[Row]:
    """Every measure of one run.

    Args:
        run: its LoRA is trained.
        label: of the rows.
        base: with its VAE.
        embeds: of all its prompts.
        references: images of the subject (R, 3, H, W) in [-1, 1].
        prompts: what is drawn.
        count: images a prompt.
        tools: networks, see utils.measure.encoders.
        probe: of a rendered world, if it is one.
    """
    from utils.generation.sweep import applied_loras
    from utils.measure.subjects import diversity, drift, followed, identity

    rows: list[tuple[str, Values]] = []
    with applied_loras(base.transformer, run.lora_paths, run.config.other_base):
        for number, prompt in enumerate(prompts.of_subject):
            images = _images(run, base, embeds, prompt, count, number, (1.0,))[1.0]
            rows += identity(images, references, tools, probe).items()
            rows += followed(images, prompt.text, tools, probe).items()
            if count > 1:
                rows += diversity(images, references, tools, probe).items()
        for number, text in enumerate(prompts.of_class):
            both = _images(run, base, embeds, SamplePrompt(text), count, 1000 + number, (0.0, 1.0))
            rows += drift(both[1.0], both[0.0], tools, probe).items()
            for name, values in identity(both[1.0], references, tools, probe).items():
                rows.append((f"{name} of the class", values))
    return [Row(label, 1.0, name, values) for name, values in rows]


def measure_words(
    run: Run,
    label: str,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    references: Tensor,
    prompts: Sequence[SamplePrompt],
    count: int,
    tools: Mapping[str, Any],
    probe: SubjectProbe | None,
) -> list[Row]:
    """The base alone under prompts that describe the subject in words: what a LoRA has to be better than."""
    from utils.measure.subjects import followed, identity

    rows: list[tuple[str, Values]] = []
    for number, prompt in enumerate(prompts):
        images = _images(run, base, embeds, prompt, count, number, (0.0,))[0.0]
        rows += identity(images, references, tools, probe).items()
        rows += followed(images, prompt.text, tools, probe).items()
    return [Row(label, 0.0, name, values) for name, values in rows]


def pooled(rows: Sequence[Row]) -> list[Row]:
    """Rows of one label, scale and measure as one, over all their images."""
    import torch
    from torch import Tensor

    groups: dict[tuple[str, float | None, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.run, row.scale, row.measure), []).append(row)
    result = []
    for key, group in groups.items():
        values = [row.values for row in group if isinstance(row.values, Tensor)]
        result.append(Row(*key, torch.cat(values) if values else group[0].values))
    return result


def _images(
    run: Run,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    prompt: SamplePrompt,
    count: int,
    number: int,
    scales: Sequence[float],
) -> dict[float, Tensor]:
    """`count` images (count, 3, H, W) of a prompt at each scale, its settings over the config's."""
    from utils.generation.sweep import sweep_images

    config = run.config
    steps = prompt.steps or config.num_inference_steps
    own = replace(
        config,
        width=prompt.width or config.width,
        height=prompt.height or config.height,
        num_inference_steps=steps,
    )
    first = config.start_seed_gen + 1000 * number if prompt.seed is None else prompt.seed
    skip = min(config.skips[0], steps)
    seeds = range(first, first + count)
    return sweep_images(base, embeds[prompt.text], seeds, [skip], list(scales), own)[skip]
