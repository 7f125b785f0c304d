"""Whether prompts are followed: images of a prompt each, and what the probe finds in them.

Two tables: edits (found when named, when nothing is named, and in the world), and every wording of everything
that captions speak of (the share of images within a third of the attribute's range).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from tinyflux import captions as said
from tinyflux.people import EDITS, HAIR_STYLES, LONG_HAIR, STYLES, sample_people
from tinyflux.probe import Probe
from tinyflux.seeds import HELD_OUT
from utils.bars import Bar
from utils.config.schema import Config
from utils.generation.sweep import sweep_images
from utils.models.base import Base

UNNAMED = "a photo of a person"
PROMPTS = {
    **{name: f"{UNNAMED} {wordings[0]}" for name, wordings in said.EDIT_PHRASES.items() if name != "chubby"},
    "chubby": "a photo of a chubby person",
    "age": "a photo of an old person",
    "pixel_art": "a pixel art of a person",
    "sketch": "a sketch of a person",
}
_DETAILS: dict[str, tuple[str, said.Scale]] = {
    "skin": ("skin", said.SKIN),
    "hair": ("hair_tone", said.HAIR),
    "eyes": ("eye_colour", said.EYES),
    "shirt": ("clothes", said.HUES),
    "background": ("background", said.HUES),
}
THIRD = 1 / 3
"""Of an attribute's range: how far from what a word means an image may be."""


@dataclass(frozen=True)
class Word:
    """A wording, the prompt that holds it, and where on [0, 1] it puts an attribute."""

    attribute: str
    wording: str
    prompt: str
    low: float
    high: float

    def followed(self, readings: dict[str, Tensor]) -> Tensor:
        """(B,) bool: within a third of the range of the middle of what the word means."""
        return (readings[self.attribute] - (self.low + self.high) / 2).abs() <= THIRD


def every_word() -> Iterator[Word]:
    """Every wording that captions have, in a prompt that says nothing else."""
    details = {
        "skin": ("skin", said.SKIN),
        "hair": ("hair_tone", said.HAIR),
        "eyes": ("eye_colour", said.EYES),
    }
    details |= {"shirt": ("clothes", said.HUES), "background": ("background", said.HUES)}
    for detail, (attribute, scale) in details.items():
        frame = said.DETAIL_FRAMES[detail][0]
        for part, synonyms in enumerate(scale):
            for word in synonyms:
                prompt = f"{UNNAMED} {said.in_frame(frame, word)}"
                yield Word(attribute, word, prompt, part / len(scale), (part + 1) / len(scale))
    for style in HAIR_STYLES:
        prompt = f"{UNNAMED} {said.in_frame(said.DETAIL_FRAMES['hair'][0], style)}"
        yield Word("long_hair", style, prompt, *_yes(style in LONG_HAIR))

    for nouns, male in ((said.MEN, True), (said.WOMEN, False)):
        for noun in nouns:
            yield Word("male", noun, f"a photo of {said.with_article(noun)}", *_yes(male))
    for style, media in said.STYLE_MEDIA.items():
        for medium in media:
            yield Word(style, medium, f"{said.with_article(medium)} of a person", *_yes(True))

    for words, low, high in ((said.OLD, said.NAMED_ABOVE["age"], 1.0), (said.YOUNG, 0.0, said.YOUNG_BELOW)):
        for word in words:
            yield Word("age", word, f"a photo of {said.with_article(word)} person", low, high)
    for edit, wordings in said.EDIT_PHRASES.items():
        low = said.NAMED_ABOVE.get(edit, 1.0)
        for wording in dict.fromkeys((*wordings, *said.EDIT_ADJECTIVES.get(edit, ()))):
            before = wording in said.EDIT_ADJECTIVES.get(edit, ())
            noun = f"{wording} person" if before else "person"
            prompt = f"a photo of {said.with_article(noun)}"
            yield Word(edit, wording, prompt if before else f"{prompt} {wording}", low, 1.0)


def _yes(there: bool) -> tuple[float, float]:
    return (1.0, 1.0) if there else (0.0, 0.0)


def generate(base: Base, prompts: list[str], first_seed: int, config: Config) -> Tensor:
    """One image (B, 3, 128, 128) in [-1, 1] a prompt, seeds counted from `first_seed`."""
    embeds = base.encode_prompts(prompts, config.max_sequence_length)
    bar = Bar(total=len(prompts) * config.num_inference_steps, desc="samples", unit="step")
    seeds = range(first_seed, first_seed + len(prompts))
    with bar:
        return sweep_images(base, embeds, seeds, [0], [0.0], config, progress=bar.update)[0][0.0]


def is_present(readings: dict[str, Tensor], name: str) -> float:
    """Share of images in which an edit is there, by the threshold at which captions name it."""
    return (readings[name] > said.NAMED_ABOVE.get(name, 0.5)).float().mean().item()


def edits_followed(base: Base, probe: Probe, samples: int, config: Config) -> list[list[str]]:
    """A row an edit: found when named, found when nothing is named, rate in the training world."""
    bare = probe.read(generate(base, [UNNAMED] * 4 * samples, 0, config))
    world = sample_people(HELD_OUT[:10_000])
    rows = []
    for i, name in enumerate([*EDITS, *STYLES]):
        named = probe.read(generate(base, [PROMPTS[name]] * samples, 10_000 * (i + 1), config))
        rate = said.present(world, name).float().mean().item()
        shares = (is_present(named, name), is_present(bare, name), rate)
        rows.append([name, f'"{PROMPTS[name]}"', *(f"{share:.0%}" for share in shares)])
    return rows


def words_followed(base: Base, probe: Probe, samples: int, config: Config) -> list[list[str]]:
    """A row a wording: the share of images that follow it, the mean reading, what it means."""
    rows = []
    for i, word in enumerate(every_word()):
        readings = probe.read(generate(base, [word.prompt] * samples, 200_000 + 1000 * i, config))
        share, mean = word.followed(readings).float().mean().item(), readings[word.attribute].mean().item()
        means = f"{word.low:.2f} to {word.high:.2f}" if word.low < word.high else f"{word.low:.0f}"
        rows.append([word.attribute, f'"{word.prompt}"', means, f"{mean:.2f}", f"{share:.0%}"])
    return rows
