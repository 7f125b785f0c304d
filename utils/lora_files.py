"""LoRA files: written in diffusers' and in the reference implementation's format, read from either.

    diffusers   safetensors: transformer.LINEAR.lora_A.weight (rank, in), .lora_B.weight (out, rank), .alpha
                Loads in stock FluxPipeline.load_lora_weights and in ComfyUI, alpha included.
    reference   torch state dict (.pt): lora_unet_LINEAR.lora_down.weight, .lora_up.weight, .alpha, with the
                dots of LINEAR as underscores; what the authors' implementation writes and reads.

Both mean W + scale * alpha / rank * B A. Files are recognised by content, never by name; a .pt is read with
weights_only, so that none can run code; a file that does not fit the model in every key is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from utils.adapters import adapter_names, inject_adapter, linear_layers, lora_layers, lora_weights
from utils.errors import UserError

_LISTED = 5  # faults named in one error; the rest are counted

# part of a LoRA -> how its key ends, in each format
_DIFFUSERS = {"A": ".lora_A.weight", "B": ".lora_B.weight", "alpha": ".alpha"}
_REFERENCE = {"A": ".lora_down.weight", "B": ".lora_up.weight", "alpha": ".alpha"}
_DIFFUSERS_PREFIX = "transformer."
_REFERENCE_PREFIX = "lora_unet_"


@dataclass(frozen=True)
class LinearLora:
    """The LoRA of one linear: A (rank, in_features), B (out_features, rank), and alpha."""

    weight_a: Tensor
    weight_b: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.weight_a.shape[0]


def save_lora(transformer: nn.Module, adapter: str, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an adapter in diffusers format, whole or not at all.

    Args:
        transformer: holds the adapter.
        adapter: its name.
        path: of the .safetensors; its folder is made.
        metadata: free text for the file's header.

    Raises:
        ValueError: if there is no such adapter.
    """
    tensors = _tensors(transformer, adapter, _DIFFUSERS_PREFIX, _DIFFUSERS)
    header = {"format": "pt", **metadata}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def save_reference(transformer: nn.Module, adapter: str, path: Path) -> None:
    """Write an adapter as the reference implementation's .pt state dict, whole or not at all.

    Raises:
        ValueError: if there is no such adapter.
    """
    tensors = _tensors(transformer, adapter, _REFERENCE_PREFIX, _REFERENCE)
    flat = {_flatten(key, tuple(_REFERENCE.values())): tensor for key, tensor in tensors.items()}
    write_atomically(path, lambda temporary: torch.save(flat, temporary))


def load_lora(transformer: nn.Module, path: Path, adapter_name: str) -> dict[str, str]:
    """Add the LoRA of a file, in either format, as a new adapter, inactive until `use_adapters`.

    Args:
        transformer: the base model, with or without other adapters.
        path: the file.
        adapter_name: free name for it.

    Returns:
        The metadata in the file's header, {} for a .pt.

    Raises:
        UserError: if the file is missing, unreadable or no LoRA, or does not fit the transformer in every key
            and shape; nothing is added then.
        ValueError: if the name is taken.
    """
    tensors, metadata = _read(path)
    linears = linear_layers(transformer)
    loras = _parse(path, tensors, metadata, linears)
    inject_adapter(transformer, adapter_name, {name: (lora.rank, lora.alpha) for name, lora in loras.items()})
    for name, layer in lora_layers(transformer, adapter_name).items():
        weight_a, weight_b = lora_weights(layer, adapter_name)
        weight_a.data.copy_(loras[name].weight_a)
        weight_b.data.copy_(loras[name].weight_b)
    return metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in a LoRA file's header, {} for a .pt; raises `UserError` for what is no LoRA file."""
    return _read(path)[1]


def update_metadata(path: Path, changes: Mapping[str, str]) -> None:
    """Write a .safetensors anew with `changes` over the metadata in its header, whole or not at all.

    Raises:
        UserError: if it is no .safetensors; a .pt has no header.
    """
    tensors, metadata = _read(path)
    if not _is_safetensors(path):
        raise UserError(f"{path}: expected a .safetensors, whose header can be written to, found a .pt")
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={**metadata, **changes}))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _tensors(transformer: nn.Module, adapter: str, prefix: str, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """All of an adapter's tensors on the CPU, float32, by file key."""
    layers = lora_layers(transformer, adapter)
    if not layers:
        raise ValueError(
            f"no adapter {adapter}; there are: {', '.join(adapter_names(transformer)) or 'none'}"
        )
    tensors = {}
    for name, layer in layers.items():
        weight_a, weight_b = lora_weights(layer, adapter)
        tensors[prefix + name + keys["A"]] = weight_a.detach().cpu().contiguous()
        tensors[prefix + name + keys["B"]] = weight_b.detach().cpu().contiguous()
        tensors[prefix + name + keys["alpha"]] = torch.tensor(float(layer.lora_alpha[adapter]))
    return tensors


def _flatten(key: str, endings: tuple[str, ...]) -> str:
    """lora_unet_a.0.b.lora_up.weight -> lora_unet_a_0_b.lora_up.weight"""
    ending = next(ending for ending in endings if key.endswith(ending))
    return key.removesuffix(ending).replace(".", "_") + ending


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors or torch file, and the safetensors header's metadata."""
    if not path.is_file():
        raise UserError(f"{path}: expected a LoRA file, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        if _is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the parsers raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected a LoRA file (safetensors or .pt), found: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict of tensors, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}, {}


def _is_safetensors(path: Path) -> bool:
    """An 8-byte header length no greater than the file, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def _parse(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], linears: Mapping[str, nn.Linear]
) -> dict[str, LinearLora]:
    """The LoRA of each linear; raises UserError listing every key that does not fit."""
    reference = any(key.endswith(_REFERENCE["A"]) for key in tensors)
    endings = _REFERENCE if reference else _DIFFUSERS
    names = (
        {_REFERENCE_PREFIX + name.replace(".", "_"): name for name in linears}
        if reference
        else {_DIFFUSERS_PREFIX + name: name for name in linears}
    )
    parts: dict[str, dict[str, Tensor]] = {}
    faults = []
    for key, tensor in tensors.items():
        part = next((part for part, ending in endings.items() if key.endswith(ending)), None)
        name = names.get(key.removesuffix(endings[part])) if part else None
        if part is None or name is None:
            faults.append(f"{key} matches no linear of the model")
        else:
            parts.setdefault(name, {})[part] = tensor
    for name, found in parts.items():
        faults.extend(_misfits(name, found, linears[name]))
    if not tensors:
        faults.append("no tensors")
    if faults:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise UserError(f"{path}: expected a LoRA for this model, found: {'; '.join(faults[:_LISTED])}{more}")
    header_alpha = _header_alpha(path, metadata)
    return {name: _linear_lora(found, header_alpha) for name, found in parts.items()}


def _misfits(name: str, found: Mapping[str, Tensor], linear: nn.Linear) -> list[str]:
    """What is wrong with one linear's tensors, in words."""
    if missing := {"A", "B"} - set(found):
        return [f"{name} without its {' and '.join(sorted(missing))} matrix"]
    shape_a, shape_b = tuple(found["A"].shape), tuple(found["B"].shape)
    rank = shape_a[0] if shape_a else 0
    expected_a, expected_b = (rank, linear.in_features), (linear.out_features, rank)
    if rank < 1 or shape_a != expected_a or shape_b != expected_b:
        return [
            f"{name} of shapes A {shape_a}, B {shape_b} where A (rank, {linear.in_features}), "
            f"B ({linear.out_features}, rank) fit"
        ]
    if not all(found[part].is_floating_point() and found[part].float().isfinite().all() for part in "AB"):
        return [f"{name} holds values that are not finite numbers"]
    if "alpha" in found and found["alpha"].numel() != 1:
        return [f"{name} has an alpha of shape {tuple(found['alpha'].shape)} where one number fits"]
    return []


def _linear_lora(found: Mapping[str, Tensor], header_alpha: float | None) -> LinearLora:
    """Alpha is the file's own, else the header's, else the rank (diffusers' rule: no further scaling)."""
    rank = found["A"].shape[0]
    alpha = float(found["alpha"]) if "alpha" in found else (header_alpha or rank)
    return LinearLora(found["A"].float(), found["B"].float(), alpha)


def _header_alpha(path: Path, metadata: Mapping[str, str]) -> float | None:
    """lora_alpha from the LoraConfig that newer diffusers writes into the header, if it is there."""
    if "lora_adapter_metadata" not in metadata:
        return None
    try:
        config = json.loads(metadata["lora_adapter_metadata"])
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object as lora_adapter_metadata, found something else")
    settings = {key.removeprefix(_DIFFUSERS_PREFIX): value for key, value in config.items()}
    special = [key for key in ("alpha_pattern", "use_dora", "use_rslora", "lora_bias") if settings.get(key)]
    if special:
        raise UserError(f"{path}: expected a plain LoRA with one alpha, found {', '.join(special)}")
    alpha = settings.get("lora_alpha")
    if alpha is not None and not isinstance(alpha, int | float):
        raise UserError(f"{path}: expected a number as lora_alpha, found {alpha!r}")
    return alpha
