"""LoRA files: written in any of the formats of utils/lora/formats.py, read whoever wrote them.

All mean W + scale * alpha / rank * B A. A file is recognised by its keys and runs no code; one that does not
fit in every key and shape is an error that lists the faults: nothing is ever loaded in part.

As a command, from the repository: python -m utils.lora --help

torch is imported where it is used, so that --help need not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.files import write_atomically
from utils.lora.tensor_files import is_safetensors, read_tensors, safetensors_bytes, torch_bytes

if TYPE_CHECKING:
    from torch import nn

    from utils.lora.linear import LinearLora
    from utils.lora.reading import Contents
    from utils.lora.words import NewWord


@dataclass(frozen=True)
class LoraFile:
    """What a file holds.

    Attributes:
        loras: LoRA of each linear, by the linear's dotted name in diffusers; the transformer's without
            "transformer.", a text encoder's behind "text_encoder." or "text_encoder_2.".
        metadata: of the header, less what only says how to read the tensors; {} for a .pt.
        format: a key of FORMATS in utils/lora/formats.py; or for others' files, whose names it has.
        left: keys of text encoders, left out on request.
        words: new words in it, that prompts may have.
    """

    loras: dict[str, LinearLora]
    metadata: dict[str, str]
    format: str
    left: tuple[str, ...] = ()
    words: tuple[NewWord, ...] = ()

    @property
    def by_part(self) -> dict[str, dict[str, LinearLora]]:
        """`loras` by the part of the pipeline that they lie in."""
        from utils.lora.names import by_part

        return by_part(self.loras)


def read_lora(path: Path, skip_text_encoder: bool = False) -> LoraFile:
    """Read a LoRA file, whoever wrote it and whatever it is called.

    Args:
        path: the file.
        skip_text_encoder: leave out what is of a text encoder.

    Raises:
        UserError: if the file is missing, unreadable or no plain LoRA for FLUX in every key, naming those at
            fault.
    """
    from utils.lora.linear import Misfit
    from utils.lora.reading import plain_loras
    from utils.lora.words import bundled

    contents, metadata = read_contents(path, skip_text_encoder)
    if strange := contents.strange():
        kinds = ", ".join(f"{kind} ({count} of {len(contents.adapters)})" for kind, count in strange.items())
        raise UserError(
            f"{path}: expected a plain LoRA, found {kinds}; python -m utils.lora convert IN OUT "
            "--to diffusers --rank N makes the nearest one of a DoRA, LoHa, LoKr or full difference"
        )
    try:
        loras, words = plain_loras(contents, metadata), bundled(contents.bundled, metadata)
    except Misfit as misfit:
        raise UserError(f"{path}: expected a LoRA for this base, found: {misfit}{_hint(misfit)}") from None
    return LoraFile(loras, own_metadata(metadata), contents.format, contents.left, words)


def read_contents(path: Path, skip_text_encoder: bool = False) -> tuple[Contents, dict[str, str]]:
    """The tensors of a file of any adapter by module, and all of its header; raises as `read_lora`."""
    from utils.lora.linear import Misfit
    from utils.lora.names import PEFT_PREFIX
    from utils.lora.peft_config import HEADER, config_beside
    from utils.lora.reading import sort_tensors

    tensors, metadata = read_tensors(path)
    if HEADER not in metadata and any(key.startswith(PEFT_PREFIX) for key in tensors):
        metadata |= config_beside(path)
    try:
        return sort_tensors(tensors, skip_text_encoder), metadata
    except Misfit as misfit:
        raise UserError(f"{path}: expected a LoRA for this base, found: {misfit}{_hint(misfit)}") from None


def _hint(misfit: Exception) -> str:
    """What helps where a text encoder's part is at fault."""
    if "text encoder" not in str(misfit):
        return ""
    return "; python -m utils.lora convert IN OUT --to diffusers --skip-text-encoder leaves it out"


def own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """A header less what says how to read these very tensors, or is a hash of them."""
    from utils.lora.formats import OWN_HEADER
    from utils.lora.tensor_files import HASHES

    return {key: text for key, text in metadata.items() if key not in (*OWN_HEADER, *HASHES)}


def write_lora(
    path: Path,
    loras: Mapping[str, LinearLora],
    format: str,
    metadata: Mapping[str, str],
    dtype: str = "",
    words: Sequence[NewWord] = (),
) -> None:
    """Write a LoRA file, whole or not at all.

    Args:
        path: of the .safetensors, or of the .pt for format "reference"; its folder is made.
        loras: by the linear's dotted name in diffusers.
        format: a key of FORMATS in utils/lora/formats.py.
        metadata: free text for the header, which also says which text encoders have a part in the file; {}
            for a .pt, which has none.
        dtype: of A and B in the file, a key of linear.DTYPES; "" for their own.
        words: new words for the file to carry along.

    Raises:
        UserError: for an unknown format, linears that it has no place for, a dtype that does not hold their
            values, or a disk that does not take it.
        ValueError: for metadata that the file cannot hold.
    """
    from utils.lora.formats import format_named
    from utils.lora.header import TEXT_ENCODERS, text_parts
    from utils.lora.linear import Misfit, cast
    from utils.lora.words import bundle

    layout = format_named(format)
    if metadata and not layout.safetensors:
        raise ValueError(f"{path}: format {format} has no header for metadata")
    try:
        tensors, header = layout.encode(loras)
        tensors = cast(tensors, dtype) if dtype else tensors
    except Misfit as misfit:
        raise UserError(f"{path}: expected linears that format {format} can hold, found: {misfit}") from None
    rows, said = bundle(words)
    tensors, header = {**tensors, **rows}, {**header, **said, **text_parts(loras)}
    kept = {key: text for key, text in metadata.items() if key != TEXT_ENCODERS}
    data = safetensors_bytes(tensors, {**kept, **header}) if layout.safetensors else torch_bytes(tensors)
    write_atomically(path, data)


def save_lora(
    transformer: nn.Module,
    adapter: str,
    path: Path,
    metadata: Mapping[str, str],
    text_encoders: Mapping[str, nn.Module] | None = None,
    words: Sequence[NewWord] = (),
) -> None:
    """Write an adapter in diffusers format, alpha folded into B, whole or not at all.

    Without alpha there is none that a reader could pass over: the change at scale 1 is B A. A power of two
    as alpha / rank, such as 1 / 16, is folded in without rounding.

    Args:
        transformer: holds the adapter.
        adapter: its name.
        path: of the .safetensors; its folder is made.
        metadata: free text for the file's header.
        text_encoders: those that hold an adapter of that name, too, by their names in the pipeline.
        words: new words that were learned with it.

    Raises:
        UserError: if the disk does not take it.
        ValueError: if there is no such adapter.
    """
    from utils.lora.folding import fold_alpha

    loras = adapter_loras(transformer, adapter)
    for part, encoder in (text_encoders or {}).items():
        loras |= adapter_loras(encoder, adapter, part)
    write_lora(path, fold_alpha(loras), "diffusers", metadata, words=words)


def save_reference(transformer: nn.Module, adapter: str, path: Path) -> None:
    """Write an adapter as the reference implementation's .pt state dict; raises as `save_lora`."""
    write_lora(path, adapter_loras(transformer, adapter), "reference", {})


def adapter_loras(model: nn.Module, adapter: str, part: str = "") -> dict[str, LinearLora]:
    """The LoRA of each linear that an adapter has on a transformer, or on the text encoder `part`.

    Raises:
        ValueError: if there is none.
    """
    from utils.lora.linear import LinearLora
    from utils.lora.names import text_encoders
    from utils.models.adapters import adapter_names, lora_layers, lora_weights

    layers = lora_layers(model, adapter)
    if not layers:
        raise ValueError(f"no adapter {adapter}; there are: {', '.join(adapter_names(model)) or 'none'}")
    return {
        text_encoders()[part].full_name(name) if part else name: LinearLora(
            *lora_weights(layer, adapter), float(layer.lora_alpha[adapter])
        )
        for name, layer in layers.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in a LoRA file's header, {} for a .pt; raises `UserError` for what is no LoRA file."""
    return read_tensors(path)[1]


def update_metadata(path: Path, changes: Mapping[str, str]) -> None:
    """Write a .safetensors anew with `changes` over the metadata in its header, whole or not at all.

    Raises:
        UserError: if it is no .safetensors, since a .pt has no header; or if the disk does not take it.
    """
    tensors, metadata = read_tensors(path)
    if not is_safetensors(path):
        raise UserError(f"{path}: expected a .safetensors, whose header can be written to, found a .pt")
    write_atomically(path, safetensors_bytes(tensors, {**metadata, **changes}))
