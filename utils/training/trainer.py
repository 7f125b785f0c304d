"""The one training loop: draws a batch, asks the objective for losses, steps the adapters, logs and saves.

The loop never asks which method it runs. Images and prompts are encoded before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from PIL import Image
from torch import Tensor

from utils.config.load import save_config
from utils.config.runs import Run
from utils.config.schema import Config
from utils.flow.passes import Losses, Objective
from utils.lora.card import write_card
from utils.lora.files import save_lora, save_reference
from utils.lora.metadata import training_metadata
from utils.lora.words import write_words
from utils.models.adapters import adapter_names, adapter_parameters, add_adapter, remove_adapter
from utils.models.base import Base, PromptEmbeds
from utils.models.identity import base_hash
from utils.records import recorded
from utils.training.average import Average, as_saved
from utils.training.batches import Batches
from utils.training.checkpoints import Checkpoint, Learner, kept_rng, restore, take_checkpoint
from utils.training.claims import note_saved
from utils.training.distributed import (
    average_gradients,
    interruptible_together,
    is_main,
    on_main,
    process_count,
)
from utils.training.init_lora import load_init_lora
from utils.training.learned_text import LearnedText, learned_text
from utils.training.log import HINT, TrainingLog, threads_faults_once
from utils.training.methods import build_objective, method_of
from utils.training.optimizers import build_optimizer, optimizer_kind
from utils.training.previews import sample_grid
from utils.training.sources import Source

Drawn = TypeVar("Drawn")
Embeds = Mapping[str, PromptEmbeds]
"""Of prompts, by their text."""


def train_run(run: Run, base: Base, source: Source, embeds: Embeds) -> None:
    """Train one run by its method, on what it learns from; see `train`.

    Args:
        run: names, paths, settings.
        base: the base model.
        source: what the run learns from.
        embeds: of the source's prompts.
    """
    config = run.config
    objective = build_objective(
        config.python_name,
        config.cfg_eta,
        run.noise_scale,
        config.joint_passes,
        prior=config.prior,
        prior_weight=config.prior_weight,
    )
    train(run, base, source.batches(base, embeds, config), objective, embeds)


def train(run: Run, base: Base, batches: Batches[Drawn], objective: Objective[Drawn], embeds: Embeds) -> None:
    """Train one run's adapters and save the result; the base model is left as it was found.

    Written to run.folder: config.yaml, losses.jsonl, record.json, README.md (a model card), tensorboard/,
    samples/, and every save_per_steps steps and at the end the adapter `objective.saved` in both LoRA formats
    and, until it has ended, the training's state. With `resume` it continues from there, to weights equal bit
    for bit to those of a training that was never stopped: all that is random comes from run.seed, on the CPU.

    Args:
        run, base: names, paths, settings; the base with its VAE, and no adapters of the objective's names.
        batches, objective: what a step draws; the losses of such a batch, and the adapters.
        embeds: of every prompt that the objective trains under, and of `batches.sample_prompts`.

    Raises:
        FloatingPointError: a loss or weight is not finite; saves made before stay.
        UserError: a state can't be read, or nothing written.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, the step finished and saved.
    """
    config = run.config
    before = on_main(_begin, run)
    generator = torch.Generator().manual_seed(run.seed)
    with (
        _recorded(run, base, before),
        _fresh_adapters(base, objective, config, generator),
        learned_text(base, embeds, config, generator) as text,
        kept_rng(),
        interruptible_together() as interrupted,
        threads_faults_once(),
        TrainingLog(run, _accelerator(run, base), before) as log,
    ):
        model, learner = text.velocity(), _learner(base, objective.adapters, text, generator)
        if before:
            restore(before, learner)
        base.release_vae()  # the batches are encoded

        for global_step in range(log.done + 1, config.train_iteration + 1):
            # The losses' gradients, of several processes their mean, and a step along them.
            losses = objective.losses(model, batches.draw(generator, global_step))
            for by_name in _backward(losses, log.accelerator):
                log.add(global_step, by_name)
            average_gradients(learner.parameters)
            learner.step(global_step)

            # What there is to say of the step; reading losses waits for the device, so not at every one.
            stop, last = interrupted(), global_step == config.train_iteration
            save = stop or last or global_step % config.save_per_steps == 0
            log.end_step(global_step, flush=save)
            if config.sample_per_steps and global_step % config.sample_per_steps == 0:
                with as_saved(learner.average, learner.parameters):
                    log.picture(_sample(run, base, objective.saved, batches, text), global_step)

            # The LoRA so far, and the state that --resume continues from.
            if save:
                _check_finite(run, learner.parameters, global_step)
                state = take_checkpoint(learner, global_step, log.seconds, log.means, log.digest)
                on_main(_save, run, base, objective.saved, text, batches.learned_from, state, learner)
            if stop:
                raise KeyboardInterrupt(f"saved after step {global_step}; --resume continues from there")
        on_main(write_card, run)  # before the record, which says that all is done
    on_main(run.state_path.unlink)


def _backward(losses: Losses, accelerator: Accelerator) -> Iterator[Mapping[str, Tensor]]:
    """Backpropagate a step's losses, one graph after the other; yields them by name."""
    with closing(losses):  # after an error adapters are put back to rest now, not by the garbage collector
        for by_name in losses:
            accelerator.backward(sum(by_name.values()))
            yield by_name


def _sample(run: Run, base: Base, adapter: str, batches: Batches[Drawn], text: LearnedText) -> Image.Image:
    """A grid of pictures of what an adapter has learned."""
    prompts = {prompt: text.now()[prompt] for prompt in batches.sample_prompts}
    grid = sample_grid(run, base, adapter, prompts)
    base.release_vae()
    return grid


def _accelerator(run: Run, base: Base) -> Accelerator:
    return Accelerator(
        cpu=base.device.type == "cpu",
        mixed_precision="no",  # the config's dtype is what counts, whatever a launcher says
        log_with=None if run.config.report_to == "none" else run.config.report_to,
        project_dir=str(run.folder),
    )


def _recorded(run: Run, base: Base, before: Checkpoint | None) -> AbstractContextManager[object]:
    """What the training costs, into its record, by one of several processes."""
    if not is_main():
        return nullcontext()
    seconds = before.seconds if before else 0.0
    return recorded(run.record_path, "training", run.config.train_iteration, base.device, seconds)


def _learner(base: Base, adapters: Sequence[str], text: LearnedText, generator: torch.Generator) -> Learner:
    """The weights that learn with an optimizer over all of them, its rate as lr_scheduler says."""
    config = text.config
    weights = {name: adapter_parameters(base.transformer, name) for name in adapters}
    parameters = [weight for own in weights.values() for weight in own]
    optimizer = build_optimizer(config.optimizer, text.groups(parameters), config.lr, config.weight_decay)
    # linear is (N - step) / N there; older versions had 1 - step / N, the same in float32
    lr_scheduler = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.train_iteration,
    )
    every = {**weights, **text.loras, **text.words}
    flat = [weight for own in every.values() for weight in own]
    return Learner(
        every,
        optimizer,
        lr_scheduler,
        generator,
        base_hash(base.transformer),
        idle=partial(text.idle, parameters),
        average=Average.of(flat, config.ema_decay) if config.ema_decay else None,
        max_grad_norm=config.max_grad_norm,
    )


def _check_finite(run: Run, parameters: Sequence[Tensor], global_step: int) -> None:
    """Raise FloatingPointError rather than save weights that are not finite over good ones."""
    if not torch.stack([parameter.detach().isfinite().all() for parameter in parameters]).all():
        raise FloatingPointError(f"{run.name}: weights are not finite after step {global_step}; {HINT}")


@contextmanager
def _fresh_adapters(
    base: Base, objective: Objective[Drawn], config: Config, generator: torch.Generator
) -> Iterator[None]:
    """New adapters inside, the result's gone on from init_lora; none of them after, whatever happens."""
    transformer, names = base.transformer, objective.adapters
    try:
        for name in names:
            seed = int(torch.randint(2**31, (), generator=generator))
            add_adapter(transformer, name, config.rank, config.alpha, config.train_method, seed)
            if config.init_lora and name == objective.saved:
                load_init_lora(transformer, name, config)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        yield
    finally:
        if config.gradient_checkpointing:
            transformer.disable_gradient_checkpointing()
        for name in set(names) & set(adapter_names(transformer)):
            remove_adapter(transformer, name)


def _begin(run: Run) -> Checkpoint | None:
    """Put the config in place; returns the state to resume from, if there is one."""
    save_config(run.config, run.config_path)
    before = Checkpoint.load(run.state_path) if run.config.resume and run.state_path.is_file() else None
    if before:
        print(f"{run.name}: resuming from step {before.step}", flush=True)
    run.record_path.unlink(missing_ok=True)  # of an earlier training: what is there is not done any more
    return before


def _save(
    run: Run,
    base: Base,
    adapter: str,
    text: LearnedText,
    learned_from: list[dict[str, str]],
    state: Checkpoint,
    learner: Learner,
) -> None:
    """The adapter in both formats, what there is to say of it in the header, and the training's state."""
    config = run.config
    about, called = method_of(config.python_name).about, optimizer_kind(config.optimizer).called
    metadata = training_metadata(
        run, base.transformer, learned_from, state.step, process_count(), about, called
    )
    with as_saved(learner.average, learner.parameters):  # no longer: the state's weights are the last ones
        saved = text.saved()
        save_lora(base.transformer, adapter, run.weights_path(state.step), metadata, **saved)
        if saved["words"]:
            write_words(run.words_path(state.step), saved["words"], metadata)
        save_reference(base.transformer, adapter, run.reference_path(state.step))
    note_saved(run, state.step)
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
