"""The small tokenizers and text encoders, as FluxPipeline uses them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer, T5Tokenizer

from tinyflux.captions import caption_words, captions
from tinyflux.people import sample_people
from tinyflux.seeds import HELD_OUT
from tinyflux.text import CLIP_LENGTH, T5_LENGTH, build_text_encoders, tie_cases

TOKENIZERS = ["tokenizer", "tokenizer_2"]
WORDS = caption_words()


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_text_encoders()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return captions(sample_people(HELD_OUT[:300]), seed=5)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_word_is_one_token_of_its_own(parts, name: str) -> None:
    ids = [parts[name](word, add_special_tokens=False).input_ids for word in WORDS]
    assert all(len(tokens) == 1 for tokens in ids)
    assert len({tokens[0] for tokens in ids}) == len(WORDS) > 50


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_caption_is_its_words_and_commas(parts, name: str, texts: list[str]) -> None:
    tokenizer = parts[name]
    single = {word: tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS}
    comma = tokenizer("a, a", add_special_tokens=False).input_ids[1]
    assert comma not in single.values()
    for text in texts:
        expected = [single.get(word, comma) for word in text.replace(",", " ,").split()]
        assert tokenizer(text, add_special_tokens=False).input_ids == expected


def test_the_empty_prompt_is_the_special_tokens_alone(parts) -> None:
    clip, t5 = parts["tokenizer"], parts["tokenizer_2"]
    assert clip("").input_ids == [clip.bos_token_id, clip.eos_token_id] == [0, 1]
    assert t5("").input_ids == [t5.eos_token_id] == [1]
    padded = t5("", padding="max_length", max_length=4).input_ids
    assert padded == [1, 0, 0, 0] == [t5.eos_token_id, *[t5.pad_token_id] * 3]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_unknown_words_are_spelled(parts, name: str) -> None:
    tokenizer = parts[name]
    zebra = tokenizer("zebra", add_special_tokens=False).input_ids
    assert 1 < len(zebra) <= 6
    assert tokenizer.unk_token_id not in zebra
    assert tokenizer.decode(zebra).replace(" ", "").strip() == "zebra"
    assert tokenizer("zebro", add_special_tokens=False).input_ids != zebra


@pytest.mark.parametrize("name", TOKENIZERS)
def test_unknown_characters_are_unknown(parts, name: str) -> None:
    tokenizer = parts[name]
    assert tokenizer.unk_token_id in tokenizer("猫", add_special_tokens=False).input_ids
    assert tokenizer("a 猫", add_special_tokens=False).input_ids[0] == tokenizer("a").input_ids[-2]


def test_lengths(parts, texts: list[str]) -> None:
    clip, t5 = parts["tokenizer"], parts["tokenizer_2"]
    assert clip.model_max_length == CLIP_LENGTH == parts["text_encoder"].config.max_position_embeddings
    assert t5.model_max_length == T5_LENGTH
    # no caption is cut
    assert max(len(clip(text).input_ids) for text in texts) <= CLIP_LENGTH
    assert max(len(t5(text).input_ids) for text in texts) <= 48
    assert sum(len(t5(text).input_ids) > 32 for text in texts) <= 0.1 * len(texts)
    long = "a photo of a man " * 200
    cut = clip(long, padding="max_length", truncation=True).input_ids
    assert len(cut) == CLIP_LENGTH
    assert cut[-1] == clip.eos_token_id
    assert len(t5(long, padding="max_length", truncation=True).input_ids) == T5_LENGTH


@pytest.mark.parametrize(("name", "kind"), [("tokenizer", CLIPTokenizer), ("tokenizer_2", T5Tokenizer)])
def test_tokenizers_reload_the_same(parts, texts: list[str], tmp_path: Path, name: str, kind) -> None:
    parts[name].save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    for text in ["", "zebra 12.5", "it's a man", *texts]:
        assert again(text).input_ids == parts[name](text).input_ids
    assert again.model_max_length == parts[name].model_max_length
    assert (again.pad_token_id, again.eos_token_id) == (parts[name].pad_token_id, parts[name].eos_token_id)


@torch.no_grad()
def test_case_makes_no_difference(parts, texts: list[str]) -> None:
    """To CLIP's tokenizer, and to T5's encoder once cases are tied; before that it does."""
    clip, t5, encoder = parts["tokenizer"], parts["tokenizer_2"], copy.deepcopy(parts["text_encoder_2"])
    text = texts[0]
    assert clip(text.upper()).input_ids == clip(text.title()).input_ids == clip(text).input_ids

    def embedded(prompt: str) -> torch.Tensor:
        return encoder(t5(prompt, return_tensors="pt").input_ids)[0]

    assert not torch.equal(embedded(text.title()), embedded(text))
    tie_cases(encoder, t5)
    for cased in (text.title(), text.upper(), text.capitalize()):
        assert torch.equal(embedded(cased), embedded(text))


def test_vocabularies_fit_the_encoders(parts) -> None:
    assert parts["text_encoder"].config.vocab_size == len(parts["tokenizer"])
    assert parts["text_encoder_2"].config.vocab_size == len(parts["tokenizer_2"])
    size = sum(p.numel() for part in ("text_encoder", "text_encoder_2") for p in parts[part].parameters())
    assert size < 1_000_000


@torch.no_grad()
def test_the_pooled_embedding_reads_the_whole_prompt(parts) -> None:
    """It is taken at the first end token: the last word counts, the padding after it does not."""
    tokenizer, encoder = parts["tokenizer"], parts["text_encoder"].eval()

    def pooled(text: str, length: int) -> torch.Tensor:
        ids = tokenizer(text, padding="max_length", max_length=length, return_tensors="pt").input_ids
        return encoder(ids).pooler_output

    assert pooled("a photo of a man", 48).shape == (1, encoder.config.hidden_size)
    torch.testing.assert_close(pooled("a photo of a man", 48), pooled("a photo of a man", 8))
    assert not torch.allclose(pooled("a photo of a man", 48), pooled("a photo of a woman", 48), atol=1e-3)


@torch.no_grad()
def test_the_sequence_embedding_has_a_vector_a_token(parts) -> None:
    tokenizer, encoder = parts["tokenizer_2"], parts["text_encoder_2"].eval()
    ids = tokenizer(["a man", ""], padding="max_length", max_length=6, return_tensors="pt").input_ids
    sequence = encoder(ids)[0]
    assert sequence.shape == (2, 6, encoder.config.d_model)
    assert torch.equal(sequence, encoder(ids)[0])  # no dropout
