"""The one training loop: draws a batch, asks the objective for losses, steps the adapters, logs and saves.

The loop never asks which method it runs. Images and prompts are encoded before it.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from utils.config.load import save_config
from utils.config.runs import Run
from utils.config.schema import Config
from utils.files import write_atomically
from utils.flow.objectives import Objective
from utils.lora.card import write_card
from utils.lora.files import save_lora, save_reference
from utils.lora.metadata import training_metadata
from utils.models.adapters import adapter_names, adapter_parameters, add_adapter, remove_adapter
from utils.models.base import PromptEmbeds
from utils.models.flux1 import Flux
from utils.models.identity import base_hash
from utils.models.velocity import FluxVelocity
from utils.records import recorded
from utils.training.batches import Batches
from utils.training.checkpoints import Checkpoint, Learner, kept_rng, restore, take_checkpoint
from utils.training.distributed import (
    average_gradients,
    averaged,
    interruptible_together,
    is_main,
    on_main,
    process_count,
)
from utils.training.previews import sample_grid

Drawn = TypeVar("Drawn")
HINT = "a smaller lr may help"

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

    Written to run.folder: config.yaml, losses.jsonl, record.json, README.md (a model card), tensorboard/,
    pictures of what it has learned so far in samples/ every sample_per_steps steps, and every save_per_steps
    steps and at the end the adapter `objective.saved` in both LoRA formats; the training's state with it,
    until it has ended.
    With `resume` a training goes on from its state, to weights equal bit for bit to those of one that was
    never stopped. Ctrl-C ends it after the step that it is at, and saves.

    The optimizer is AdamW, its rate as lr_scheduler says, over all of the objective's adapters at once. Every
    random choice comes from run.seed through a generator of its own, on the CPU, so that it is the same on
    every device.

    Args:
        run: names, paths, settings.
        flux: the base model with its VAE, and no adapters of the objective's names.
        batches: what a step draws.
        objective: gives the losses of such a batch and names the adapters.
        embeds: of the prompt to train under, the empty one as a rule.

    Raises:
        FloatingPointError: when a loss, or a weight to be saved, is not finite, naming the step; saves made
            before stay.
        UserError: for a state that can't be read, and where there is no room to write.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, the step finished and saved.
    """
    config = run.config
    before = on_main(_begin, run)
    generator = torch.Generator().manual_seed(run.seed)
    model = FluxVelocity(flux, embeds, config.guidance_scale)
    done, seconds = (before.step, before.seconds) if before else (0, 0.0)
    if before:
        print(f"{run.name}: going on from step {done}", flush=True)
    accelerator = Accelerator(
        cpu=flux.device.type == "cpu",
        mixed_precision="no",  # the study's dtype is what counts, whatever a launcher says
        log_with="tensorboard",
        project_dir=str(run.folder),
    )
    record = recorded(run.record_path, "training", config.train_iteration, flux.device, seconds)
    with (
        record if is_main() else nullcontext(),
        _fresh_adapters(flux, objective.adapters, config, generator),
        kept_rng(),
        interruptible_together() as interrupted,
        _Log(run, accelerator, before) as log,
    ):
        weights = {name: adapter_parameters(flux.transformer, name) for name in objective.adapters}
        parameters = [weight for own in weights.values() for weight in own]
        # fused: one call a step; the default loops over hundreds of small matrices, 6 times slower on a CPU
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, fused=True)
        factor = LR_SCHEDULERS[config.lr_scheduler]
        lr_scheduler = LambdaLR(optimizer, lambda step: factor(step / config.train_iteration))
        learner = Learner(weights, optimizer, lr_scheduler, generator, base_hash(flux.transformer))
        if before:
            restore(before, learner)
        flux.release_vae()  # the batches are encoded
        for global_step in range(done + 1, config.train_iteration + 1):
            # closing: after an error the adapters are put back to rest at once, not when garbage is collected
            with closing(objective.losses(model, batches.draw(generator))) as losses:
                for by_name in losses:
                    accelerator.backward(sum(by_name.values()))
                    log.add(global_step, by_name)
            average_gradients(parameters)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            stop = interrupted()
            save = global_step % config.save_per_steps == 0 or global_step == config.train_iteration
            log.end_step(global_step, flush=save or stop)
            if config.sample_per_steps and global_step % config.sample_per_steps == 0:
                log.picture(sample_grid(run, flux, objective.saved, embeds), global_step)
                flux.release_vae()
            if save or stop:
                _check_finite(run, parameters, global_step)
                state = take_checkpoint(learner, global_step, log.seconds, log.means)
                on_main(_save, run, flux, objective.saved, batches.learned_from, state)
            if stop:
                raise KeyboardInterrupt(f"saved after step {global_step}; --resume goes on from there")
        seconds = log.seconds
        on_main(write_card, run)  # before the record, which says that all is done
    on_main(run.state_path.unlink)
    return TrainResult(run.weights_path(), seconds, config.train_iteration / seconds, log.means)


class _Log:
    """Losses to losses.jsonl, TensorBoard and the progress bar; of several processes, the means of all.

    Losses stay on the device until a line is written, every `log_every` steps and before every save: reading
    one waits for the GPU. A line holds the mean of each loss since the line before; one loss of one random
    sigma says little. Beside the step stand the seconds since training began.
    """

    def __init__(self, run: Run, accelerator: Accelerator, before: Checkpoint | None) -> None:
        self.run, self.accelerator = run, accelerator
        self.means: dict[str, float] = dict(before.means) if before else {}
        self._done, self._seconds = (before.step, before.seconds) if before else (0, 0.0)
        self._pending: list[tuple[int, str, Tensor]] = []

    def __enter__(self) -> _Log:
        kept = {"purge_step": self._done + 1} if self._done else {}
        self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": kept})
        on_main(_cut_log, self.run.log_path, self._done)
        steps, silent = self.run.config.train_iteration, not is_main()
        self._bar = tqdm(total=steps, initial=self._done, desc=self.run.dataset, unit="step", disable=silent)
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        for tracker in self.accelerator.trackers:  # end_training would also end what a next run needs
            tracker.finish()

    @property
    def seconds(self) -> float:
        """Of training, what came before it was resumed included."""
        return self._seconds + time.perf_counter() - self._started

    def add(self, global_step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep losses of a step, by name."""
        self._pending += [(global_step, name, loss.detach()) for name, loss in losses.items()]

    def picture(self, image: Image.Image, global_step: int) -> None:
        """Keep a picture of a step, in samples/ and in TensorBoard."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        on_main(write_atomically, self.run.sample_path(global_step), buffer.getvalue())
        if is_main():
            tracker: Any = self.accelerator.get_tracker("tensorboard")
            tracker.log_images({"samples": np.asarray(image)[None]}, step=global_step, dataformats="NHWC")

    def end_step(self, global_step: int, flush: bool) -> None:
        """Count a step; write a line when it is time or `flush`. FloatingPointError for a loss not finite."""
        self._bar.update()
        if not flush and global_step % self.run.config.log_every:
            return
        self.means = self._take_means()
        if is_main():
            self._write_means(global_step)

    def _write_means(self, global_step: int) -> None:
        line = {"step": global_step, "seconds": round(self.seconds, 3), **self.means}
        with self.run.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())  # no state is to outlast the lines before it
        self.accelerator.log({f"loss/{name}": mean for name, mean in self.means.items()}, step=global_step)
        self._bar.set_postfix({name: f"{mean:.4f}" for name, mean in self.means.items()}, refresh=False)

    def _take_means(self) -> dict[str, float]:
        values = torch.stack([loss for _, _, loss in self._pending]).tolist()  # one transfer for all of them
        values = averaged(values)
        by_name: dict[str, list[float]] = {}
        for (step, name, _), value in zip(self._pending, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(f"{self.run.name}: {name} loss is {value} at step {step}; {HINT}")
            by_name.setdefault(name, []).append(value)
        self._pending.clear()
        return {name: sum(losses) / len(losses) for name, losses in by_name.items()}


def _cut_log(path: Path, step: int) -> None:
    """Leave the log's lines of steps up to one; a killed run may have left later ones, the last one cut."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(True) if path.is_file() else []
    kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
    write_atomically(path, "".join(kept).encode())


def _step_of(line: str) -> int | None:
    """The step of a line of the log, None for one that is cut or damaged."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else None
    except (ValueError, TypeError, KeyError):
        return None


def _check_finite(run: Run, parameters: Sequence[Tensor], global_step: int) -> None:
    """Raise FloatingPointError rather than save weights that are not finite over good ones."""
    if not torch.stack([parameter.detach().isfinite().all() for parameter in parameters]).all():
        raise FloatingPointError(f"{run.name}: weights are not finite after step {global_step}; {HINT}")


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


def _begin(run: Run) -> Checkpoint | None:
    """Put the config in place; returns the state to go on from, if there is one."""
    save_config(run.config, run.config_path)
    before = Checkpoint.load(run.state_path) if run.config.resume and run.state_path.is_file() else None
    run.record_path.unlink(missing_ok=True)  # of an earlier training: what is there is not done any more
    return before


def _save(run: Run, flux: Flux, adapter: str, learned_from: list[dict[str, str]], state: Checkpoint) -> None:
    """The adapter in both formats, what there is to say of it in the header, and the training's state."""
    metadata = training_metadata(run, flux.transformer, learned_from, state.step, process_count())
    save_lora(flux.transformer, adapter, run.weights_path(state.step), metadata)
    save_reference(flux.transformer, adapter, run.reference_path(state.step))
    state.save(run.state_path)  # last: where it is, the LoRA of its step is
    _remove_earlier(run, state.step)


def _remove_earlier(run: Run, global_step: int) -> None:
    """Keep save_total_limit LoRAs of earlier steps, the latest ones; 0 keeps all."""
    names = (re.fullmatch(r".*_(\d+)epoch\.safetensors", path.name) for path in run.folder.iterdir())
    steps = sorted({int(name[1]) for name in names if name} - {global_step})
    if run.config.save_total_limit:
        for step in steps[: -run.config.save_total_limit]:
            run.weights_path(step).unlink(missing_ok=True)
            run.reference_path(step).unlink(missing_ok=True)
