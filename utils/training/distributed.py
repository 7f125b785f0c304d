"""Several processes that train one run together, started by `accelerate launch`; one alone is the usual case.

Every process draws the same batch for all and takes its share, has the same weights, and steps them by the
same mean gradient. Only the main one writes. What goes wrong in all of them alike is an ordinary fault; what
goes wrong in one ends it, for the launcher to end the others, which would wait for it for ever.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from accelerate import FullyShardedDataParallelPlugin, PartialState
from torch import Tensor

from utils.errors import UserError
from utils.machine import launched
from utils.models.base import Base
from utils.models.identity import remember_base_hash
from utils.training.checkpoints import interruptible

P = ParamSpec("P")
T = TypeVar("T")


def join(device: torch.device) -> torch.device:
    """Meet the other processes, if there are any, and say which device is this one's: on CUDA a GPU each.

    From here on the others print nothing; faults are reported on stderr, by the process that has them.

    Raises:
        UserError: for one certain GPU.
    """
    if not launched():
        return device
    if device.index:
        raise UserError(
            f"device: expected auto or cpu, as each process takes a GPU of its own, found {device}"
        )
    state = PartialState(cpu=device.type == "cpu")
    _hosts()
    if not is_main():
        sys.stdout = io.StringIO()
    return state.device if device.type == "cuda" else device


def leave() -> None:
    """Part from the others, at the end of all work."""
    if process_count() > 1:
        _hosts.cache_clear()
        dist.destroy_process_group()


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch_size: int) -> slice:
    """Which of the process_count() * batch_size samples that a step draws are this process's."""
    first = dist.get_rank() * batch_size if dist.is_initialized() else 0
    return slice(first, first + batch_size)


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Give every process the mean of all processes' gradients; without a wait for the GPU.

    One sum of all gradients in one piece, after the backward passes: DistributedDataParallel wants to wrap
    the model, one forward to a backward, and parameters that stay trainable, where a step here has several
    of each under changing adapters. Sending while the backward pass goes on would gain little for a LoRA.
    """
    if process_count() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad.flatten() for parameter in trained if parameter.grad is not None]
    mean = torch.cat(gradients).div_(process_count())
    dist.all_reduce(mean)
    for parameter, gradient in zip(trained, mean.split([len(each) for each in gradients]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def averaged(values: list[float]) -> list[float]:
    """The mean over processes of each value; not finite if it is not so in any."""
    if process_count() == 1:
        return values
    mean = torch.tensor(values, dtype=torch.float64) / process_count()
    dist.all_reduce(mean, group=_hosts())
    return mean.tolist()


def on_main(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do some work in the main process alone; all get its result, or what went wrong with it."""
    if process_count() == 1:
        return work(*args, **kwargs)
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = work(*args, **kwargs)
        except (UserError, OSError) as error:
            vars(error)["shared"] = True
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, group=_hosts())
    result, fault = outcome
    if fault is not None:
        raise fault
    return result


@contextmanager
def entered_by_main(context: AbstractContextManager[T]) -> Iterator[T]:
    """Inside, the main process is in the context; all get what it gives, or the fault of entering it."""
    with ExitStack() as stack:
        yield on_main(stack.enter_context, context)


@contextmanager
def shared_faults() -> Iterator[None]:
    """A fault inside that is not known to have come to all processes ends this one, and so the launch."""
    try:
        yield
    except Exception as error:
        # a loss that is not finite is seen by all, see `averaged`
        if process_count() == 1 or isinstance(error, FloatingPointError) or hasattr(error, "shared"):
            raise
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        traceback.print_exc()
        sys.exit(1)


@contextmanager
def interruptible_together() -> Iterator[Callable[[], bool]]:
    """`interruptible`, to be asked once a step: all processes get True after the same one.

    What one noted in a step reaches all in the background, and holds from the step after: none waits.
    """
    with interruptible() as interrupted:
        if process_count() == 1:
            yield interrupted
            return
        pending: list[tuple[Tensor, Any]] = []

        def agreed() -> bool:
            noted = torch.tensor(interrupted(), dtype=torch.uint8)
            work = dist.all_reduce(noted, dist.ReduceOp.MAX, group=_hosts(), async_op=True)
            pending.append((noted, work))
            if len(pending) == 1:
                return False
            before, work_before = pending.pop(0)
            work_before.wait()
            return bool(before)

        yield agreed
        for noted, work in pending:
            work.wait()
            if noted:  # in the last step
                raise KeyboardInterrupt


def sharding() -> bool:
    """Whether the launcher was asked to spread the base over the processes (FSDP)."""
    return launched() and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shard(base: Base) -> None:
    """Load a FLUX's transformer and spread it over the processes, block by block (FSDP2); no adapters yet.

    A process then holds 1/N of the weights, and of the others' those of a block or two while it computes.
    Adapters added later are whole in every process, and trained and saved as ever.

    By torch itself, with the launch's settings: accelerate's own way asks for an optimizer of the model's
    weights, of which none is trained, and knows no CPU.

    Args:
        base: without its transformer, which goes to the CPU, from where blocks are taken one at a time.

    Raises:
        UserError: for FSDP of version 1, for weights kept on the CPU, and for quantized ones.
    """
    # here, as one process need not wait for them
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise UserError(f"accelerate: expected fsdp_version 2, found {plugin.fsdp_version}")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise UserError("accelerate: expected fsdp_offload_params false, found true")
    if base.quantization != "none":
        raise UserError(f"quantization: expected none for a base that is spread, found {base.quantization}")
    base.parts |= replace(base, device=torch.device("cpu")).load(["transformer"])
    transformer = base.transformer
    remember_base_hash(transformer)
    mesh = init_device_mesh(base.device.type, (process_count(),))
    for block in (block for name in base.family.blocks for block in getattr(transformer, name)):
        fully_shard(block, mesh=mesh, reshard_after_forward=bool(plugin.reshard_after_forward))
    fully_shard(transformer, mesh=mesh)
    # single blocks return views, which only ControlNets would change in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


@cache
def _hosts() -> Any:
    """The processes as what they are on the CPU: what they tell each other does not queue behind the GPU."""
    return dist.new_group(backend="gloo")
