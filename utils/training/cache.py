"""Tensors that were computed once, on disk, under a hash of all that they are made of.

So an entry is never stale: another image, size or encoder has another name. A folder may be deleted at any
time and shared by runs and processes, which write whole files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import write_atomically
from utils.models.base import Base, PromptEmbeds
from utils.models.identity import evenly_spaced

Tensors = dict[str, Tensor]
_REMEMBERED = "_pairedit_part_hash"


class Cache:
    """A folder of tensors by what they are made of; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, made_of: Sequence[str | bytes], make: Callable[[], Tensors]) -> Tensors:
        """The tensors made of these, out of the folder, or made now and kept there."""
        if self.folder is None:
            return make()
        path = self.folder / f"{_digest(made_of)}.safetensors"
        with suppress(FileNotFoundError, SafetensorError):  # one that is damaged is made anew
            return load(path.read_bytes())
        tensors = {name: value.contiguous() for name, value in make().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({name: value.cpu() for name, value in tensors.items()}))
        return tensors


def part_hash(part: Any) -> str:
    """Tells encoders apart: of a network, a hash of names, shapes and 16 values of every weight.

    Of a tokenizer, of its words.
    """
    if not isinstance(part, nn.Module):
        return sha256(repr(sorted(part.get_vocab().items())).encode()).hexdigest()
    if (remembered := getattr(part, _REMEMBERED, None)) is not None:
        return remembered
    digest = sha256()
    for name, weight in part.state_dict().items():
        flat = weight.detach().flatten()
        values = flat[evenly_spaced(len(flat)).to(flat.device)] if len(flat) else flat
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(values.float().cpu().numpy().tobytes())
    setattr(part, _REMEMBERED, digest.hexdigest())
    return digest.hexdigest()


def cached_prompts(
    base: Base, prompts: Sequence[str], max_sequence_length: int, cache: Cache
) -> Mapping[str, PromptEmbeds]:
    """The embeddings of prompts; with a folder, they stay on disk and are read as they are needed."""
    if cache.folder is None:
        return {prompt: base.encode_prompts([prompt], max_sequence_length) for prompt in prompts}
    encoders = [part_hash(base.part(name)) for name in base.text_parts]
    made_of = {prompt: [*encoders, str(max_sequence_length), prompt] for prompt in prompts}
    for prompt, own in made_of.items():
        cache.get(own, lambda: base.encode_prompts([prompt], max_sequence_length).tensors)  # noqa: B023
    return _OnDisk(cache, made_of, base.device)


def cached_latents(base: Base, pixels: Tensor, cache: Cache) -> Tensor:
    """Latents (C, h, w) of an image (3, H, W) in [-1, 1], by its 8-bit values."""
    values = ((pixels + 1) * 127.5).round().to(torch.uint8)
    made_of = [*(part_hash(base.part(name)) for name in base.image_parts), str(tuple(values.shape))]
    made = cache.get(
        [*made_of, values.numpy().tobytes()], lambda: {"latents": base.encode_images(pixels[None])[0]}
    )
    return made["latents"].to(base.device)


class _OnDisk(Mapping[str, PromptEmbeds]):
    """Embeddings in a cache, each read when it is asked for."""

    def __init__(self, cache: Cache, made_of: Mapping[str, Sequence[str]], device: torch.device) -> None:
        self.cache, self.made_of, self.device = cache, made_of, device

    def __getitem__(self, prompt: str) -> PromptEmbeds:
        made_of = self.made_of[prompt]
        tensors = self.cache.get(made_of, lambda: _gone(prompt, self.cache))
        return PromptEmbeds({name: value.to(self.device) for name, value in tensors.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.made_of)

    def __len__(self) -> int:
        return len(self.made_of)


def _gone(prompt: str, cache: Cache) -> Tensors:
    raise UserError(f"{cache.folder}: expected the embedding of {prompt!r}, found it deleted; start again")


def _digest(made_of: Sequence[str | bytes]) -> str:
    digest = sha256()
    for part in made_of:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()
