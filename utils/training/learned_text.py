"""What of the text encoders learns beside the adapters on the transformer: new words, and LoRAs.

Only what learns is encoded at every step, with gradients; what the other encoders make of a prompt was
encoded before they were let go, with the word that a new one began from in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from utils.config.schema import Config
from utils.data.epochs import spelled
from utils.flow.mixes import Mix
from utils.lora.words import NewWord
from utils.models.adapters import adapter_parameters, remove_adapter, use_mixes
from utils.models.base import Base
from utils.models.embeds import PromptEmbeds
from utils.models.new_words import initial_rows, new_words
from utils.models.text_adapters import add_text_adapter
from utils.models.velocity import PromptedVelocity

CLIP, T5 = "text_encoder", "text_encoder_2"
ADAPTER = "semantic"
"""The adapter on text encoders is called as the result is: they are one LoRA."""

Embeds = Mapping[str, PromptEmbeds]


@dataclass(frozen=True)
class LearnedText:
    """What learns of the text encoders.

    Attributes:
        base: holds it.
        config: gives new_token, token_init, text_rank and the rates.
        embeds: of every prompt, with token_init in new_token's place, as the base encodes it.
        rows: of the new word by text encoder.
        adapted: the text encoders with a LoRA that learns.
    """

    base: Base
    config: Config
    embeds: Embeds
    rows: Mapping[str, nn.Parameter] = field(default_factory=dict)
    adapted: Sequence[str] = ()

    @property
    def words(self) -> dict[str, list[Tensor]]:
        """Weights of new words, by what they are."""
        return {f"word {part}": [rows] for part, rows in self.rows.items()}

    @property
    def loras(self) -> dict[str, list[Tensor]]:
        """Weights of LoRAs on text encoders, by what they are."""
        return {
            f"{ADAPTER} {part}": adapter_parameters(self.base.part(part), ADAPTER) for part in self.adapted
        }

    def groups(self, adapters: Sequence[Tensor]) -> Any:
        """The weights for an optimizer: the adapters' alone, or groups with rates of their own."""
        if not self.words and not self.loras:
            return adapters
        config = self.config
        own = [(_flat(self.loras), config.text_lr), (_flat(self.words), config.token_lr)]
        return [{"params": list(adapters)}, *({"params": flat, "lr": lr} for flat, lr in own if flat)]

    def idle(self, adapters: Sequence[Tensor], global_step: int) -> list[Tensor]:
        """Weights that do not learn in a step: up to `token_until` all but the word, then the word."""
        until = self.config.token_until
        if not self.words or not until:
            return []
        return [*adapters, *_flat(self.loras)] if global_step <= until else _flat(self.words)

    def velocity(self) -> PromptedVelocity:
        """The base's velocity under prompts as they are encoded now."""
        guidance = self.config.train_guidance or self.config.guidance_scale
        if not self.words and not self.loras:
            return PromptedVelocity(self.base, self.embeds, guidance)
        return _Velocity(self.base, _Encoded(self), guidance, self)

    def now(self) -> Embeds:
        """Every prompt's embedding as it is now, without gradients; for pictures."""
        return _Encoded(self, learning=False) if self.words or self.loras else self.embeds

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside, the LoRAs on the text encoders act, and learn."""
        with ExitStack() as acting:
            for part in self.adapted:
                mix = Mix({ADAPTER: 1.0}, train=(ADAPTER,))
                acting.enter_context(use_mixes(self.base.part(part), [mix]))
            yield

    def saved(self) -> dict[str, Any]:
        """What `save_lora` is given beside the transformer's adapter."""
        encoders = {part: self.base.part(part) for part in self.adapted}
        rows = {part: own.detach() for part, own in self.rows.items()}
        words = [NewWord(self.config.new_token, rows, self.config.token_init)] if rows else []
        return {"text_encoders": encoders, "words": words}


class _Encoded(Mapping[str, PromptEmbeds]):
    """Prompts, each encoded when it is asked for by what learns, and else taken from before."""

    def __init__(self, text: LearnedText, learning: bool = True) -> None:
        self.text, self.learning = text, learning

    def __getitem__(self, prompt: str) -> PromptEmbeds:
        text, config = self.text, self.text.config
        before = text.embeds[spelled(prompt, config.new_token, config.token_init)]
        parts = dict.fromkeys([*text.rows, *text.adapted])
        with torch.set_grad_enabled(self.learning and torch.is_grad_enabled()):
            now = text.base.encode_prompts([prompt], config.max_sequence_length, list(parts))
        return PromptEmbeds({**before.tensors, **now.tensors})

    def __iter__(self) -> Iterator[str]:
        return iter(self.text.embeds)

    def __len__(self) -> int:
        return len(self.text.embeds)


@dataclass(frozen=True)
class _Velocity(PromptedVelocity):
    """A velocity whose text encoders' LoRAs act together with the transformer's, and rest with it."""

    text: LearnedText

    @contextmanager
    def _both(self, mixes: Sequence[Mix]) -> Iterator[None]:
        with use_mixes(self.base.transformer, mixes), self.text.acting():
            yield

    def adapters(self, *mixes: Mix) -> AbstractContextManager[None]:
        """See `use_mixes`; without mixes, the bare base under the bare encoders."""
        return self._both(mixes) if mixes else use_mixes(self.base.transformer, ())


@contextmanager
def learned_text(base: Base, embeds: Embeds, config: Config, generator: Generator) -> Iterator[LearnedText]:
    """Inside, what a config asks for of the text encoders is there and learns; after, all is as it was.

    Args:
        base: its text encoders may be gone; those that learn are loaded again, alone.
        embeds: of every prompt, spelled without the new word.
        config: see `LearnedText`.
        generator: of the seeds of LoRAs.

    Raises:
        UserError: for a new word that is none, or a family without such encoders.
    """
    with_rows = [CLIP, T5] if config.token_t5 else [CLIP]
    parts = dict.fromkeys([*(with_rows if config.new_token else ()), *([CLIP] if config.text_rank else ())])
    if not parts:
        yield LearnedText(base, config, embeds)
        return
    with ExitStack() as stack:
        _load(base, list(parts))
        stack.callback(base.release_text_encoders)

        adapted = [CLIP] if config.text_rank else []
        for part in adapted:
            seed = int(torch.randint(2**31, (), generator=generator))
            add_text_adapter(base, ADAPTER, config.text_rank, config.text_rank, seed, part)
            stack.callback(partial(remove_adapter, base.part(part), ADAPTER))

        rows: dict[str, nn.Parameter] = {}
        if config.new_token:
            first = {part: initial_rows(base, part, config.token_init) for part in with_rows}
            spelling = {config.new_token: config.token_init}
            rows = stack.enter_context(new_words(base, {config.new_token: first}, spelling))
            for own in rows.values():
                own.requires_grad_(True)
        yield LearnedText(base, config, embeds, rows, adapted)


def _flat(by_name: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    return [weight for own in by_name.values() for weight in own]


def _load(base: Base, parts: Sequence[str]) -> None:
    """The text encoders and their tokenizers, without the others."""
    for encoder in base.family.lora.text:
        if encoder.part in parts:
            missing = [name for name in (encoder.part, encoder.tokenizer) if name not in base.parts]
            base.parts |= base.load(missing) if missing else {}
