"""Text encoders of a size for captions of portraits: CLIP for the pooled embedding, T5 for the sequence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from tinyflux.captions import caption_words

CLIP_LENGTH = 48
T5_LENGTH = 512
"""Longest sequence the T5 tokenizer lets through; FluxPipeline's default."""

_WORD_END = "</w>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.'-"


def build_clip_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """Byte-pair encoding that knows each of `words` as one token, and spells the rest in shorter pieces."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix=_WORD_END, show_progress=False
    )
    learner.train_from_iterator(words, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = [*_LETTERS, *(letter + _WORD_END for letter in _LETTERS)]
    tokens = dict.fromkeys(
        ["<|startoftext|>", "<|endoftext|>", *letters, *("".join(pair) for pair in merges)]
    )
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=CLIP_LENGTH
    )


def build_t5_tokenizer(words: Sequence[str]) -> T5Tokenizer:
    """A unigram tokenizer (Kudo 2018, arXiv 1804.10959) with the same words, each in three cases.

    T5's tokenizer keeps case, and no lowering of it outlives a reload; `tie_cases` makes it of no account.
    """
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    cased = dict.fromkeys(form for word in words for form in (word, word.capitalize(), word.upper()))
    pieces += [("▁" + word, -3.0) for word in cased]
    pieces += [(letter, -6.0) for letter in dict.fromkeys(_LETTERS + _LETTERS.upper())]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


@torch.no_grad()
def tie_cases(encoder: T5EncoderModel, tokenizer: T5Tokenizer) -> None:
    """Give every piece the embedding of its lower-case form, the one that captions are written in."""
    vocabulary = tokenizer.get_vocab()
    embedding = encoder.shared.weight
    for piece, index in vocabulary.items():
        embedding[index] = embedding[vocabulary.get(piece.lower(), index)].clone()


def build_text_encoders() -> dict:
    """The tokenizers and the untrained encoders, under FluxPipeline's names for them."""
    words = caption_words()
    tokenizer, tokenizer_2 = build_clip_tokenizer(words), build_t5_tokenizer(words)
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        projection_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    t5 = T5Config(
        vocab_size=len(tokenizer_2),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(clip),
        "tokenizer_2": tokenizer_2,
        "text_encoder_2": T5EncoderModel(t5),
    }
