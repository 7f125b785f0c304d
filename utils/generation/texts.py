"""Prompts as LoRAs on the text encoders have them, encoded before the encoders are let go.

A slider's scale is its LoRA's on the text encoders, too. So each prompt is encoded at every scale that will
be asked for; what an encoder without a LoRA gives is there once. At scale 0 the base's own is used, with the
new words that are in a LoRA's file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.schema import SliderScale
from utils.errors import UserError
from utils.lora.files import read_lora
from utils.lora.loading import load_text_loras, text_use

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
        """What acts on the text encoders in turn; at 0 only files with new words."""
        uses = {path: text_use(path) for path in self.loras}
        acting = []
        for scale in (*self.scales, (0.0,) * len(self.loras)):
            each = scale if isinstance(scale, tuple) else (scale,)
            files = zip(self.loras, each, strict=True)
            own = [(str(path), at) for path, at in files if uses[path][1] or (at and uses[path][0])]
            acting.append(tuple(sorted(own)))
        return [each for each in dict.fromkeys(acting) if each]


def encode_under(
    base: Base, embeds: Mapping[str, PromptEmbeds], max_sequence_length: int, edits: Sequence[Edits]
) -> dict[str, PromptEmbeds]:
    """Embeddings with those under the edits' LoRAs added to them.

    A LoRA that does not fit is an error where the embeddings under it are asked for: other runs go on.

    Args:
        base: with its text encoders.
        embeds: of every prompt of the edits, as the base encodes it.
        max_sequence_length: in tokens.
        edits: the LoRAs; those of the transformer alone change nothing.
    """
    from utils.models.text_adapters import use_text_scales

    # Files that act together are loaded once for all of their scales.
    wanted: dict[tuple[str, ...], dict[TextScales, dict[str, None]]] = {}
    for edit in _readable(edits):
        for acting in edit.on_texts():
            of_files = wanted.setdefault(tuple(path for path, _ in acting), {})
            of_files.setdefault(acting, {}).update(dict.fromkeys(edit.prompts))

    under: dict[str, dict[TextScales, PromptEmbeds]] = {prompt: {} for prompt in embeds}
    faults: dict[TextScales, UserError] = {}
    for paths, by_scales in wanted.items():
        try:
            with _loaded(base, [Path(path) for path in paths]) as (adapters, words):
                parts = None if words else list(adapters)
                for acting, prompts in by_scales.items():
                    with use_text_scales(base, _scales(adapters, acting)):
                        for prompt in prompts:
                            changed = base.encode_prompts([prompt], max_sequence_length, parts)
                            under[prompt][acting] = changed
        except UserError as fault:
            faults |= dict.fromkeys(by_scales, fault)
    return {prompt: replace(own, under=under[prompt], faults=faults) for prompt, own in embeds.items()}


def _scales(adapters: Mapping[str, Mapping[int, str]], acting: TextScales) -> dict[str, dict[str, float]]:
    """{text encoder: {adapter: scale}} of adapters by the number of their file."""
    return {part: {name: acting[number][1] for number, name in own.items()} for part, own in adapters.items()}


def new_words_in(edits: Sequence[Edits]) -> list[str]:
    """The new words in the edits' files."""
    paths = dict.fromkeys(path for edit in _readable(edits) for path in edit.loras)
    return [word.word for path in paths if text_use(path)[1] for word in read_lora(path).words]


def without_new_words(prompts: Collection[str], words: Sequence[str]) -> list[str]:
    """Prompts with some words left out."""
    left = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return [re.sub(rf"(?<!\w)(?:{left})(?!\w)", "", prompt) for prompt in prompts] if words else list(prompts)


def with_files(
    embeds: Mapping[str, PromptEmbeds], names: Sequence[str], loras: Sequence[Path]
) -> dict[str, PromptEmbeds]:
    """Embeddings that go by the scales of adapters, {adapter: file}, where a file acts on text encoders."""
    uses = {path: text_use(path) for path in loras}
    files = {name: str(path) for name, path in zip(names, loras, strict=True) if any(uses[path])}
    worded = frozenset(str(path) for path, (_, words) in uses.items() if words)
    return {prompt: replace(own, files=files, worded=worded) for prompt, own in embeds.items()}


def _readable(edits: Sequence[Edits]) -> Iterator[Edits]:
    """Without those of files that cannot be read, which their runs say when they open them."""
    for edit in edits:
        try:
            edit.on_texts()
        except UserError:
            continue
        yield edit


@contextmanager
def _loaded(base: Base, paths: Sequence[Path]) -> Iterator[tuple[dict[str, dict[int, str]], list[str]]]:
    """Inside, LoRAs are on the text encoders, inactive, and the base knows their new words.

    Yields:
        {text encoder: {number of the path: adapter}}, and the words.
    """
    from utils.lora.words import joined
    from utils.models.adapters import remove_adapter
    from utils.models.new_words import new_words

    models = {encoder.part: base.part(encoder.part) for encoder in base.family.lora.text}
    adapters: dict[str, dict[int, str]] = {}
    try:
        for number, path in enumerate(paths):
            for part in load_text_loras(models, path, f"text_{number}") if text_use(path)[0] else ():
                adapters.setdefault(part, {})[number] = f"text_{number}"
        words = joined([(path, read_lora(path).words) for path in paths if text_use(path)[1]])
        rows = {word.word: word.rows for word in words}
        with new_words(base, rows, {word.word: word.spelled for word in words}):
            yield adapters, list(rows)
    finally:
        for part, own in adapters.items():
            for name in own.values():
                remove_adapter(models[part], name)
