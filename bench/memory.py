"""What a base needs of a card's memory, computed from shapes alone: no GPU, no weights, half a minute.

python -m bench.memory --base flux_dev_24gb
python -m bench.memory --base flux_dev resolution=768 gradient_checkpointing=1

A training step and a forward pass of sampling are gone through with tensors that have shapes and no values
(torch's fake tensors), and what is alive is added up: what torch.cuda.max_memory_allocated would say, but for
workspaces of kernels. What the allocator holds on top of it, and CUDA itself, take a gigabyte or two more.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.bases import FLUX_DEV, Shape, default_dtype
from bench.flux2_shape import KLEIN_4B, Flux2Shape
from bench.options import parse
from utils.config.schema import Config
from utils.errors import run_cli
from utils.flow.passes import Objective, PairBatch
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import Base
from utils.models.lora_layer import acting
from utils.models.quantization import block_linears
from utils.models.velocity import PromptedVelocity, Velocity
from utils.report.tables import markdown_table
from utils.training.methods import build_objective

Sizes = Shape | Flux2Shape
SIZES: dict[str, Sizes] = {"flux_dev": FLUX_DEV, "flux2_klein_4b": KLEIN_4B}
"""By what the names of bases begin with."""

BLOCK = 512  # bytes; what CUDA's allocator gives is a multiple
# quantization -> bytes a weight, and how many weights share a 4-byte scale; 0: those of a row
PACKED = {"nf4": (0.5, 64), "int8": (1.0, 0), "fp8": (1.0, 0)}


class Alive(TorchDispatchMode):
    """Adds up the storages of all tensors made inside, as long as they live.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def needs(config: Config, shape: Sizes | None = None) -> dict[str, int]:
    """Bytes that a config's base, training and sampling need, the transformer alone in memory.

    Args:
        config: gives quantization, resolution, rank, passes, checkpointing and the sizes of batches.
        shape: of the base; None: by its name, FLUX.1-dev's for one that SIZES lacks.
    """
    named = (sizes for base, sizes in SIZES.items() if config.base.startswith(base))
    shape = shape or next(named, FLUX_DEV)
    dtype = getattr(torch, config.dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), Alive() as alive, _as_on_cuda():
        transformer = _transformer(shape, config, dtype)
        found = {"the base": alive.now}
        base, embeds = shape.base(transformer, dtype), shape.embeds(config.max_sequence_length, dtype)
        model = Velocity(base, embeds, config.guidance_scale)
        objective = build_objective(config.python_name, config.cfg_eta, 1.0, config.joint_passes)
        trained = PromptedVelocity(base, {"": embeds}, config.guidance_scale)
        adapter, found["a training step"] = objective.saved, _train(trained, config, objective, alive)
        with torch.no_grad():
            alive.peak = alive.now
            latents = _latents(base, config, config.batch_size_gen)
            model.scaled({adapter: 1.0})(latents, torch.zeros(len(latents)))
        found["sampling"] = alive.peak
    return found


def _transformer(shape: Sizes, config: Config, dtype: torch.dtype) -> Any:
    with default_dtype(dtype):
        transformer: Any = shape.build()
    transformer.requires_grad_(False).eval()
    if config.quantization != "none":
        for name, linear in block_linears(transformer).items():
            transformer.set_submodule(name, Packed(linear, *PACKED[config.quantization]))
    return transformer


def _train(model: PromptedVelocity, config: Config, objective: Objective[PairBatch], alive: Alive) -> int:
    """Most bytes of the second of two steps, the first of which makes the optimizer's state."""
    transformer = model.base.transformer
    # fake tensors can't be moved in place; they are where they should be
    with mock.patch.object(nn.Module, "to", lambda module, *args, **kwargs: module):
        for name in objective.adapters:
            add_adapter(transformer, name, config.rank, config.alpha, config.train_method)
    if config.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    weights = [weight for name in objective.adapters for weight in adapter_parameters(transformer, name)]
    optimizer = torch.optim.AdamW(weights, fused=True)
    for _ in range(2):
        alive.peak = alive.now
        source, target, noise = (_latents(model.base, config, config.batch_size) for _ in range(3))
        batch = PairBatch(source, target, torch.zeros(config.batch_size), noise)
        for losses in objective.losses(model, batch):
            sum(losses.values(), torch.zeros(())).backward()
        del losses
        optimizer.step()
        optimizer.zero_grad()
    transformer.disable_gradient_checkpointing()
    return alive.peak


def _latents(base: Base, config: Config, count: int) -> Tensor:
    return torch.zeros(count, *base.latent_shape(config.resolution, config.resolution))


class Packed(nn.Linear):
    """A linear of a quantized one's sizes: bytes, scales, and its weight in full while it computes."""

    def __init__(self, linear: nn.Linear, bytes_each: float, shared: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        weights = linear.weight.numel()
        scales = weights // shared if shared else linear.out_features
        self.full = tuple(linear.weight.shape)
        self.bias = linear.bias
        self.weight = nn.Parameter(torch.empty(int(weights * bytes_each), dtype=torch.uint8), False)
        self.scales = nn.Parameter(torch.empty(scales, dtype=torch.float32), False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        product = _PackedProduct.apply(x.to(torch.bfloat16), self.weight, self.full)
        return product if self.bias is None else product + self.bias


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, full: tuple[int, int]) -> Tensor:
        ctx.full = full
        ctx.save_for_backward(weight)
        return functional.linear(x, torch.empty(full, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] @ torch.empty(ctx.full, dtype=gradients[0].dtype), None, None


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    """Inside, layer norms are float32 under autocast, as on CUDA; no remembered tensor comes in or stays."""
    norm: Callable[..., Tensor] = functional.layer_norm

    def in_float32(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return norm(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **kwargs)

    acting.cache_clear()
    try:
        with mock.patch.object(functional, "layer_norm", in_float32):
            yield
    finally:
        acting.cache_clear()


def main(argv: Sequence[str] | None = None, shape: Sizes | None = None) -> int:
    """Compute and print; 0 as the exit status."""
    options = parse(argv, "bench.memory", __doc__ or "")
    config = options.config("train_image")
    rows = [[what, f"{size / 1e9:.1f}"] for what, size in needs(config, shape).items()]
    print(markdown_table((config.base, "GB"), rows))
    return 0


if __name__ == "__main__":
    run_cli(main)
