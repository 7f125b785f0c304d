"""New words in a base's text encoders: their rows alone learn, and everything is put back."""

from __future__ import annotations

import pytest
import torch

from utils.errors import UserError
from utils.models.base import Base
from utils.models.new_words import initial_rows, new_words

LENGTH, PROMPT = 12, "a <new1> on the hill"
CLIP, T5 = "text_encoder", "text_encoder_2"


def test_a_word_begun_from_another_means_the_same_until_it_learns(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    as_said = base.encode_prompts(["a cat on the hill"], LENGTH)
    before = base.encode_prompts([PROMPT], LENGTH)
    rows = {part: initial_rows(base, part, "cat") for part in (CLIP, T5)}
    with new_words(base, {"<new1>": rows}, {}) as learned:
        embeds = base.encode_prompts([PROMPT], LENGTH)
        for name, tensor in embeds.tensors.items():
            assert torch.equal(tensor, as_said[name])
        learned[CLIP].data += 1
        changed = base.encode_prompts([PROMPT], LENGTH)
        assert not torch.equal(changed["pooled_prompt_embeds"], as_said["pooled_prompt_embeds"])
        assert torch.equal(changed["prompt_embeds"], as_said["prompt_embeds"])
    after = base.encode_prompts([PROMPT], LENGTH)
    for name, tensor in after.tensors.items():
        assert torch.equal(tensor, before[name])


def test_its_rows_alone_learn_and_others_read_the_word_it_began_from(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    expected = base.encode_prompts(["a man on the hill"], LENGTH)["prompt_embeds"]
    embedding = base.part(CLIP).get_input_embeddings()
    with new_words(base, {"<new1>": {CLIP: torch.ones(2, 20)}}, {"<new1>": "man"}) as learned:
        assert list(learned) == [CLIP]
        learned[CLIP].requires_grad_(True)
        embeds = base.encode_prompts([PROMPT, "a cat"], LENGTH)
        assert torch.equal(embeds["prompt_embeds"][:1], expected)
        embeds["pooled_prompt_embeds"].sum().backward()
        grads = [
            name
            for part in (CLIP, T5)
            for name, each in base.part(part).named_parameters()
            if each.grad is not None
        ]
        assert [name.rpartition(".")[2] for name in grads] == ["rows"]
        assert learned[CLIP].grad.abs().sum(dim=1).min() > 0
    assert base.part(CLIP).get_input_embeddings() is embedding


def test_clip_alone_is_encoded_anew_where_t5_was_let_go(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    before = base.encode_prompts([PROMPT], LENGTH)
    base.release_text_encoders(keep=(CLIP, "tokenizer"))
    again = base.encode_prompts([PROMPT], LENGTH, (CLIP,))
    assert list(again.tensors) == ["pooled_prompt_embeds"]
    assert torch.equal(again["pooled_prompt_embeds"], before["pooled_prompt_embeds"])
    assert T5 not in base.parts


def test_text_encoders_let_go_meanwhile_are_loaded_anew_without_it(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    before = base.encode_prompts([PROMPT], LENGTH)
    with new_words(base, {"<new1>": {CLIP: torch.ones(1, 20)}}, {}):
        base.release_text_encoders()
    assert torch.equal(
        base.encode_prompts([PROMPT], LENGTH)["pooled_prompt_embeds"], before["pooled_prompt_embeds"]
    )


@pytest.mark.parametrize(
    ("word", "rows", "message"),
    [
        ("a", torch.ones(1, 20), "a: expected a new word, found one that text_encoder has a token for, a"),
        ("<|endoftext|>", torch.ones(1, 20), "expected a new word"),
        ("", torch.ones(1, 20), "'': expected a word that can be a token of text_encoder, such as <new1>"),
        ("new one", torch.ones(1, 20), "'new one': expected a word that can be a token"),
        (
            "<new1>",
            torch.ones(1, 19),
            r"<new1>: expected rows of width 20 for text_encoder, found shape \(1, 19\)",
        ),
    ],
)
def test_words_that_cannot_be(mini_flux_loaded: Base, word: str, rows: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message), new_words(mini_flux_loaded, {word: {CLIP: rows}}, {}):
        pass
    with (
        pytest.raises(UserError, match="expected text encoders text_encoder, text_encoder_2, found other"),
        new_words(mini_flux_loaded, {"<new1>": {"other": rows}}, {}),
    ):
        pass
    assert len(mini_flux_loaded.part("tokenizer")) == 82


def test_a_word_that_exists_within_another_and_the_words_of_a_word(mini_flux_loaded: Base) -> None:
    words = {"<new1>": {CLIP: torch.ones(2, 20)}, "<new1>_1": {CLIP: torch.ones(1, 20)}}
    with pytest.raises(UserError, match=r"expected a new word, found one .* a token for, <new1>_1"):
        new_words(mini_flux_loaded, words, {}).__enter__()
    with pytest.raises(UserError, match="token_init: expected a word, found ''"):
        initial_rows(mini_flux_loaded, CLIP, "")
