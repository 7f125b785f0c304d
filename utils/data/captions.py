"""Captions as a training step sees them: drawn anew from an image's caption and tags, by a subset's rules.

The rules have the names and meaning that sd-scripts' dataset options have. Three things differ: prefix and
suffix go around whichever line is drawn, keep_tokens_separator never stays in a caption, and empty tags are
left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from utils.config.keys import Group, key

CAPTIONS = Group("captions", "what of a caption a step sees", trains=True)

TRIGGER = "[trigger]"
"""What stands in a caption for the trigger word."""
_WILDCARD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


@dataclass(frozen=True)
class CaptionRules:
    """How a caption varies from step to step; the defaults leave it as it is written."""

    # fmt: off
    shuffle_caption: bool = key(CAPTIONS, False, "tags in a new order each time, the kept ones in front")
    caption_separator: str = key(CAPTIONS, ",", "between tags", check=bool, expected="a text, not empty")
    keep_tokens: int = key(CAPTIONS, 0, "tags in front that are neither moved nor dropped", ge=0)
    keep_tokens_separator: str = key(CAPTIONS, "", "what is before it, and after a second one, is kept")
    secondary_separator: str = key(CAPTIONS, "", "between parts of one tag; becomes caption_separator")
    enable_wildcard: bool = key(CAPTIONS, False, "draw one of {a|b}, and one line of several")
    caption_prefix: str = key(CAPTIONS, "", "before every caption; its tags count as the caption's")
    caption_suffix: str = key(CAPTIONS, "", "after every caption; its tags count as the caption's")
    caption_dropout_rate: float = key(CAPTIONS, 0.0, "how often the whole caption is empty", ge=0, le=1)
    caption_dropout_every_n_epochs: int = key(CAPTIONS, 0, "all are empty in each such; 0: in none", ge=0)
    caption_tag_dropout_rate: float = key(CAPTIONS, 0.0, "how often each tag is left out", ge=0, le=1)
    # fmt: on


def draw_caption(
    caption: str,
    tags: tuple[str, ...],
    rules: CaptionRules,
    generator: Random,
    epoch: int = 1,
    trigger: str = "",
) -> str:
    """The caption of one image in one step; equal arguments and an equal generator give equal ones.

    Args:
        caption: of one line or several, of which the first is taken unless `rules.enable_wildcard`.
        tags: follow whichever line it is; each may hold several, with caption_separator between them.
        generator: what chance there is comes from.
        epoch: from 1 on.
        trigger: a word put in place of `[trigger]`, or, where the caption has neither, before it. The tag
            that holds it keeps its place and is never dropped alone. "": none, as of regularization images.
    """
    if _is_dropped(rules, generator, epoch):
        return ""
    text = _written(caption, tags, rules, generator)

    # From here on every trigger is the placeholder: a trigger with a separator in it is no two tags.
    leads = False
    if trigger:
        text = re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", lambda _: TRIGGER, text)
        leads = TRIGGER not in text

    split_by = rules.keep_tokens_separator
    if rules.shuffle_caption or rules.caption_tag_dropout_rate > 0 or (split_by and split_by in text):
        front, free, back = _parts(text, rules)
        free = _varied(free, rules, generator, pinned=bool(trigger))
        text = ", ".join([*front, *free, *back])
    if leads:
        text = f"{TRIGGER}, {text}" if text else TRIGGER

    if rules.secondary_separator:
        text = text.replace(rules.secondary_separator, rules.caption_separator)
    return text.replace(TRIGGER, trigger) if trigger else text


def steady_caption(caption: str, tags: tuple[str, ...], rules: CaptionRules) -> str:
    """The caption by the rules that leave nothing to chance: its first line, tags, prefix and suffix."""
    steady = CaptionRules(
        caption_separator=rules.caption_separator,
        keep_tokens_separator=rules.keep_tokens_separator,
        secondary_separator=rules.secondary_separator,
        caption_prefix=rules.caption_prefix,
        caption_suffix=rules.caption_suffix,
    )
    return draw_caption(caption, tags, steady, Random(0))


def _is_dropped(rules: CaptionRules, generator: Random, epoch: int) -> bool:
    """Whether the caption is empty this time; chance is asked only where there is a rate."""
    every = rules.caption_dropout_every_n_epochs
    if rules.caption_dropout_rate > 0 and generator.random() < rules.caption_dropout_rate:
        return True
    return every > 0 and epoch % every == 0


def _written(caption: str, tags: tuple[str, ...], rules: CaptionRules, generator: Random) -> str:
    """One line with its tags between prefix and suffix, its wildcards drawn."""
    lines = [line.strip() for line in caption.splitlines() if line.strip()] or [""]
    line = generator.choice(lines) if rules.enable_wildcard and len(lines) > 1 else lines[0]
    flat = [rules.caption_separator.join(tag.split("\n")) for tag in tags]
    text = f"{rules.caption_separator} ".join(part for part in (line, *flat) if part)
    text = " ".join(part for part in (rules.caption_prefix, text, rules.caption_suffix) if part)
    if not rules.enable_wildcard:
        return text

    def chosen(found: re.Match[str]) -> str:
        inside = found.group(1)
        return found.group()[0] if inside is None else generator.choice(inside.split("|"))

    return _WILDCARD.sub(chosen, text)


def _parts(text: str, rules: CaptionRules) -> tuple[list[str], list[str], list[str]]:
    """The tags kept in front, those that may move and go, and those kept behind."""
    separator = rules.keep_tokens_separator
    if separator and separator in text:
        front, _, rest = text.partition(separator)
        free, _, back = rest.partition(separator)
        back = back.replace(separator, rules.caption_separator)
        return _tags(front, rules), _tags(free, rules), _tags(back, rules)
    tags = _tags(text, rules)
    return tags[: rules.keep_tokens], tags[rules.keep_tokens :], []


def _tags(text: str, rules: CaptionRules) -> list[str]:
    return [tag.strip() for tag in text.split(rules.caption_separator) if tag.strip()]


def _varied(tags: list[str], rules: CaptionRules, generator: Random, pinned: bool) -> list[str]:
    """Tags shuffled and dropped; where `pinned`, those with the trigger in them stay where they are."""
    stays = [pinned and TRIGGER in tag for tag in tags]
    if rules.shuffle_caption:
        moving = [tag for tag, stay in zip(tags, stays, strict=True) if not stay]
        generator.shuffle(moving)
        rest = iter(moving)
        tags = [tag if stay else next(rest) for tag, stay in zip(tags, stays, strict=True)]
    rate = rules.caption_tag_dropout_rate
    if rate <= 0:
        return tags
    return [tag for tag, stay in zip(tags, stays, strict=True) if stay or generator.random() >= rate]
