"""Named LoRA adapters on a FLUX transformer: add, remove, mix and freeze. The one module that knows peft.

At rest no adapter is active and none asks for gradients: the transformer is the bare base model, bit for bit.
`use_adapters` is the only way to switch any on, and it puts everything back.
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
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from utils.errors import UserError, nearest
from utils.targets import TARGETS


def check_train_method(train_method: str) -> None:
    """Raise UserError, naming those there are, unless `train_method` is a key of TARGETS."""
    if train_method not in TARGETS:
        raise UserError(
            f"train_method: expected one of {', '.join(TARGETS)}, found {train_method}"
            f"{nearest(train_method, TARGETS)}"
        )


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
        transformer: a FLUX transformer, with or without other adapters.
        name: free name, for instance "semantic".
        rank: columns of B and rows of A, at least 1.
        alpha: scaling numerator.
        train_method: which linears, a key of TARGETS.
        seed: of A. The global random state is not touched, and every device gets the same values.

    Raises:
        UserError: for an unknown train_method.
        ValueError: if the name is taken or the transformer has none of the method's linears.
    """
    check_train_method(train_method)
    suffixes = tuple(f".attn.{suffix}" for suffix in TARGETS[train_method])
    targets = [linear for linear in linear_layers(transformer) if linear.endswith(suffixes)]
    if not targets:
        raise ValueError(f"train_method {train_method}: the transformer has none of {', '.join(suffixes)}")
    inject_adapter(transformer, name, dict.fromkeys(targets, (rank, alpha)))
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(transformer, name).values():
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
        transformer: a FLUX transformer, with or without other adapters.
        name: name of the adapter.
        sizes: (rank, alpha) of every linear to adapt, by the linear's name.

    Raises:
        ValueError: if the name is taken.
    """
    if name in adapter_names(transformer):
        raise ValueError(f"adapter {name!r} exists already; remove it first")
    rank, alpha = next(iter(sizes.values()))
    config = LoraConfig(
        r=rank,
        lora_alpha=cast(int, alpha),  # annotated int, used as a plain factor
        target_modules="|".join(map(re.escape, sizes)),
        rank_pattern={f"^{re.escape(key)}": size[0] for key, size in sizes.items() if size[0] != rank},
        alpha_pattern={f"^{re.escape(key)}": size[1] for key, size in sizes.items() if size[1] != alpha},
    )
    before = {id(layer): _LayerState.of(layer) for layer in lora_layers(transformer).values()}
    # peft draws initial weights from the global generator, and warns of every second adapter
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, transformer, name)
    cast(Any, transformer)._hf_peft_config_loaded = True  # as diffusers does, so that its own methods work
    for layer in lora_layers(transformer).values():
        if name in layer.lora_A:
            for weight in lora_weights(layer, name):
                weight.data = weight.data.float()
                weight.requires_grad_(False)
        # peft activates what it adds; stay as before, and bare if there was no layer before
        before.get(id(layer), _LayerState.bare()).restore(layer)


def remove_adapter(transformer: nn.Module, name: str) -> None:
    """Remove an adapter; with the last one the transformer gets its plain linears back.

    Raises:
        ValueError: if there is no such adapter, naming those there are.
    """
    _check_names(transformer, [name])
    for layer in lora_layers(transformer).values():
        active = [other for other in layer.active_adapters if other != name]
        layer._active_adapter = active  # first: peft would activate another adapter in its place
        layer.delete_adapter(name)
    diffusers_model = cast(Any, transformer)
    del diffusers_model.peft_config[name]
    if not diffusers_model.peft_config:
        diffusers_model.unload_lora()


def adapter_parameters(transformer: nn.Module, name: str) -> list[Tensor]:
    """The adapter's weights, A (rank, in) and B (out, rank) of each linear in turn.

    Raises:
        ValueError: if there is no such adapter, naming those there are.
    """
    _check_names(transformer, [name])
    layers = lora_layers(transformer, name).values()
    return [weight for layer in layers for weight in lora_weights(layer, name)]


def lora_layers(transformer: nn.Module, name: str | None = None) -> dict[str, LoraLayer]:
    """The LoRA layers by the name of the linear they wrap; with `name`, those that hold that adapter."""
    return {
        linear: module
        for linear, module in transformer.named_modules()
        if isinstance(module, LoraLayer) and (name is None or name in module.lora_A)
    }


def lora_weights(layer: LoraLayer, name: str) -> tuple[Tensor, Tensor]:
    """A (rank, in_features) and B (out_features, rank) of one adapter in one layer."""
    linear_a, linear_b = cast(nn.Linear, layer.lora_A[name]), cast(nn.Linear, layer.lora_B[name])
    return linear_a.weight, linear_b.weight


@contextmanager
def use_adapters(
    transformer: nn.Module, scales: Mapping[str, float], train: Sequence[str] = ()
) -> Iterator[None]:
    """Inside, exactly these adapters are active at these scales, and only `train` requires gradients.

    Args:
        transformer: a FLUX transformer.
        scales: adapter name -> scale, any sign. A scale of 0 leaves the adapter out altogether, so that {}
            and all zeros are the bare base model bit for bit.
        train: adapters whose weights require gradients; they must be active.

    Raises:
        ValueError: for a name that is not there (naming those there are), or a `train` that is not active.
    """
    _check_names(transformer, [*scales, *train])
    # in the order they were added: float sums, and so the output's last bits, depend on it
    active = {name: scales[name] for name in adapter_names(transformer) if scales.get(name, 0) != 0}
    if idle := set(train) - set(active):
        raise ValueError(f"adapters {sorted(idle)} are to be trained but have no scale other than 0")
    # modules(), not named_modules(): this runs twice a training step, and building names would cost more
    layers = [module for module in transformer.modules() if isinstance(module, LoraLayer)]
    before = [_LayerState.of(layer) for layer in layers]
    try:
        for layer, state in zip(layers, before, strict=True):
            # peft's set_adapter would also make every active adapter trainable, hence its private fields
            layer._active_adapter = list(active)
            layer._disable_adapters = not active
            for name, scale in active.items():
                layer.set_scale(name, scale)
            for name, weight, requires_grad in state.weights:
                if requires_grad != (name in train):
                    weight.requires_grad_(not requires_grad)
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            state.restore(layer)


@dataclass(frozen=True)
class _LayerState:
    """What use_adapters changes in a layer; of every adapter's weights, (adapter, weight, requires_grad)."""

    active: list[str]
    disabled: bool
    scaling: dict[str, float]
    weights: list[tuple[str, Tensor, bool]]

    @classmethod
    def of(cls, layer: LoraLayer) -> _LayerState:
        return cls(
            active=list(layer.active_adapters),
            disabled=layer.disable_adapters,
            scaling=dict(layer.scaling),
            weights=[
                (name, weight, weight.requires_grad)
                for name in layer.lora_A
                for weight in lora_weights(layer, name)
            ],
        )

    @classmethod
    def bare(cls) -> _LayerState:
        return cls(active=[], disabled=True, scaling={}, weights=[])

    def restore(self, layer: LoraLayer) -> None:
        layer._active_adapter = self.active
        layer._disable_adapters = self.disabled
        layer.scaling.update(self.scaling)
        for _, weight, requires_grad in self.weights:
            if weight.requires_grad != requires_grad:
                weight.requires_grad_(requires_grad)


def _check_names(transformer: nn.Module, names: Sequence[str]) -> None:
    there = adapter_names(transformer)
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"no adapter {', '.join(missing)}; there are: {', '.join(there) or 'none'}")
