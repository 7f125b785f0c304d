"""Prompts as LoRAs on the text encoders have them, encoded before the encoders are let go.

A slider's scale is its LoRA's on the text encoders, too. So each prompt is encoded at every scale that will
be asked for; what an encoder without a LoRA gives is there once. At scale 0 the base's own is used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.schema import SliderScale
from utils.lora.loading import load_text_loras, text_parts_of

if TYPE_CHECKING:
    from utils.models.base import Base, PromptEmbeds
    from utils.models.embeds import TextScales


@dataclass(frozen=True)
class Edits:
    """LoRAs that will act together, under which prompts.

    Attributes:
        loras: their files.
        scales: a number, or one for each of several files.
        prompts: every one that they act under.
    """

    loras: Sequence[Path]
    scales: Sequence[SliderScale]
    prompts: Collection[str]

    def on_texts(self) -> list[TextScales]:
        """What acts on the text encoders in turn, without those at 0."""
        of_text = {path for path in self.loras if text_parts_of(path)}
        acting = []
        for scale in self.scales if of_text else ():
            each = scale if isinstance(scale, tuple) else (scale,)
            files = zip(self.loras, each, strict=True)
            acting.append(tuple(sorted((str(path), at) for path, at in files if at and path in of_text)))
        return [each for each in dict.fromkeys(acting) if each]


def encode_under(
    base: Base, embeds: Mapping[str, PromptEmbeds], max_sequence_length: int, edits: Sequence[Edits]
) -> dict[str, PromptEmbeds]:
    """Embeddings with those under the edits' LoRAs added to them.

    Args:
        base: with its text encoders.
        embeds: of every prompt of the edits, as the base encodes it.
        max_sequence_length: in tokens.
        edits: the LoRAs; those of the transformer alone change nothing.

    Raises:
        UserError: if a LoRA does not fit a text encoder, or there is none that it fits.
    """
    wanted: dict[TextScales, dict[str, None]] = {}
    for edit in edits:
        for acting in edit.on_texts():
            wanted.setdefault(acting, {}).update(dict.fromkeys(edit.prompts))
    under: dict[str, dict[TextScales, PromptEmbeds]] = {}
    for acting, prompts in wanted.items():
        with _acting(base, acting) as parts:
            for prompt in prompts:
                changed = base.encode_prompts([prompt], max_sequence_length, parts)
                whole = replace(changed, tensors={**embeds[prompt].tensors, **changed.tensors})
                under.setdefault(prompt, {})[acting] = whole
    return {prompt: replace(own, under=under.get(prompt, {})) for prompt, own in embeds.items()}


def with_files(
    embeds: Mapping[str, PromptEmbeds], names: Sequence[str], loras: Sequence[Path]
) -> dict[str, PromptEmbeds]:
    """Embeddings that go by the scales of adapters, {adapter: file}, where a file acts on text encoders."""
    files = {name: str(path) for name, path in zip(names, loras, strict=True) if text_parts_of(path)}
    return {prompt: replace(own, files=files) for prompt, own in embeds.items()}


@contextmanager
def _acting(base: Base, acting: TextScales) -> Iterator[list[str]]:
    """Inside, LoRAs act on the text encoders; gives the names of those that they act on."""
    from utils.models.adapters import remove_adapter
    from utils.models.text_adapters import use_text_scales

    models = {encoder.part: base.part(encoder.part) for encoder in base.family.lora.text}
    scales: dict[str, dict[str, float]] = {}
    try:
        for number, (path, scale) in enumerate(acting):
            for part in load_text_loras(models, Path(path), f"text_{number}"):
                scales.setdefault(part, {})[f"text_{number}"] = scale
        with use_text_scales(base, scales):
            yield list(scales)
    finally:
        for part, own in scales.items():
            for name in own:
                remove_adapter(models[part], name)
