"""The one training loop: draws a batch, asks the objective for losses, steps the adapters, logs and saves.

The loop never asks which method it runs. Images and prompts are encoded before it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from utils.adapters import adapter_names, adapter_parameters, add_adapter, remove_adapter
from utils.batches import Batches
from utils.config import Config, Run, save_config
from utils.flux import Flux, FluxVelocity, PromptEmbeds
from utils.lora_files import save_lora, save_reference
from utils.objectives import Objective
from utils.records import recorded

Drawn = TypeVar("Drawn")

# lr_scheduler -> the factor on lr, of the share of steps done, in [0, 1)
LR_SCHEDULERS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


@dataclass(frozen=True)
class TrainResult:
    """What a run came to: its weights, the loop's wall time, and each loss's mean since the last log line."""

    weights_path: Path
    seconds: float
    steps_per_second: float
    losses: dict[str, float]


def train(
    run: Run, flux: Flux, batches: Batches[Drawn], objective: Objective[Drawn], embeds: PromptEmbeds
) -> TrainResult:
    """Train one run's adapters and save the result; the base model is left as it was found.

    Written to run.folder: config.yaml, losses.jsonl, record.json, tensorboard/, and every save_per_steps
    steps and at the end the adapter `objective.saved` in both LoRA formats. The optimizer is AdamW, its rate
    as lr_scheduler says, over all of the objective's adapters at once. Every random choice comes from
    run.seed through a generator of its own, on the CPU, so that it is the same on every device.

    Args:
        run: names, paths, settings.
        flux: the base model with its VAE, and no adapters of the objective's names.
        batches: what a step draws.
        objective: gives the losses of such a batch and names the adapters.
        embeds: of the prompt to train under, the empty one as a rule.

    Raises:
        FloatingPointError: when a loss is not finite, naming the step; saves made before stay.
    """
    config = run.config
    save_config(config, run.config_path)
    generator = torch.Generator().manual_seed(run.seed)
    model = FluxVelocity(flux, embeds, config.guidance_scale)
    accelerator = Accelerator(
        cpu=flux.device.type == "cpu", log_with="tensorboard", project_dir=str(run.folder)
    )
    with (
        recorded(run.record_path, "training", config.train_iteration, flux.device),
        _fresh_adapters(flux, objective.adapters, config, generator),
        _Log(run, accelerator) as log,
    ):
        parameters = [p for name in objective.adapters for p in adapter_parameters(flux.transformer, name)]
        # fused: one call a step; the default loops over hundreds of small matrices, 6 times slower on a CPU
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, fused=True)
        factor = LR_SCHEDULERS[config.lr_scheduler]
        lr_scheduler = LambdaLR(optimizer, lambda step: factor(step / config.train_iteration))
        for global_step in range(1, config.train_iteration + 1):
            # closing: after an error the adapters are put back to rest at once, not when garbage is collected
            with closing(objective.losses(model, batches.draw(generator))) as losses:
                for name, loss in losses:
                    accelerator.backward(loss)
                    log.add(global_step, name, loss.detach())
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            save = global_step % config.save_per_steps == 0 or global_step == config.train_iteration
            log.end_step(global_step, flush=save)
            if save:
                _save(run, flux, objective.saved, batches.origin, global_step)
        seconds = log.seconds
    return TrainResult(run.weights_path(), seconds, config.train_iteration / seconds, log.means)


class _Log:
    """Losses to losses.jsonl, TensorBoard and the progress bar.

    Losses stay on the device until a line is written, every `log_every` steps and before every save: reading
    one waits for the GPU. A line holds the mean of each loss since the line before; one loss of one random
    sigma says little. Beside the step stand the seconds since training began.
    """

    def __init__(self, run: Run, accelerator: Accelerator) -> None:
        self.run, self.accelerator = run, accelerator
        self.means: dict[str, float] = {}
        self._pending: list[tuple[int, str, Tensor]] = []

    def __enter__(self) -> _Log:
        self.accelerator.init_trackers("tensorboard")
        self._file = self.run.log_path.open("w", encoding="utf-8")
        self._bar = tqdm(total=self.run.config.train_iteration, desc=self.run.dataset, unit="step")
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._file.close()
        self.accelerator.end_training()

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.perf_counter() - self._started

    def add(self, global_step: int, name: str, loss: Tensor) -> None:
        """Keep one loss of a step."""
        self._pending.append((global_step, name, loss))

    def end_step(self, global_step: int, flush: bool) -> None:
        """Count a step; write a line when it is time or `flush`. FloatingPointError for a loss not finite."""
        self._bar.update()
        if not flush and global_step % self.run.config.log_every:
            return
        self.means = self._take_means()
        line = {"step": global_step, "seconds": round(self.seconds, 3), **self.means}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.accelerator.log({f"loss/{name}": mean for name, mean in self.means.items()}, step=global_step)
        self._bar.set_postfix({name: f"{mean:.4f}" for name, mean in self.means.items()}, refresh=False)

    def _take_means(self) -> dict[str, float]:
        values = torch.stack([loss for _, _, loss in self._pending]).tolist()  # one transfer for all of them
        by_name: dict[str, list[float]] = {}
        for (step, name, _), value in zip(self._pending, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{self.run.name}: {name} loss is {value} at step {step}; a smaller lr may help"
                )
            by_name.setdefault(name, []).append(value)
        self._pending.clear()
        return {name: sum(losses) / len(losses) for name, losses in by_name.items()}


@contextmanager
def _fresh_adapters(
    flux: Flux, names: Sequence[str], config: Config, generator: torch.Generator
) -> Iterator[None]:
    """New adapters inside, none of them after, whatever happens."""
    transformer = flux.transformer
    try:
        for name in names:
            seed = int(torch.randint(2**31, (), generator=generator))
            add_adapter(transformer, name, config.rank, config.alpha, config.train_method, seed)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        yield
    finally:
        transformer.disable_gradient_checkpointing()
        for name in set(names) & set(adapter_names(transformer)):
            remove_adapter(transformer, name)


def _save(run: Run, flux: Flux, adapter: str, origin: str, global_step: int) -> None:
    """The adapter after `global_step` steps, in both formats, the settings in the header."""
    metadata = {
        "origin": origin,
        "step": str(global_step),
        "config": json.dumps(asdict(run.config)),
    }
    save_lora(flux.transformer, adapter, run.weights_path(global_step), metadata)
    save_reference(flux.transformer, adapter, run.reference_path(global_step))
