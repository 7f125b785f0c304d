"""Files of new words: written, read back, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.mini_loras import block_loras
from utils.errors import UserError
from utils.lora.files import read_lora, save_lora, write_lora
from utils.lora.loading import text_use
from utils.lora.words import NewWord, read_words, write_words
from utils.models.adapters import add_adapter
from utils.models.base import Base

ROWS = torch.arange(12.0).reshape(3, 4)


def same(found: tuple[NewWord, ...], expected: list[NewWord]) -> None:
    assert [(word.word, word.spelled) for word in found] == [(word.word, word.spelled) for word in expected]
    for one, two in zip(found, expected, strict=True):
        assert one.rows.keys() == two.rows.keys()
        assert all(torch.equal(one.rows[part], two.rows[part]) for part in two.rows)


def test_one_word_of_clip_is_what_stock_diffusers_reads(tmp_path: Path) -> None:
    word = NewWord("<new1>", {"text_encoder": ROWS}, "man")
    write_words(tmp_path / "x.safetensors", [word], {"step": "3"})
    assert list(load_file(tmp_path / "x.safetensors")) == ["<new1>"]
    same(read_words(tmp_path / "x.safetensors"), [word])


def test_several_words_or_encoders_as_pivotal_tuning_has_them(tmp_path: Path) -> None:
    words = [
        NewWord("<new1>", {"text_encoder": ROWS[:2], "text_encoder_2": ROWS[1:]}, "man"),
        NewWord("<new2>", {"text_encoder": ROWS[2:], "text_encoder_2": ROWS[:1]}),
    ]
    write_words(tmp_path / "x.safetensors", words, {})
    tensors = load_file(tmp_path / "x.safetensors")
    assert {key: tuple(each.shape) for key, each in tensors.items()} == {"clip_l": (3, 4), "t5": (3, 4)}
    same(read_words(tmp_path / "x.safetensors"), words)
    with pytest.raises(ValueError, match="rows of the same text encoders"):
        write_words(tmp_path / "y.safetensors", [words[0], NewWord("b", {"text_encoder": ROWS})], {})


def test_in_a_lora_file(mini_flux_loaded: Base, tmp_path: Path) -> None:
    words = [NewWord("<new1>", {"text_encoder": ROWS}, "man"), NewWord("<b.c>", {"text_encoder_2": ROWS})]
    loras = block_loras(mini_flux_loaded.transformer, ".to_q")
    for kind in ("diffusers", "kohya"):
        write_lora(tmp_path / "x", loras, kind, {}, words=words)
        same(read_lora(tmp_path / "x").words, words)
        assert text_use(tmp_path / "x") == (False, True)
    add_adapter(mini_flux_loaded.transformer, "subject", 2, 2)
    save_lora(mini_flux_loaded.transformer, "subject", tmp_path / "y", {}, words=words[:1])
    same(read_words(tmp_path / "y"), words[:1])
    assert not read_lora(tmp_path / "y", skip_text_encoder=True).words


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"clip_l": ROWS, "clip_g": ROWS}, "clip_g, clip_l, where one embedding or clip_l, t5 fit"),
        ({"clip_g": ROWS}, "clip_g, where one embedding"),
        ({"clip_l": ROWS, "t5": ROWS[:2]}, "3 of text_encoder, 2 of text_encoder_2 where 3 rows fit"),
        ({"<a>": ROWS.int()}, r"shape \(3, 4\), torch.int32 where \(vectors, width\) of floats fits"),
        ({"<a>": ROWS[None]}, r"shape \(1, 3, 4\)"),
        ({"<a>": ROWS / 0}, "values that are not finite"),
    ],
)
def test_what_is_no_embedding(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file({key: each.clone() for key, each in tensors.items()}, tmp_path / "x")
    with pytest.raises(UserError, match=message) as caught:
        read_words(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_a_header_that_is_no_object_of_texts(tmp_path: Path) -> None:
    save_file({"<a>": ROWS}, tmp_path / "x", metadata={"new_words": '{"<a>": 3}'})
    with pytest.raises(UserError, match="new_words in its header is no JSON object of texts"):
        read_words(tmp_path / "x")
