"""New words: rows of text encoders' embeddings, in a LoRA file or in one of their own.

    in a LoRA file   bundle_emb.WORD.clip_l (vectors, width), bundle_emb.WORD.t5, as OneTrainer has them; with
                     string_to_param.* or emb_params in place of the encoder, as the web UIs
    in its own       WORD (vectors, width) where CLIP alone has rows of one word: load_textual_inversion of
                     stock diffusers reads it from the file; else clip_l and t5, all words' rows in turn, as
                     diffusers' pivotal tuning writes them

A word of several vectors is the tokens WORD, WORD_1 and so on, as in diffusers. An encoder without rows reads
what the header says in the word's place: the word that it began from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import write_atomically
from utils.lora.linear import Misfit
from utils.lora.names import BUNDLED, text_encoders
from utils.lora.tensor_files import read_tensors, safetensors_bytes

HEADER = "new_words"
"""Metadata key: {word: what encoders without rows read in its place} as JSON, in the order of the rows."""

_CLIP = "text_encoder"
_OF_CLIP = ("string_to_param.*", "emb_params", "")
_OTHERS = ("clip_g", "clip_g_out", "clip_l_out", "t5_out", "llama", "gemma", "qwen")
_OWN_NAMES = {"text_encoders_0": "clip_l", "text_encoders_1": "t5"}


@dataclass(frozen=True)
class NewWord:
    """One new word.

    Attributes:
        word: as it stands in prompts, "<new1>".
        rows: (vectors, width) by the text encoder's name in the pipeline.
        spelled: what the other text encoders read in its place; "" for the word as it is.
    """

    word: str
    rows: Mapping[str, Tensor]
    spelled: str = ""


def bundled(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[NewWord, ...]:
    """The new words in a LoRA file.

    Args:
        tensors: those whose keys begin with BUNDLED.
        metadata: of the file's header.

    Raises:
        Misfit: naming every one that is no embedding for these text encoders.
    """
    rows: dict[str, dict[str, Tensor]] = {}
    faults = []
    for key, tensor in tensors.items():
        word, encoder = _word_and_encoder(key)
        if encoder is None or not word:
            faults.append(f"{key} is a new word's embedding for no text encoder of FLUX")
        elif fault := _fault(key, tensor):
            faults.append(fault)
        else:
            rows.setdefault(word, {})[encoder] = tensor.reshape(-1, tensor.shape[-1])
    if faults:
        raise Misfit(faults)
    spelled = _spellings(metadata)
    order = [word for word in spelled if word in rows] + [word for word in rows if word not in spelled]
    return tuple(NewWord(word, rows[word], spelled.get(word, "")) for word in order)


def bundle(words: Sequence[NewWord]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The inverse of `bundled`: tensors by key, and the header."""
    keys = {part: encoder.embeddings for part, encoder in text_encoders().items()}
    tensors = {
        f"{BUNDLED}{word.word}.{keys[part]}": rows.detach().cpu().clone()
        for word in words
        for part, rows in word.rows.items()
    }
    return tensors, _header(words)


def write_words(path: Path, words: Sequence[NewWord], metadata: Mapping[str, str]) -> None:
    """Write new words as a .safetensors of their own, whole or not at all.

    Args:
        path: the file; its folder is made.
        words: at least one; all have rows of the same encoders.
        metadata: free text for the header.

    Raises:
        ValueError: for no word, or words that differ in the encoders they have rows of.
        UserError: if the disk does not take it.
    """
    parts = {tuple(word.rows) for word in words}
    if len(parts) != 1:
        raise ValueError(f"expected words with rows of the same text encoders, found {sorted(parts)}")
    tensors: dict[str, Tensor]
    if len(words) == 1 and list(words[0].rows) == [_CLIP]:
        tensors = {words[0].word: words[0].rows[_CLIP]}
    else:
        encoders = text_encoders()
        tensors = {
            encoders[part].embeddings: torch.cat([word.rows[part] for word in words])
            for part in next(iter(parts))
        }
    counts = {word.word: len(next(iter(word.rows.values()))) for word in words}
    header = {**metadata, **_header(words), "new_word_vectors": json.dumps(counts)}
    plain = {key: rows.detach().cpu().clone() for key, rows in tensors.items()}
    write_atomically(path, safetensors_bytes(plain, header))


def read_words(path: Path) -> tuple[NewWord, ...]:
    """The new words of a file of their own, ours or another tool's; of a LoRA file those in it.

    Words that a file of several does not name are <s0>, <s1> and so on, as diffusers' pivotal tuning has
    them; one without a name is called as the file.

    Raises:
        UserError: if there are none, or they are for other text encoders.
    """
    tensors, metadata = read_tensors(path)
    try:
        if any(key.startswith(BUNDLED) for key in tensors):
            return bundled({key: each for key, each in tensors.items() if key.startswith(BUNDLED)}, metadata)
        tensors = {_OWN_NAMES.get(key, key): each for key, each in tensors.items()}
        by_name = {encoder.embeddings: part for part, encoder in text_encoders().items()}
        if tensors and tensors.keys() <= by_name.keys():
            return _several({by_name[key]: each for key, each in tensors.items()}, metadata)
        if len(tensors) != 1 or set(tensors) & set(_OTHERS):
            raise Misfit(
                [f"{', '.join(list(tensors)[:3]) or 'nothing'}, where one embedding or clip_l, t5 fit"]
            )
        key, rows = next(iter(tensors.items()))
        word = path.stem if key == "emb_params" else key
        return tuple(
            replace(each, word=word) for each in bundled({f"{BUNDLED}{word}.clip_l": rows}, metadata)
        )
    except Misfit as misfit:
        raise UserError(f"{path}: expected embeddings of new words, found: {misfit}") from None


def joined(files: Sequence[tuple[Path, Sequence[NewWord]]]) -> tuple[NewWord, ...]:
    """The new words of several files; raises `UserError` for one that two of them have."""
    owners: dict[str, Path] = {}
    for path, words in files:
        for word in words:
            if word.word in owners:
                raise UserError(
                    f"{path}: expected other words than {owners[word.word]} has, found {word.word}"
                )
            owners[word.word] = path
    return tuple(word for _, words in files for word in words)


def _several(rows: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[NewWord, ...]:
    """Words whose rows stand one below the other."""
    if faults := [fault for part, own in rows.items() if (fault := _fault(part, own))]:
        raise Misfit(faults)
    whole = {part: own.reshape(-1, own.shape[-1]) for part, own in rows.items()}
    total = len(next(iter(whole.values())))
    spelled = _spellings(metadata)
    try:
        counts = json.loads(metadata.get("new_word_vectors", "")) if spelled else None
    except ValueError:
        counts = None
    counts = counts if isinstance(counts, dict) else {f"<s{number}>": 1 for number in range(total)}
    if sum(counts.values()) != total or any(len(own) != total for own in whole.values()):
        lengths = ", ".join(f"{len(own)} of {part}" for part, own in whole.items())
        raise Misfit([f"{lengths} where {sum(counts.values())} rows fit"])
    split = {part: own.split(list(counts.values())) for part, own in whole.items()}
    return tuple(
        NewWord(word, {part: own[number] for part, own in split.items()}, spelled.get(word, ""))
        for number, word in enumerate(counts)
    )


def _word_and_encoder(key: str) -> tuple[str, str | None]:
    """A bundled key's word, and its text encoder; None for one that FLUX lacks."""
    name = key.removeprefix(BUNDLED)
    for part, encoder in text_encoders().items():
        if name.endswith(f".{encoder.embeddings}"):
            return name.removesuffix(f".{encoder.embeddings}"), part
    if any(name.endswith(f".{other}") for other in _OTHERS):
        return name, None
    ending = next(end for end in _OF_CLIP if not end or name.endswith(f".{end}"))
    return name.removesuffix(f".{ending}") if ending else name, _CLIP


def _fault(key: str, tensor: Tensor) -> str | None:
    """What is wrong with a word's rows, in words."""
    if tensor.ndim not in (1, 2) or 0 in tensor.shape or not tensor.is_floating_point():
        return f"{key} of shape {tuple(tensor.shape)}, {tensor.dtype} where (vectors, width) of floats fits"
    return None if tensor.float().isfinite().all() else f"{key} holds values that are not finite numbers"


def _header(words: Sequence[NewWord]) -> dict[str, str]:
    return {HEADER: json.dumps({word.word: word.spelled for word in words})} if words else {}


def _spellings(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(metadata.get(HEADER, "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise Misfit([f"{HEADER} in its header is no JSON object of texts"])
    return found
