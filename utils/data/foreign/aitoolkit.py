"""ai-toolkit's YAML or JSON of a LoRA on FLUX.1, as its config/examples and its interface write it.

job: extension
config:
  name: ...
  process:
    - type: sd_trainer          # or diffusion_trainer, ui_trainer
      network, save, datasets, train, model, sample, ...
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.data.foreign.aitoolkit_dataset import read_datasets
from utils.data.foreign.aitoolkit_rows import (
    LOGGING,
    MODEL,
    NETWORK,
    PROCESS,
    QUANTIZATION,
    SAMPLE,
    SAMPLE_ITEM,
    SAVE,
)
from utils.data.foreign.aitoolkit_train import EMA, OPTIMIZER_PARAMS, OPTIMIZERS, SCHEDULERS, TIMESTEPS, TRAIN
from utils.data.foreign.rows import (
    IDLE,
    NOT_GIVEN,
    SAME,
    TRANSLATED,
    Table,
    flag,
    joint,
    number,
    one_of,
    whole,
    written,
)
from utils.data.foreign.translation import Translation, read_table, table_in
from utils.errors import nearest

TOOL = "ai-toolkit"
TYPES = ("sd_trainer", "diffusion_trainer", "ui_trainer")
"""Of process, those that train a LoRA on captioned images."""
_TOP: Table = {"job": joint(), "config": joint(), "meta": joint()}
_CONFIG: Table = {"name": joint(), "process": joint()}
_VARIABLE = re.compile(r"\$\{([^}]+)\}")


def is_aitoolkit(content: Any) -> bool:
    """Whether a file's content is a job of ai-toolkit's."""
    return isinstance(content, Mapping) and "job" in content and isinstance(content.get("config"), Mapping)


def translate(path: Path, content: Mapping[str, Any]) -> Translation:
    """This project's keys for a job of ai-toolkit's; what is wrong is in the translation's faults.

    Args:
        path: of its file, for errors.
        content: of the file, typed.
    """
    found = Translation(path, TOOL)
    name = str(content["config"].get("name") or path.stem)
    content = _replaced(found, content, name)
    top = read_table(found, _TOP, content)
    if top["job"] not in ("extension", "train"):
        found.fault("job", f"expected extension, found {written(top['job'])}")
    config = read_table(found, _CONFIG, top["config"], "config.")
    processes = config["process"]
    if not isinstance(processes, list) or len(processes) != 1 or not isinstance(processes[0], dict):
        count = len(processes) if isinstance(processes, list) else 0
        found.fault("config.process", f"expected one process, found {count}")
        return found

    # What holds for the whole.
    found.set("config.name", name, "config_name", name.replace("/", "_"), TRANSLATED, "in the run's name")
    process = read_table(found, PROCESS, processes[0])
    if process["type"] not in TYPES:
        found.fault("type", f"expected {' or '.join(TYPES)}, found {written(process['type'])}")
    found.values["start_step"] = 0
    read_table(found, LOGGING, process["logging"], "logging.")

    _network(found, process["network"])
    save = read_table(found, SAVE, process["save"], "save.")
    train = read_table(found, TRAIN, process["train"], "train.")
    read_datasets(found, process["datasets"])
    _steps(found, train, save)
    _optimizer(found, train)
    _noise_levels(found, train)
    _losses(found, train)
    _model(found, process["model"])
    _hub(found, save)
    _samples(found, process["sample"], train)
    return found


def _replaced(found: Translation, value: Any, name: str) -> Any:
    """The content with [name] and ${VARIABLES} put in, as ai-toolkit does it before it looks at anything."""
    if isinstance(value, Mapping):
        return {key: _replaced(found, each, name) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(found, each, name) for each in value]
    if not isinstance(value, str):
        return value
    for variable in _VARIABLE.findall(value):
        if variable not in os.environ:
            found.fault("", f"expected the variable {variable} of {value} to be set, found none")
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value).replace("[name]", name)


# --- keys that are read together ---


def _network(found: Translation, section: Any) -> None:
    """Rank and alpha, and which linears."""
    network = read_table(found, NETWORK, section, "network.")
    linear = "rank" if network["rank"] is not None else "linear"
    found.read(f"network.{linear}", network[linear], "rank", whole, 4, SAME)
    alpha = "alpha" if network["linear_alpha"] is None else "linear_alpha"
    found.read(f"network.{alpha}", network[alpha], "alpha", number, 1.0, SAME)
    found.set("network", NOT_GIVEN, "train_method", "blocks", TRANSLATED, "every linear of the blocks")
    for name, value in table_in(found, "network.network_kwargs", network["network_kwargs"]).items():
        if value:
            found.fault(
                f"network.network_kwargs.{name}",
                f"expected none, found {written(value)}; train_method says which",
            )


def _steps(found: Translation, train: Mapping[str, Any], save: Mapping[str, Any]) -> None:
    """Steps, batches and saves; accumulated gradients are a batch that many times as large."""
    try:
        steps, batch = whole(train["steps"] or 1000), whole(train["batch_size"] or 1)
        turns = whole(train["gradient_accumulation_steps"] or 1)
        together = whole(train["gradient_accumulation"] or 1)
        every = whole(save["save_every"])
    except ValueError as error:
        found.fault("train", f"steps, batch_size, gradient_accumulation, save_every: {error}")
        return
    if turns < 1 or together < 1 or steps % turns or every % turns:
        found.fault(
            "train.gradient_accumulation_steps",
            f"expected a divisor of steps and save_every, found {turns}, {steps} and {every}",
        )
        return
    why = "" if turns == 1 else f"there a step is a share of one, of which {turns} make one"
    found.set("train.steps", train["steps"] or NOT_GIVEN, "train_iteration", steps // turns, TRANSLATED, why)
    for name, count in (("gradient_accumulation_steps", turns), ("gradient_accumulation", together)):
        if train[name] is not None:
            found.say(
                f"train.{name}", count, TRANSLATED, f"batch_size={batch * turns * together}", "one batch"
            )
    found.set("train.batch_size", train["batch_size"] or NOT_GIVEN, "batch_size", batch * turns * together)
    found.set("save.save_every", every, "save_per_steps", every // turns)


def _optimizer(found: Translation, train: Mapping[str, Any]) -> None:
    """The optimizer, its rate and its schedule."""
    try:
        optimizer = one_of(OPTIMIZERS)(train["optimizer"] or "adamw")
        rate = number(next(each for each in (train["unet_lr"], train["lr"], 1e-6) if each is not None))
        schedule = one_of(SCHEDULERS)(train["lr_scheduler"] or "constant")
    except ValueError as error:
        found.fault("train.optimizer, lr, lr_scheduler", str(error), "optimizer")
        return
    found.set("train.optimizer", train["optimizer"] or NOT_GIVEN, "optimizer", optimizer)
    why = f"{TOOL} takes 1 for less than 0.1" if optimizer == "prodigy" and rate < 0.1 else ""
    found.set("train.lr", train["lr"], "lr", 1.0 if why else rate, TRANSLATED if why else SAME, why)
    given = read_table(found, OPTIMIZER_PARAMS, train["optimizer_params"], "train.optimizer_params.")
    key, own = "train.optimizer_params.weight_decay", 0.0 if optimizer == "prodigy" else 0.01
    found.read(key, given["weight_decay"], "weight_decay", number, own, SAME)

    found.set("train.lr_scheduler", train["lr_scheduler"] or NOT_GIVEN, "lr_scheduler", schedule, SAME)
    params = table_in(found, "train.lr_scheduler_params", train["lr_scheduler_params"])
    if schedule == "constant_with_warmup":
        steps = params.pop("num_warmup_steps", None)
        found.read("train.lr_scheduler_params.num_warmup_steps", steps, "lr_warmup_steps", whole, 1000)
    if params:
        found.fault(
            "train.lr_scheduler_params", f"expected none of {', '.join(params)}, found {written(params)}"
        )


def _noise_levels(found: Translation, train: Mapping[str, Any]) -> None:
    """Which noise levels are seen."""
    for name in ("linear_timesteps", "linear_timesteps2"):
        if train[name]:
            found.fault(f"train.{name}", "expected false, found true: the loss weighs all noise levels alike")
    kind = train["timestep_type"] or "sigmoid"
    try:
        timesteps, why = one_of(TIMESTEPS)(kind)
    except ValueError as error:
        found.fault("train.timestep_type", str(error), "timesteps")
        return
    found.set(
        "train.timestep_type", train["timestep_type"] or NOT_GIVEN, "timesteps", timesteps, TRANSLATED, why
    )


def _losses(found: Translation, train: Mapping[str, Any]) -> None:
    """The moving mean, and the prior."""
    ema = read_table(found, EMA, train["ema_config"], "train.ema_config.")
    if ema["use_ema"]:
        why = "the LoRA that is saved is the moving mean"
        found.read("train.ema_config.ema_decay", ema["ema_decay"], "ema_decay", number, 0.999, SAME, why)
    if train["diff_output_preservation"]:
        why = "the base's own velocity under the caption without the trigger"
        found.set("train.diff_output_preservation", True, "prior", "base", TRANSLATED, why)
        weight = train["diff_output_preservation_multiplier"]
        key = "train.diff_output_preservation_multiplier"
        found.read(key, weight, "prior_weight", number, 1.0, SAME)
        word = train["diff_output_preservation_class"]
        if word:
            why = "the caption is to name the class beside the trigger, which is left out, not replaced"
            found.say("train.diff_output_preservation_class", word, IDLE, why=why)


def _model(found: Translation, section: Any) -> None:
    """The base, and how it is held."""
    model = read_table(found, MODEL, section, "model.")
    arch = str(model["arch"] or ("flux" if model["is_flux"] else "sd1")).partition(":")[0]
    if arch != "flux":
        found.fault("model.arch", f"expected flux (or is_flux: true), found {arch}{nearest(arch, ['flux'])}")
    if model["name_or_path"]:
        name = model["name_or_path"]
        found.set("model.name_or_path", name, "pretrained_model_name_or_path", name, SAME)
    else:
        found.fault("model.name_or_path", "expected a model, found none", "pretrained_model_name_or_path")
    try:
        kind = one_of(QUANTIZATION)(model["qtype"] or "qfloat8") if model["quantize"] else "none"
    except ValueError as error:
        found.fault("model.qtype", str(error), "quantization")
        return
    why = "of the blocks, by torchao" if model["quantize"] else ""
    found.set("model.quantize", model["quantize"] or False, "quantization", kind, TRANSLATED, why)


def _hub(found: Translation, save: Mapping[str, Any]) -> None:
    """Whether the LoRA is uploaded."""
    try:
        pushed = flag(save["push_to_hub"])
    except ValueError as error:
        found.fault("save.push_to_hub", str(error))
        return
    if not pushed:
        if save["hf_repo_id"]:
            found.say("save.hf_repo_id", save["hf_repo_id"], IDLE, why="push_to_hub is off")
    elif save["hf_repo_id"]:
        found.set("save.hf_repo_id", save["hf_repo_id"], "push_to_hub", save["hf_repo_id"])
    else:
        found.fault("save.hf_repo_id", "expected OWNER/NAME, since push_to_hub is on; found none")


def _samples(found: Translation, section: Any, train: Mapping[str, Any]) -> None:
    """Pictures while it trains; the first prompt is also that of generating."""
    sample = read_table(found, SAMPLE, section, "sample.")
    entries = sample["samples"] if sample["samples"] is not None else sample["prompts"] or []
    if not isinstance(entries, list):
        found.fault("sample.prompts", f"expected a list of prompts, found {written(entries)}")
        return
    trigger, prompts = found.values.get("trigger", ""), []
    for number_, entry in enumerate(entries, 1):
        where = f"sample.samples {number_}"
        options = {} if isinstance(entry, str) else entry
        for name in options if isinstance(options, dict) else ():
            if name not in SAMPLE_ITEM:
                found.fault(where, f"unknown key {name!r}{nearest(name, SAMPLE_ITEM)}")
            elif name != "prompt" and options[name] is not None:
                found.say(f"{where}.{name}", options[name], IDLE, why="all pictures are drawn alike")
        text = (
            entry if isinstance(entry, str) else options.get("prompt") if isinstance(options, dict) else None
        )
        if isinstance(text, str):
            prompts.append(text.replace("[trigger]", trigger))
        else:
            found.fault(where, f"expected a prompt, found {written(text)}")
    if not prompts or train["disable_sampling"]:
        why = "disable_sampling" if prompts else "no prompts"
        found.set("sample.sample_every", sample["sample_every"], "sample_per_steps", 0, TRANSLATED, why)
    else:
        found.read("sample.sample_every", sample["sample_every"], "sample_per_steps", whole, 100, SAME)
    if prompts:
        found.set("sample.prompts", f"{len(prompts)} prompts", "sample_prompts", prompts, SAME)
        found.set(
            "sample.prompts", NOT_GIVEN, "prompt", prompts[:1], TRANSLATED, "generating begins with the first"
        )
        found.set("sample.prompts", NOT_GIVEN, "count_gen", 1, TRANSLATED, "a picture each")
