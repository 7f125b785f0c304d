"""Named LoRA adapters on a transformer or a text encoder: add, remove, mix and freeze.

This and utils/models/lora_layer.py are what knows peft.

At rest no adapter is active and none asks for gradients: the transformer is the bare base model, bit for bit.
`use_mixes` is the only way to switch any on, and it puts everything back.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from utils.flow.mixes import Mix
from utils.models.families import family_of
from utils.models.lora_layer import Acting, StackedLora, acting, frozen, lora_weights


def linear_layers(transformer: nn.Module) -> dict[str, nn.Linear]:
    """Every linear of the base model by its own name, whether or not adapters wrap it by now."""
    linears: dict[str, nn.Linear] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and not re.search(r"\.lora_[AB]\.", name):
            linears[name.removesuffix(".base_layer")] = module
    return linears


def adapter_names(transformer: nn.Module) -> list[str]:
    """Names of the adapters there are, in the order they were added."""
    return list(getattr(transformer, "peft_config", {}))


def add_adapter(
    transformer: nn.Module, name: str, rank: int, alpha: float, train_method: str = "full", seed: int = 0
) -> None:
    """Add a fresh LoRA, W x + scale (alpha / rank) B A x (Hu et al. 2021), in float32.

    A is uniform in +-sqrt(3 / in_features) as in the authors' implementation (peft's own default is 1.7 times
    smaller), B is zero: the model's output is unchanged until training moves B.

    Args:
        transformer: the transformer, with or without other adapters.
        name: free name, for instance "semantic".
        rank: columns of B and rows of A, at least 1.
        alpha: scaling numerator.
        train_method: which linears, one that its family knows.
        seed: of A. The global random state is not touched, and every device gets the same values.

    Raises:
        UserError: for an unknown train_method.
        ValueError: if the name is taken or the transformer has none of the method's linears.
    """
    suffixes = tuple(f".{linear}" for linear in family_of(transformer).linears(train_method))
    if not (targets := linears_ending(transformer, suffixes)):
        raise ValueError(f"train_method {train_method}: the transformer has none of {', '.join(suffixes)}")
    inject_fresh(transformer, name, targets, rank, alpha, seed)


def linears_ending(model: nn.Module, suffixes: Sequence[str]) -> list[str]:
    """The names of a model's linears that end in one of some ways."""
    return [linear for linear in linear_layers(model) if linear.endswith(tuple(suffixes))]


def inject_fresh(
    model: nn.Module, name: str, targets: Sequence[str], rank: int, alpha: float, seed: int
) -> None:
    """Wrap the named linears with a fresh LoRA, as `add_adapter` has it."""
    inject_adapter(model, name, dict.fromkeys(targets, (rank, alpha)))
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model, name).values():
        weight_a, weight_b = lora_weights(layer, name)
        bound = math.sqrt(3 / weight_a.shape[1])
        initial = torch.empty(weight_a.shape, dtype=torch.float32).uniform_(
            -bound, bound, generator=generator
        )
        weight_a.data.copy_(initial)
        weight_b.data.zero_()


def inject_adapter(transformer: nn.Module, name: str, sizes: Mapping[str, tuple[int, float]]) -> None:
    """Wrap the named linears with float32 LoRA layers, inactive and frozen; the caller sets the weights.

    Args:
        transformer: the transformer, with or without other adapters.
        name: name of the adapter.
        sizes: (rank, alpha) of every linear to adapt, by the linear's name; none of them for an adapter that
            is known here and acts elsewhere alone.

    Raises:
        ValueError: if the name is taken.
    """
    if name in adapter_names(transformer):
        raise ValueError(f"adapter {name!r} exists already; remove it first")

    if not sizes:
        configs = getattr(transformer, "peft_config", {})
        cast(Any, transformer).peft_config = {**configs, name: LoraConfig(target_modules=[])}
        return

    # peft wraps the linears.
    rank, alpha = next(iter(sizes.values()))
    config = LoraConfig(
        r=rank,
        lora_alpha=cast(int, alpha),  # annotated int, used as a plain factor
        target_modules="|".join(map(re.escape, sizes)),
        rank_pattern={f"^{re.escape(key)}": size[0] for key, size in sizes.items() if size[0] != rank},
        alpha_pattern={f"^{re.escape(key)}": size[1] for key, size in sizes.items() if size[1] != alpha},
    )
    config._register_custom_module({nn.Linear: StackedLora})
    before = {id(layer): _LayerState.of(layer) for layer in lora_layers(transformer).values()}
    # peft draws initial weights from the global generator, and warns of every second adapter
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, transformer, name)

    # Float32, inactive and frozen; the others as they were.
    cast(Any, transformer)._hf_peft_config_loaded = True  # as diffusers does, so that its own methods work
    for layer in lora_layers(transformer).values():
        if name in layer.lora_A:
            for weight in lora_weights(layer, name):
                weight.data = weight.data.float()
                weight.requires_grad_(False)
        layer._disable_adapters = True  # peft turns on what it adds, and has it learn
        if id(layer) in before:
            before[id(layer)].restore(layer)


def remove_adapter(transformer: nn.Module, name: str) -> None:
    """Remove an adapter; with the last one the transformer gets its plain linears back.

    Raises:
        ValueError: if there is no such adapter, naming those there are.
    """
    _check_names(transformer, [name])
    for layer in lora_layers(transformer).values():
        layer._active_adapter = []  # first: peft would have another adapter learn in its place
        layer.delete_adapter(name)
    model = cast(Any, transformer)
    del model.peft_config[name]
    if not model.peft_config:
        recurse_remove_peft_layers(model)
        del model.peft_config
        model._hf_peft_config_loaded = False


def adapter_parameters(transformer: nn.Module, name: str) -> list[Tensor]:
    """The adapter's weights, A (rank, in) and B (out, rank) of each linear in turn.

    Raises:
        ValueError: if there is no such adapter, naming those there are.
    """
    _check_names(transformer, [name])
    layers = lora_layers(transformer, name).values()
    return [weight for layer in layers for weight in lora_weights(layer, name)]


@contextmanager
def use_mixes(transformer: nn.Module, mixes: Sequence[Mix]) -> Iterator[None]:
    """Inside, each of len(mixes) equal parts of a batch goes through the adapters of its own mix.

    Part i of n is rows i B / n to (i + 1) B / n - 1. Exactly the adapters that learn in some mix require
    gradients, and get them from the parts where they learn alone. Without mixes: the bare base model.

    Args:
        transformer: the transformer.
        mixes: a scale of 0 leaves an adapter out; if all are, the model is the bare base bit for bit.

    Raises:
        ValueError: for a name that is not there (naming those there are), or one to be trained that does not
            act.
    """
    train = {name for mix in mixes for name in mix.train}
    _check_names(transformer, [*(name for mix in mixes for name in mix.scales), *train])
    for mix in mixes:
        if idle := [name for name in mix.train if not mix.scales.get(name)]:
            raise ValueError(f"adapters {sorted(idle)} are to be trained but have no scale other than 0")

    # Switch the layers, and afterwards back.
    names, key = adapter_names(transformer), frozen(mixes)
    # modules(), not named_modules(): this runs every training step, and building names would cost more
    layers = [module for module in transformer.modules() if isinstance(module, StackedLora)]
    before = [_LayerState.of(layer) for layer in layers]
    try:
        for layer, state in zip(layers, before, strict=True):
            sizes = tuple(
                (name, layer.r[name], layer.lora_alpha[name]) for name in names if name in layer.lora_A
            )
            layer.acting = acting(sizes, key, layer.lora_A[sizes[0][0]].weight.device) if sizes else None
            for name, weight, requires_grad in state.weights:
                if requires_grad != (name in train):
                    weight.requires_grad_(not requires_grad)
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            state.restore(layer)


@dataclass(frozen=True)
class _LayerState:
    """What use_mixes changes in a layer; of every adapter's weights, (adapter, weight, requires_grad)."""

    acting: Acting | None
    weights: list[tuple[str, Tensor, bool]]

    @classmethod
    def of(cls, layer: StackedLora) -> _LayerState:
        weights = [(name, weight) for name in layer.lora_A for weight in lora_weights(layer, name)]
        return cls(layer.acting, [(name, weight, weight.requires_grad) for name, weight in weights])

    def restore(self, layer: StackedLora) -> None:
        layer.acting = self.acting
        for _, weight, requires_grad in self.weights:
            if weight.requires_grad != requires_grad:
                weight.requires_grad_(requires_grad)


def lora_layers(transformer: nn.Module, name: str | None = None) -> dict[str, StackedLora]:
    """The LoRA layers by the name of the linear they wrap; with `name`, those that hold that adapter."""
    return {
        linear: module
        for linear, module in transformer.named_modules()
        if isinstance(module, StackedLora) and (name is None or name in module.lora_A)
    }


def _check_names(transformer: nn.Module, names: Sequence[str]) -> None:
    there = adapter_names(transformer)
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"no adapter {', '.join(missing)}; there are: {', '.join(there) or 'none'}")
