"""Who is in a picture, by the probe: how far off a subject, in words, and whether a prompt was followed."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux import captions as said
from tinyflux.followed import UNNAMED, Word, every_word
from tinyflux.probe import load_probe
from tinyflux.subjects import WHO
from utils.measure.subjects import SubjectProbe


def face_subject_probe() -> SubjectProbe:
    """The face world's probe, for measuring subjects."""
    probe = load_probe()

    def readings(images: Tensor) -> Tensor:
        """(B, WHO) in [0, 1]."""
        read = probe.read(images)
        return torch.stack([read[name] for name in WHO], dim=1)

    def error(images: Tensor, references: Tensor) -> Tensor:
        return (readings(images) - readings(references).mean(dim=0)).abs().mean(dim=1)

    def change(images: Tensor, before: Tensor) -> Tensor:
        return (readings(images) - readings(before)).abs().mean(dim=1)

    def followed(images: Tensor, prompt: str) -> Tensor | None:
        words, read = words_of(prompt), probe.read(images)
        if not words:
            return None
        return torch.stack([word.followed(read) for word in words]).all(dim=0).float()

    def described(references: Tensor) -> str:
        read = {name: float(values.mean()) for name, values in probe.read(references).items()}
        return describe(read)

    return SubjectProbe(error, change, followed, described, probe.features, "who error")


def words_of(prompt: str) -> list[Word]:
    """What a prompt asks for, beside whom: shirt, background, glasses, smile and so on."""
    text = f" {' '.join(prompt.replace(',', ' ').split())} "
    found = {}
    for word in every_word():
        if word.attribute != "male" and f" {_said(word)} " in text:
            found[word.attribute] = word
    return list(found.values())


def _said(word: Word) -> str:
    """What of a word's prompt says it: "in a red shirt", "smiling"."""
    return word.prompt.removeprefix(UNNAMED).strip() if word.prompt.startswith(UNNAMED) else word.wording


def describe(readings: dict[str, float]) -> str:
    """Somebody in the words of the captions: "an old woman with dark skin, with long black hair, ..."."""
    noun = "man" if readings["male"] > 0.5 else "woman"
    age = readings["age"]
    adjectives = ["old"] if age > said.NAMED_ABOVE["age"] else ["young"] if age < said.YOUNG_BELOW else []
    if readings["chubby"] > said.NAMED_ABOVE["chubby"]:
        adjectives.append("chubby")
    length = "long" if readings["long_hair"] > 0.5 else "short"
    hair = f"{length} {said.word_of(readings['hair_tone'], said.HAIR)[0]}"
    parts = [
        said.in_frame("with {} skin", said.word_of(readings["skin"], said.SKIN)[0]),
        said.in_frame("with {} hair", hair),
        said.in_frame("with {} eyes", said.word_of(readings["eye_colour"], said.EYES)[0]),
    ]
    for edit in ("beard", "elf_ears", "big_eyes"):
        if readings[edit] > said.NAMED_ABOVE.get(edit, 0.5):
            parts.append(said.EDIT_PHRASES[edit][0])
    return ", ".join([" ".join([*adjectives, noun]), *parts])
