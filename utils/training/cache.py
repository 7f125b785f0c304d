"""Tensors that were computed once, on disk, under a hash of all that they are made of.

So an entry is never stale: another image, size or encoder has another name. A folder may be deleted at any
time and shared by runs and processes, which write whole files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from utils.config.schema import Config
from utils.files import write_atomically
from utils.models.base import Base, PromptEmbeds
from utils.models.identity import evenly_spaced

Tensors = dict[str, Tensor]
_REMEMBERED = "_pairedit_part_hash"


class Cache:
    """A folder of tensors by what they are made of; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of(cls, config: Config) -> Cache:
        """That of a config's cache_folder."""
        return cls(Path(config.cache_folder) if config.cache_folder else None)

    def get(self, made_of: Sequence[str | bytes], make: Callable[[], Tensors]) -> Tensors:
        """The tensors made of these: out of the folder, mapped into memory, or made now and kept there.

        What is mapped is read as it is used, and stays there if the folder is deleted meanwhile.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{_digest(made_of)}.safetensors"
        with suppress(FileNotFoundError, SafetensorError):  # one that is damaged is made anew
            return load_file(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({name: value.cpu().contiguous() for name, value in make().items()}))
        return load_file(path)


def part_hash(part: Any) -> str:
    """Tells encoders apart: of a network, a hash of its settings, and of every weight's name, shape, type and
    16 of its values; of a tokenizer, of its words.
    """
    if not isinstance(part, nn.Module):
        return sha256(repr(sorted(part.get_vocab().items())).encode()).hexdigest()
    if (remembered := getattr(part, _REMEMBERED, None)) is not None:
        return remembered
    config: Any = getattr(part, "config", {})
    settings = config if isinstance(config, Mapping) else config.to_dict()
    own = {name: value for name, value in settings.items() if name[0] != "_"}  # _name_or_path says where
    digest = sha256(repr(sorted(own.items())).encode())
    for name, weight in part.state_dict().items():
        flat = weight.detach().flatten()
        values = flat[evenly_spaced(len(flat)).to(flat.device)] if len(flat) else flat
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(values.float().cpu().numpy().tobytes())
    setattr(part, _REMEMBERED, digest.hexdigest())
    return digest.hexdigest()


def cached_prompts(
    base: Base, prompts: Sequence[str], max_sequence_length: int, cache: Cache
) -> Mapping[str, PromptEmbeds]:
    """The embeddings of prompts; with a folder, they stay on disk and are read as they are needed."""
    prompts = list(dict.fromkeys(prompts))
    if cache.folder is None:
        return {prompt: base.encode_prompts([prompt], max_sequence_length) for prompt in prompts}
    made_of = [*_encoders(base, base.text_parts), str(max_sequence_length)]
    return _Mapped(
        {
            prompt: cache.get([*made_of, prompt], partial(_encoded_prompt, base, prompt, max_sequence_length))
            for prompt in prompts
        },
        base.device,
    )


def cached_latents(base: Base, pixels: Tensor, cache: Cache) -> Tensor:
    """Latents (C, h, w) of an image (3, H, W) in [-1, 1], by its 8-bit values."""
    if cache.folder is None:
        return base.encode_images(pixels[None])[0]
    values = ((pixels + 1) * 127.5).round().to(torch.uint8)
    made_of = [*_encoders(base, base.image_parts), str(tuple(values.shape))]
    made = cache.get(
        [*made_of, values.numpy().tobytes()], lambda: {"latents": base.encode_images(pixels[None])[0]}
    )
    return made["latents"].to(base.device)


def _encoders(base: Base, parts: Sequence[str]) -> list[str]:
    return [type(base).__name__, *(part_hash(base.part(name)) for name in parts)]


def _encoded_prompt(base: Base, prompt: str, max_sequence_length: int) -> Tensors:
    return base.encode_prompts([prompt], max_sequence_length).tensors


class _Mapped(Mapping[str, PromptEmbeds]):
    """Embeddings in mapped files, each brought to the device when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensors], device: torch.device) -> None:
        self.tensors, self.device = tensors, device

    def __getitem__(self, prompt: str) -> PromptEmbeds:
        return PromptEmbeds({name: value.to(self.device) for name, value in self.tensors[prompt].items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _digest(made_of: Sequence[str | bytes]) -> str:
    digest = sha256()
    for part in made_of:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()
