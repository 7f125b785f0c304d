"""Captions drawn by a subset's rules, whatever the caption: what stays, what moves, how often what goes."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.captions import TRIGGER, CaptionRules, draw_caption, steady_caption

TAG = st.text("abcdefgh ;-'é|", min_size=1, max_size=8).map(lambda tag: " ".join(tag.split())).filter(bool)
TAGS = st.lists(TAG, max_size=9)
SEED = st.integers(0, 2**32)
FEW = settings(max_examples=60, deadline=None)


def drawn(caption: str, seed: int = 0, trigger: str = "", epoch: int = 1, **rules: object) -> str:
    return draw_caption(caption, (), CaptionRules(**rules), Random(seed), epoch, trigger)  # type: ignore[arg-type]


def tags_of(caption: str) -> list[str]:
    return [tag.strip() for tag in caption.split(",") if tag.strip()]


@FEW
@given(TAGS, SEED, st.integers(0, 10))
def test_a_shuffled_caption_has_the_same_tags_with_the_kept_ones_first(
    tags: list[str], seed: int, keep: int
) -> None:
    found = tags_of(drawn(", ".join(tags), seed, shuffle_caption=True, keep_tokens=keep))
    assert Counter(found) == Counter(tags)
    assert found[:keep] == tags[:keep]


@FEW
@given(TAGS, SEED, st.integers(0, 10), st.floats(0, 1))
def test_dropping_leaves_the_kept_tags_and_an_ordered_part_of_the_others(
    tags: list[str], seed: int, keep: int, rate: float
) -> None:
    found = tags_of(drawn(", ".join(tags), seed, keep_tokens=keep, caption_tag_dropout_rate=rate))
    assert found[:keep] == tags[:keep]
    rest = iter(tags[keep:])
    assert all(tag in rest for tag in found[keep:])


@FEW
@given(TAGS, SEED, st.integers(0, 4), st.integers(0, 9), st.sampled_from(["", TRIGGER, "ohwx", "a {} hat"]))
def test_the_trigger_stays_where_it_is(tags: list[str], seed: int, keep: int, at: int, written: str) -> None:
    place = min(at, len(tags))
    caption = [*tags[:place], written.format("ohwx"), *tags[place:]] if written else tags
    rules = {"shuffle_caption": True, "keep_tokens": keep}
    found = tags_of(drawn(", ".join(caption), seed, "ohwx", **rules))
    holder = "a ohwx hat" if "hat" in written else "ohwx"
    assert found.index(holder) == (place if written else 0)
    assert found.count(holder) == 1
    dropped = tags_of(drawn(", ".join(caption), seed, "ohwx", caption_tag_dropout_rate=1.0, **rules))
    assert holder in dropped


@FEW
@given(TAGS, SEED)
def test_equal_generators_draw_equal_captions(tags: list[str], seed: int) -> None:
    rules = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.5, "enable_wildcard": True}
    assert drawn(", ".join(tags), seed, **rules) == drawn(", ".join(tags), seed, **rules)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rates_of_dropping(rate: float) -> None:
    rules = CaptionRules(caption_dropout_rate=rate)
    one = Random(0)
    empty = sum(draw_caption("a, b", (), rules, one) == "" for _ in range(4000))
    assert empty / 4000 == pytest.approx(rate, abs=0.03)
    rules = CaptionRules(caption_tag_dropout_rate=rate, keep_tokens=1)
    left = Counter(tag for _ in range(4000) for tag in tags_of(draw_caption("a, b, c", (), rules, one)))
    assert left["a"] == 4000
    assert [left[tag] / 4000 for tag in "bc"] == pytest.approx([1 - rate] * 2, abs=0.03)


def test_all_captions_of_every_nth_epoch_are_empty() -> None:
    captions = [drawn("a", epoch=epoch, caption_dropout_every_n_epochs=2) for epoch in range(1, 5)]
    assert captions == ["a", "", "a", ""]


def test_a_dropped_caption_goes_with_its_trigger() -> None:
    assert drawn("a", trigger="ohwx", caption_dropout_rate=1.0) == ""


@pytest.mark.parametrize(
    ("caption", "trigger", "right"),
    [
        ("a photo of [trigger], smiling", "ohwx man", "a photo of ohwx man, smiling"),
        ("a photo of a man", "ohwx", "ohwx, a photo of a man"),
        ("", "ohwx", "ohwx"),
        ("a cat in a category", "cat", "a cat in a category"),
        ("in a category", "cat", "cat, in a category"),
        ("<new1> on a hill", "<new1>", "<new1> on a hill"),
        (r"a \1 sign", r"\1", r"a \1 sign"),
        ("[trigger] stays without one", "", "[trigger] stays without one"),
    ],
)
def test_where_the_trigger_goes(caption: str, trigger: str, right: str) -> None:
    assert drawn(caption, trigger=trigger) == right


def test_a_trigger_with_a_separator_is_one_tag() -> None:
    for seed in range(20):
        found = drawn("a, b, ohwx, man, c, d", seed, "ohwx, man", shuffle_caption=True)
        assert tags_of(found)[2:4] == ["ohwx", "man"]


def test_what_is_before_the_first_and_after_the_second_separator_is_kept() -> None:
    for seed in range(20):
        found = drawn("a, b ||| c, d, e ||| f", seed, shuffle_caption=True, keep_tokens_separator="|||")
        assert tags_of(found)[:2] == ["a", "b"]
        assert sorted(tags_of(found)[2:5]) == ["c", "d", "e"]
        assert tags_of(found)[5:] == ["f"]
    assert drawn("a ||| b", keep_tokens_separator="|||") == "a, b"


def test_parts_of_a_tag_stay_together() -> None:
    for seed in range(20):
        found = drawn("x, sky;;;day, y, z", seed, shuffle_caption=True, secondary_separator=";;;")
        assert "sky,day" in found


def test_wildcards_and_lines() -> None:
    captions = {drawn("{a|b} hat", seed, enable_wildcard=True) for seed in range(20)}
    assert captions == {"a hat", "b hat"}
    assert drawn("a, {{retro}}", enable_wildcard=True) == "a, {retro}"
    assert drawn("{a|b} hat\nsecond") == "{a|b} hat"
    rules = CaptionRules(enable_wildcard=True, caption_prefix="p,", caption_suffix=", s")
    lines = {draw_caption("one\n\ntwo", ("t",), rules, Random(seed)) for seed in range(20)}
    assert lines == {"p, one, t , s", "p, two, t , s"}


def test_prefix_suffix_and_tags_are_shuffled_with_the_caption() -> None:
    rules = CaptionRules(shuffle_caption=True, keep_tokens=1, caption_prefix="p,", caption_suffix=", s")
    found = {draw_caption("one", ("t, u", "v"), rules, Random(seed)) for seed in range(60)}
    assert {tags_of(caption)[0] for caption in found} == {"p"}
    assert all(sorted(tags_of(caption)) == ["one", "p", "s", "t", "u", "v"] for caption in found)
    assert len(found) > 20


def test_a_caption_that_leaves_nothing_to_chance_has_its_tags_and_what_goes_around() -> None:
    rules = CaptionRules(
        shuffle_caption=True, caption_dropout_rate=1, caption_prefix="photo,", enable_wildcard=True
    )
    assert steady_caption("a man\nsomebody", ("red,blue", "hat"), rules) == "photo, a man, red,blue, hat"
    assert steady_caption("", ("red", "hat"), CaptionRules()) == "red, hat"
