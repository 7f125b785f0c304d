"""LoRA files as adapters on a base: on its transformer, and on its text encoders while they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.lora.files import read_lora

if TYPE_CHECKING:
    from torch import nn

    from utils.lora.linear import LinearLora


def load_lora(
    transformer: nn.Module, path: Path, adapter_name: str, text_apart: bool = False
) -> dict[str, str]:
    """Add the LoRA of a file, in any format, as a new adapter, inactive until `use_mixes`.

    Args:
        transformer: the base model, with or without other adapters.
        path: the file.
        adapter_name: free name for it.
        text_apart: whether the caller sees to what the file has for text encoders, which is refused else: it
            would be half of the effect.

    Returns:
        The metadata in the file's header, {} for a .pt.

    Raises:
        UserError: if the file is missing, unreadable or no LoRA, or does not fit the transformer in every key
            and shape; nothing is added then.
        ValueError: if the name is taken.
    """
    from utils.lora.names import TRANSFORMER

    file = read_lora(path)
    parts = file.by_part
    own = parts.pop(TRANSFORMER, {})
    if (parts or file.words) and not text_apart:
        found = " and ".join([*parts, *(word.word for word in file.words)])
        raise UserError(
            f"{path}: expected a LoRA of the transformer alone here, found one of {found}, too; "
            "python -m utils.lora convert IN OUT --to diffusers --skip-text-encoder leaves it out"
        )
    _check_family(path, file.metadata, own, transformer)
    _add(transformer, path, adapter_name, own, "model")
    return file.metadata


def load_text_loras(parts: Mapping[str, nn.Module], path: Path, adapter_name: str) -> list[str]:
    """Add what a LoRA file has for text encoders as new adapters on them, inactive until `use_mixes`.

    Args:
        parts: text encoders by their names in the pipeline.
        path: the file.
        adapter_name: free name.

    Returns:
        The text encoders that got one.

    Raises:
        UserError: as `load_lora`; nothing is added then.
        ValueError: if the name is taken.
    """
    from utils.lora.names import TRANSFORMER, text_encoders
    from utils.models.adapters import remove_adapter

    added: list[str] = []
    loras = {part: own for part, own in read_lora(path).by_part.items() if part != TRANSFORMER}
    try:
        for part, own in loras.items():
            if part not in parts:
                raise UserError(f"{path}: expected a LoRA for this base, found one of {part}, which it lacks")
            encoder, model = text_encoders()[part], parts[part]
            _add(model, path, adapter_name, {encoder.own_name(name, model): own[name] for name in own}, part)
            added.append(part)
    except UserError:
        for part in added:
            remove_adapter(parts[part], adapter_name)
        raise
    return added


def text_use(path: Path) -> tuple[bool, bool]:
    """Whether a LoRA file has a part for text encoders, and whether it has new words; by its keys alone.

    Raises:
        UserError: if it cannot be read.
    """
    from utils.lora.names import BUNDLED, TRANSFORMER, module_at
    from utils.lora.parts import part_of
    from utils.lora.tensor_files import read_keys

    keys = read_keys(path)
    stems = {found[0] for key in keys if not key.startswith(BUNDLED) and (found := part_of(key))}
    modules = [module for stem in stems if (module := module_at(stem))]
    of_text = any(module.part != TRANSFORMER for module in modules)
    return of_text, any(key.startswith(BUNDLED) for key in keys)


def _check_family(path: Path, metadata: Mapping[str, str], linears: Iterable[str], model: nn.Module) -> None:
    """Raise `UserError` for a LoRA of another family than the transformer's, by its header or its linears."""
    from utils.lora.metadata import BASE_FAMILY
    from utils.lora.names import families_of
    from utils.models.families import FAMILIES, family_of, name_of

    own = family_of(model)
    said = metadata.get(f"ss_{BASE_FAMILY}")
    found = [said] if said in FAMILIES else families_of(linears)
    if found and name_of(own) not in found:
        others = " or ".join(FAMILIES[str(name)].pipeline for name in found)
        raise UserError(f"{path}: expected a LoRA of {own.pipeline}, found one of {others}")


def _add(model: nn.Module, path: Path, adapter_name: str, loras: Mapping[str, LinearLora], what: str) -> None:
    """Add LoRAs of a file to a model, by its own names of linears; `what` it is, for errors."""
    from utils.lora.linear import Misfit
    from utils.models.adapters import inject_adapter, linear_layers, lora_layers, lora_weights

    linears = linear_layers(model)
    faults = []
    for name, lora in loras.items():
        if name not in linears:
            faults.append(f"{name} matches no linear of the {what}")
        elif lora.shape != (fits := (linears[name].out_features, linears[name].in_features)):
            faults.append(f"{name} of shape {lora.shape} (out, in) where {fits} fits")
    if faults:
        raise UserError(f"{path}: expected a LoRA for this model, found: {Misfit(faults)}")
    inject_adapter(model, adapter_name, {name: (lora.rank, lora.alpha) for name, lora in loras.items()})
    for name, layer in lora_layers(model, adapter_name).items():
        weight_a, weight_b = lora_weights(layer, adapter_name)
        weight_a.data.copy_(loras[name].weight_a)
        weight_b.data.copy_(loras[name].weight_b)
