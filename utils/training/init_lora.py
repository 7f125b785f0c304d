"""The LoRA that a training goes on from, in place of a new one: key `init_lora`.

torch is imported where it is used, as the file is looked at before anything heavy is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.schema import Config
from utils.errors import UserError
from utils.names import beside

if TYPE_CHECKING:
    from torch import nn

    from utils.lora.linear import LinearLora


def check_init_lora(config: Config) -> None:
    """Raise `UserError` for an init_lora that is missing, can't be read, or is of another rank."""
    if config.init_lora:
        _read(config)


def load_init_lora(transformer: nn.Module, adapter: str, config: Config) -> None:
    """Put the LoRA of the file into a fresh adapter: the same change of each weight, by the config's alpha.

    alpha / rank says how far a step of the optimizer moves the product, and a file may have it folded into B.
    Linears that the file lacks stay as they are, at no change.

    Args:
        transformer: has the adapter.
        adapter: its name.
        config: init_lora, alpha, other_base.

    Raises:
        UserError: as `check_init_lora`; a LoRA that was trained on another base, unless other_base; linears
            that the adapter does not have, or of other shapes.
    """
    from utils.lora.files import read_metadata
    from utils.lora.folding import with_alpha
    from utils.lora.linear import Misfit
    from utils.lora.metadata import check_base
    from utils.models.adapters import lora_layers, lora_weights

    path, loras = Path(config.init_lora), _read(config)
    if not config.other_base:
        check_base(path, read_metadata(path), transformer)
    layers = lora_layers(transformer, adapter)
    faults = [f"{name} is not among those of {config.train_method}" for name in loras if name not in layers]
    for name in loras.keys() & layers.keys():
        linear = layers[name].base_layer
        if loras[name].shape != (fits := (linear.out_features, linear.in_features)):
            faults.append(f"{name} of shape {loras[name].shape} (out, in) where {fits} fits")
    if faults:
        raise UserError(f"init_lora: {path}: expected linears that train_method has, found: {Misfit(faults)}")
    for name, lora in loras.items():
        own = with_alpha(lora, config.alpha)
        weight_a, weight_b = lora_weights(layers[name], adapter)
        weight_a.data.copy_(own.weight_a)
        weight_b.data.copy_(own.weight_b)


def _read(config: Config) -> dict[str, LinearLora]:
    """The LoRA of each linear."""
    from utils.lora.files import read_lora

    path = Path(config.init_lora)
    if not path.is_file():
        raise UserError(f"init_lora: expected a LoRA file, found none at {path}{beside(path)}")
    loras = read_lora(path).loras
    ranks = sorted({lora.rank for lora in loras.values()})
    if ranks != [config.rank]:
        found = ", ".join(map(str, ranks))
        raise UserError(f"rank: expected that of init_lora ({path}), {found}; found {config.rank}")
    return loras
