"""New words at work: tokens that a base's tokenizers lack, with rows of their own in its embeddings.

The base's own embeddings stay as they are, bit for bit: the new rows are a parameter beside them, the only
thing that learns where words are learned.

    with new_words(base, {"<new1>": {"text_encoder": rows}}, {"<new1>": "man"}) as learned:
        learned["text_encoder"].requires_grad_(True)      # (vectors, width), float32
        base.encode_prompts(["a photo of <new1>"], length)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError
from utils.models.base import Base
from utils.models.text_names import TextEncoder


class ExtendedEmbedding(nn.Module):
    """An embedding with rows added to it, from `first` on.

    Attributes:
        base: the embedding as it was.
        rows: (vectors, width), float32.
        first: token id of the first of them; it may lie within `base`, whose last rows no token stands for.
    """

    def __init__(self, base: nn.Embedding, rows: nn.Parameter, first: int) -> None:
        super().__init__()
        self.base, self.rows, self.first = base, rows, first

    @property
    def weight(self) -> Tensor:
        """The base's own."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> (B, L, width), in the base's dtype."""
        new = ids >= self.first
        known = self.base(ids.masked_fill(new, 0))
        own = functional.embedding((ids - self.first).clamp_min(0), self.rows).to(known.dtype)
        return torch.where(new[..., None], own, known)


@contextmanager
def new_words(
    base: Base, words: Mapping[str, Mapping[str, Tensor]], spelled: Mapping[str, str]
) -> Iterator[dict[str, nn.Parameter]]:
    """Inside, a base knows new words; afterwards it is as it was.

    Args:
        base: with its text encoders.
        words: {word: {text encoder: rows (vectors, width)}}; a word of several vectors is as many tokens.
        spelled: {word: what encoders without rows of it read in its place}; a word left out is read as it is.

    Yields:
        Of each text encoder with new rows, all of them in the order of `words`, float32, without gradients
        until the caller asks for them.

    Raises:
        UserError: for a word that a tokenizer has already, or can't hold; rows that don't fit.
    """
    encoders = {encoder.part: encoder for encoder in base.family.lora.text}
    if lacking := {part for own in words.values() for part in own} - encoders.keys():
        raise UserError(f"new words: expected text encoders {', '.join(encoders)}, found {min(lacking)}")
    with ExitStack() as added:
        learned = {}
        for part, encoder in encoders.items():
            rows = {word: own[part] for word, own in words.items() if part in own}
            others = {word: spelled[word] for word in words if word not in rows and spelled.get(word)}
            added.enter_context(_spelled(base, encoder.tokenizer, {**_as_tokens(rows), **others}))
            if rows:
                learned[part] = added.enter_context(_added(base, encoder, rows))
        yield learned


def initial_rows(base: Base, part: str, text: str) -> Tensor:
    """Rows (pieces, width), float32, that a text encoder has for a text, for new words to begin from.

    Raises:
        UserError: for a text without any.
    """
    encoder = next(each for each in base.family.lora.text if each.part == part)
    ids = base.part(encoder.tokenizer)(text, add_special_tokens=False).input_ids
    if not ids:
        raise UserError(f"token_init: expected a word, found {text!r}")
    model = base.part(part)
    return model.get_input_embeddings()(torch.tensor(ids, device=model.device)).detach().float()


def tokens_of(word: str, vectors: int) -> list[str]:
    """<new1>, <new1>_1, <new1>_2: the tokens of a word, called as diffusers calls them."""
    return [word, *(f"{word}_{number}" for number in range(1, vectors))]


def _as_tokens(rows: Mapping[str, Tensor]) -> dict[str, str]:
    return {word: " ".join(tokens_of(word, len(own))) for word, own in rows.items()}


@contextmanager
def _spelled(base: Base, tokenizer: str, spellings: Mapping[str, str]) -> Iterator[None]:
    """Inside, prompts are spelled so before a tokenizer."""
    before = base.spellings.get(tokenizer, {})
    base.spellings[tokenizer] = {**before, **spellings}
    try:
        yield
    finally:
        base.spellings[tokenizer] = before


@contextmanager
def _added(base: Base, encoder: TextEncoder, rows: Mapping[str, Tensor]) -> Iterator[nn.Parameter]:
    """Inside, a tokenizer has the words' tokens, and its text encoder their rows."""
    tokenizer, model = base.part(encoder.tokenizer), base.part(encoder.part)
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    width = embedding.weight.shape[1]
    for word, own in rows.items():
        if own.ndim != 2 or own.shape[1] != width:
            raise UserError(
                f"{word}: expected rows of width {width} for {encoder.part}, found shape {tuple(own.shape)}"
            )
    extended = _with_tokens(tokenizer, {word: len(own) for word, own in rows.items()}, encoder.part)
    stacked = torch.cat([own.detach().to(embedding.weight.device, torch.float32) for own in rows.values()])
    parameter = nn.Parameter(stacked, requires_grad=False)
    model.set_input_embeddings(ExtendedEmbedding(embedding, parameter, len(tokenizer)))
    base.parts[encoder.tokenizer] = extended
    try:
        yield parameter
    finally:
        model.set_input_embeddings(embedding)
        if encoder.tokenizer in base.parts:  # not where the text encoders were let go meanwhile
            base.parts[encoder.tokenizer] = tokenizer


def _with_tokens(tokenizer: Any, vectors: Mapping[str, int], part: str) -> Any:
    """A copy of a tokenizer with the words' tokens, in order."""
    known = tokenizer.get_vocab()
    extended = deepcopy(tokenizer)
    for word, count in vectors.items():
        if not word or any(char.isspace() for char in word):
            raise UserError(f"{word!r}: expected a word that can be a token of {part}, such as <new1>")
        for token in tokens_of(word, count):
            if token in known or token in extended.get_vocab():
                raise UserError(
                    f"{word}: expected a new word, found one that {part} has a token for, {token}"
                )
            extended.add_tokens(token)
            if extended.tokenize(token) != [token]:
                raise UserError(f"{word!r}: expected a word that can be a token of {part}, such as <new1>")
    return extended
