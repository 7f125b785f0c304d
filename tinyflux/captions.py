"""What is said of a person: the captions that the small FLUX learns from, and the words they are made of.

Every wording of a thing stands in one table, so that what a person would type first is understood. What is
absent is never named, so a caption that leaves an edit out makes it rarer, as in life.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tinyflux.people import HAIR_STYLES, People

NAMED_ABOVE = {"age": 0.62, "smile": 0.55, "big_eyes": 0.45, "chubby": 0.45}
"""A continuous edit counts as present (and may be named) above this value, any other edit above a half."""
YOUNG_BELOW = 0.3

EDIT_PHRASES = {
    "glasses": (
        *("with glasses", "wearing glasses", "glasses", "in glasses"),
        *("with spectacles", "wearing spectacles", "with eyeglasses", "wearing eyeglasses"),
    ),
    "beard": ("with a beard", "bearded", "beard", "with a full beard", "with facial hair"),
    "elf_ears": ("with elf ears", "with pointed ears", "with pointy ears", "elf ears", "elf"),
    "lipstick": ("with red lipstick", "wearing lipstick", "with lipstick", "red lipstick", "with red lips"),
    "smile": ("smiling", "with a smile", "happy", "smile", "with a big smile", "grinning", "laughing"),
    "big_eyes": ("with big eyes", "with large eyes", "big eyes", "with huge eyes"),
    "chubby": ("chubby", "with a chubby face", "plump", "with a round face", "fat", "overweight"),
}
"""Edit -> its wordings behind the noun, the most usual first."""
EDIT_ADJECTIVES = {
    "beard": ("bearded",),
    "smile": ("smiling", "happy", "grinning", "laughing"),
    "chubby": ("chubby", "plump", "fat", "overweight"),
}
"""Edit -> its wordings before the noun, where there are any."""
OLD, YOUNG = ("old", "elderly", "aged", "senior"), ("young", "youthful")

Scale = tuple[tuple[str, ...], ...]
"""An attribute's words over its range: equally wide parts, each with its synonyms."""

SKIN: Scale = (("fair", "pale"), ("light",), ("tan", "tanned"), ("brown",), ("dark", "black"))
HAIR: Scale = (("black", "dark"), ("brown", "brunette"), ("red", "ginger"), ("blond", "blonde"))
EYES: Scale = (("brown",), ("green",), ("blue",))
HUES: Scale = (
    *(("red",), ("orange",), ("yellow",), ("green",)),
    *(("teal", "cyan", "turquoise"), ("blue",), ("purple", "violet")),
)
"""Of each part the most usual word comes first."""

MEN = ("man", "male person", "guy", "gentleman", "male")
WOMEN = ("woman", "female person", "lady", "female")
ANYONE = ("person", "human", "face")
MEDIA = ("photo", "portrait", "image", "picture", "photograph")
STYLE_MEDIA = {
    "pixel_art": ("pixel art", "pixelated picture", "pixel art portrait"),
    "sketch": ("sketch", "pencil sketch", "drawing", "pencil drawing"),
}

DETAIL_FRAMES = {
    "skin": ("with {} skin", "{} skin"),
    "hair": ("with {} hair", "{} hair"),
    "eyes": ("with {} eyes", "{} eyes"),
    "shirt": ("in {a} shirt", "wearing {a} shirt", "{} shirt", "with {a} shirt"),
    "background": ("on {a} background", "{} background", "with {a} background", "against {a} background"),
}
"""Detail -> the frames its word is set in; {a} is the word behind its article."""


def present(people: People, name: str) -> Tensor:
    """(B,) bool: who has the edit, by the value at which captions may name it."""
    return people[name] > NAMED_ABOVE.get(name, 0.5)


def word_of(value: float, words: Sequence[Sequence[str]]) -> Sequence[str]:
    """The synonyms for a value in [0, 1] on a scale of equally wide words."""
    return words[min(int(value * len(words)), len(words) - 1)]


class _Speaker:
    """Random choices of wording; the first of several is said half the time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one_of(self, wordings: Sequence[str]) -> str:
        usual = len(wordings) == 1 or self.chance(0.5)
        return wordings[0] if usual else wordings[1 + int(self.rng.integers(len(wordings) - 1))]


def caption(person: dict[str, float], rng: np.random.Generator, p_edit: float = 0.9) -> str:
    """Describe one person, naming each edit that is present with probability `p_edit`.

    How many of the details (skin, hair, eyes, shirt, background) are named differs from caption to caption:
    some say nothing of them, some all.
    """
    speaker = _Speaker(rng)
    talkative = 0.25 if speaker.chance(0.25) else float(rng.uniform(0.3, 1.0))
    adjectives, phrases = _edits(person, speaker, p_edit)
    phrases += [
        in_frame(speaker.one_of(DETAIL_FRAMES[name]), word)
        for name, word in _details(person, speaker).items()
        if speaker.chance(talkative)
    ]
    rng.shuffle(phrases)
    noun = " ".join([*adjectives, _noun(person, speaker)])
    opening = _opening(person, noun, speaker, p_edit)
    glue = ", " if speaker.chance(0.45) else " " if speaker.chance(0.7) else " and "
    return f"{opening}{', ' if glue == ', ' else ' '}{glue.join(phrases)}" if phrases else opening


def _opening(person: dict[str, float], noun: str, speaker: _Speaker, p_edit: float) -> str:
    """The medium and the noun, or the noun alone: "a photo of a man", "photo of man", "a man", "man"."""
    for style, wordings in STYLE_MEDIA.items():
        if person[style] > 0.5 and speaker.chance(p_edit):
            return f"{with_article(speaker.one_of(wordings))} of {with_article(noun)}"
    if speaker.chance(0.2):
        return noun if speaker.chance(0.5) else with_article(noun)
    medium = speaker.one_of(MEDIA)
    return f"{medium} of {noun}" if speaker.chance(0.1) else f"{with_article(medium)} of {with_article(noun)}"


def _edits(person: dict[str, float], speaker: _Speaker, p_edit: float) -> tuple[list[str], list[str]]:
    """What stands before the noun and what behind it, of the edits that are there."""
    adjectives, phrases = [], []
    if person["age"] > NAMED_ABOVE["age"] and speaker.chance(p_edit):
        adjectives.append(speaker.one_of(OLD))
    elif person["age"] < YOUNG_BELOW and speaker.chance(0.5):
        adjectives.append(speaker.one_of(YOUNG))
    for name, wordings in EDIT_PHRASES.items():
        if person[name] > NAMED_ABOVE.get(name, 0.5) and speaker.chance(p_edit):
            if name in EDIT_ADJECTIVES and speaker.chance(0.3):
                adjectives.append(speaker.one_of(EDIT_ADJECTIVES[name]))
            else:
                phrases.append(speaker.one_of(wordings))
    speaker.rng.shuffle(adjectives)
    return adjectives, phrases


def _noun(person: dict[str, float], speaker: _Speaker) -> str:
    if speaker.chance(0.15):
        return speaker.one_of(ANYONE)
    return speaker.one_of(MEN if person["male"] > 0.5 else WOMEN)


def _details(person: dict[str, float], speaker: _Speaker) -> dict[str, str]:
    """The word for each detail; of the hair its colour, its style, or both."""
    colour, style = speaker.one_of(word_of(person["hair_tone"], HAIR)), HAIR_STYLES[int(person["hair_style"])]
    hair = colour if speaker.chance(0.5) else f"{style} {colour}" if speaker.chance(0.7) else style
    return {
        "skin": speaker.one_of(word_of(person["skin"], SKIN)),
        "hair": hair,
        "eyes": speaker.one_of(word_of(person["eye_colour"], EYES)),
        "shirt": speaker.one_of(word_of(person["clothes"], HUES)),
        "background": speaker.one_of(word_of(person["background"], HUES)),
    }


def in_frame(frame: str, word: str) -> str:
    """A detail's word set in one of `DETAIL_FRAMES`."""
    return frame.format(word, a=with_article(word))


def with_article(noun: str) -> str:
    """ "an old man", "a man"."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def captions(people: People, seed: int) -> list[str]:
    """One caption a person, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    columns = {name: value.tolist() for name, value in people.items()}
    return [caption({name: columns[name][i] for name in columns}, rng) for i in range(len(people["male"]))]


def caption_words() -> list[str]:
    """Every word that a caption may hold, sorted: the tokenizers' vocabulary."""
    frames = [frame for several in DETAIL_FRAMES.values() for frame in several]
    scales = [word for scale in (SKIN, HAIR, EYES, HUES) for words in scale for word in words]
    wordings = [*EDIT_PHRASES.values(), *EDIT_ADJECTIVES.values(), *STYLE_MEDIA.values()]
    said = [
        *frames,
        *scales,
        *(wording for several in wordings for wording in several),
        *(*OLD, *YOUNG, *MEN, *WOMEN, *ANYONE, *MEDIA, *HAIR_STYLES, "a an of and"),
    ]
    return sorted({word for text in said for word in re.findall(r"[a-z]+", text)})
