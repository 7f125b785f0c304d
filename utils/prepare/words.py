"""Captions and tags as they are asked for: words replaced, tags in front, tags left out."""

from __future__ import annotations

import re
from collections.abc import Sequence


def replaced(text: str, replace: Sequence[tuple[str, str]]) -> str:
    """A text with whole words replaced, all at once, whatever their case: "man" is no part of "woman".

    Args:
        text: a caption or a tag.
        replace: (words, what takes their place); of two that begin alike, the longer one is looked for first.
    """
    wanted = {old.lower(): new for old, new in replace}
    if not wanted:
        return text
    longest = sorted(wanted, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)"
    return re.sub(pattern, lambda found: wanted[found.group().lower()], text, flags=re.IGNORECASE)


def arranged(
    tags: Sequence[str],
    first: Sequence[str] = (),
    never: Sequence[str] = (),
    replace: Sequence[tuple[str, str]] = (),
) -> tuple[str, ...]:
    """Tags with words replaced, each once, those of `first` in front in its order, none of `never`.

    Args:
        tags: in their order, which stays.
        first: whole tags; those that are not there are not added.
        never: whole tags, before and after words are replaced.
        replace: as of `replaced`; a tag of which nothing is left is left out.
    """
    unwanted = {tag.lower() for tag in never}
    kept = [replaced(tag, replace).strip() for tag in tags if tag.lower() not in unwanted]
    there = list(dict.fromkeys(tag for tag in kept if tag and tag.lower() not in unwanted))
    front = [tag for wanted in first for tag in there if tag.lower() == wanted.lower()]
    return tuple(dict.fromkeys([*front, *there]))


def without_underscores(tag: str) -> str:
    """A tag in words: "long_hair" is "long hair"; what is no words, such as ">_<", stays."""
    return tag.replace("_", " ") if re.search(r"[^\W\d_]{2}", tag) else tag
