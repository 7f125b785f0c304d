"""sd-scripts' flags of flux_train_network.py, a LoRA on FLUX.1; sdscripts_files.py has where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.data.foreign.rows import (
    IDLE,
    NOT_GIVEN,
    SAME,
    TRANSLATED,
    Table,
    number,
    one_of,
    whole,
)
from utils.data.foreign.sdscripts_dataset import DATASET, read_dataset, sources_of
from utils.data.foreign.sdscripts_files import SCRIPT
from utils.data.foreign.sdscripts_flags import (
    MODEL,
    NETWORK,
    NETWORK_ARGS,
    NOISE,
    OPTIMIZER,
    OPTIMIZER_ARGS,
    OPTIMIZERS,
    SAVING,
    SECRET,
)
from utils.data.foreign.sdscripts_steps import read_steps
from utils.data.foreign.translation import Translation, read_table
from utils.data.sample_prompts import load_sample_prompts
from utils.errors import UserError

TOOL = "sd-scripts"
FLAGS: Table = {**MODEL, **NETWORK, **OPTIMIZER, **NOISE, **SAVING, **DATASET}
"""Every flag."""
_SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup", "cosine_with_restarts")
_OFFICIAL = "flux1-dev.safetensors"
"""The transformer of FLUX.1-dev as its makers name it."""


def translate(path: Path, script: str, flags: Mapping[str, Any]) -> Translation:
    """This project's keys for flags of sd-scripts; what is wrong is in the translation's faults.

    Args:
        path: of their file, for errors.
        script: that they are for, "" where the file does not say.
        flags: their values; of a command line texts, lists of texts, or true.
    """
    found = Translation(path, TOOL)
    if script not in ("", SCRIPT):
        found.fault("", f"expected flags of {SCRIPT}, found those of {script}")
    said = {name: "***" if name in SECRET else value for name, value in flags.items()}
    rest = read_table(found, FLAGS, said)
    if rest["config_file"]:
        found.fault("config_file", f"expected none, found {rest['config_file']}: give --c that file itself")
    found.set("network_module", NOT_GIVEN, "train_method", "blocks", why="every linear of the blocks")
    found.values["start_step"] = 0
    _model(found, rest)
    _network(found, rest)
    _optimizer(found, rest)
    _text_encoder(found, rest)
    _noise_levels(found, rest)
    read_steps(found, rest)
    _samples(found, rest)
    _prior(found, rest)
    read_dataset(found, rest)
    return found


def _model(found: Translation, rest: Mapping[str, Any]) -> None:
    """The base, and how it is held."""
    name = str(rest["pretrained_model_name_or_path"] or "")
    key, ours = "pretrained_model_name_or_path", "pretrained_model_name_or_path"
    if Path(name).name == _OFFICIAL:
        found.set(
            key, name, ours, "black-forest-labs/FLUX.1-dev", why="the same weights in diffusers' layout"
        )
    elif Path(name).suffix in (".safetensors", ".sft"):
        found.fault(
            key, f"expected a folder in diffusers layout, a hub id or {_OFFICIAL}, found {name}", ours
        )
    elif name:
        found.set(key, name, ours, name, SAME)
    else:
        found.fault(key, "expected a model, found none", ours)
    precision = rest["mixed_precision"] or "no"
    known = {"bf16": "bfloat16", "fp16": "bfloat16", "no": "float32"}
    shown = rest["mixed_precision"]
    found.read(
        "mixed_precision",
        shown,
        "dtype",
        one_of(known),
        precision,
        why="of the frozen base; fp16 is bfloat16, too",
    )
    for name in ("fp8_base", "fp8_base_unet"):
        if rest[name]:
            found.set(name, rest[name], "quantization", "fp8", why="of the blocks, by torchao")
    found.values.setdefault("quantization", "none")


def _network(found: Translation, rest: Mapping[str, Any]) -> None:
    read_table(found, NETWORK_ARGS, _arguments(found, "network_args", rest["network_args"]), "network_args: ")
    if "split_qkv" not in str(rest["network_args"]):
        why = "q, k and v have a LoRA each, where there one serves all three unless split_qkv=True"
        found.say("network_args: split_qkv", NOT_GIVEN, TRANSLATED, why=why)


def _arguments(found: Translation, key: str, listed: Any) -> dict[str, Any]:
    """The key=value of a flag that has several."""
    if not listed:
        return {}
    parts = listed if isinstance(listed, list) else [listed]
    values: dict[str, Any] = {}
    for part in parts:
        name, equals, value = str(part).partition("=")
        if not equals:
            found.fault(key, f"expected key=value, found {part}")
        values[name.strip()] = _typed(value.strip())
    return values


def _typed(text: str) -> Any:
    """A value as sd-scripts reads it: True, a number, or the text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return number(text)
    except ValueError:
        return text


def _optimizer(found: Translation, rest: Mapping[str, Any]) -> None:
    """The optimizer, its rate and its schedule."""
    name = "AdamW8bit" if rest["use_8bit_adam"] else rest["optimizer_type"]
    found.read("optimizer_type", name, "optimizer", one_of(OPTIMIZERS), "AdamW")
    rate = "learning_rate" if rest["unet_lr"] is None else "unet_lr"
    found.read(rate, rest[rate], "lr", number, 2e-6, SAME)
    if rate == "unet_lr" and rest["learning_rate"] is not None:
        found.say("learning_rate", rest["learning_rate"], IDLE, why="unet_lr goes before it")

    given = _arguments(found, "optimizer_args", rest["optimizer_args"])
    args = read_table(found, OPTIMIZER_ARGS, given, "optimizer_args: ")
    own = 0.0 if found.values.get("optimizer") == "prodigy" else 0.01
    found.read("optimizer_args: weight_decay", args["weight_decay"], "weight_decay", number, own, SAME)
    schedules = {name: name for name in _SCHEDULES}
    found.read("lr_scheduler", rest["lr_scheduler"], "lr_scheduler", one_of(schedules), "constant", SAME)


def _text_encoder(found: Translation, rest: Mapping[str, Any]) -> None:
    """The LoRA on CLIP's text encoder, which there is unless it is left out; here at alpha = rank alone."""
    key, only, listed = "network_train_unet_only", rest["network_train_unet_only"], rest["text_encoder_lr"]
    rate = listed[0] if isinstance(listed, list) and listed else listed
    if only not in (None, False, "false"):
        found.say(key, only, SAME, "text_rank=0")
        if listed is not None:
            found.say("text_encoder_lr", listed, IDLE, why=f"with {key}")
        return
    rank, alpha = found.values.get("rank"), found.values.get("alpha")
    if rank is None or rank != alpha:
        found.fault(
            key,
            f"expected true, or network_alpha as network_dim, found neither: without it {TOOL} trains a LoRA "
            "on CLIP's text encoder, too, which has alpha = rank here (text_rank)",
            "text_rank",
        )
        return
    found.set(
        key, only if only is not None else NOT_GIVEN, "text_rank", rank, why="a LoRA on CLIP's text encoder"
    )
    found.read("text_encoder_lr", rate, "text_lr", number, found.values.get("lr", 2e-6), SAME)


def _noise_levels(found: Translation, rest: Mapping[str, Any]) -> None:
    """Which noise levels are seen: the same distributions under other names."""
    kind = str(rest["timestep_sampling"] or "sigma")
    scheme = str(rest["weighting_scheme"] or "uniform")
    normal = {"logit_mean": 0.0, "logit_std": 1.0}
    by_kind = {
        "sigmoid": "logit_normal",
        "uniform": "uniform",
        "shift": "logit_normal",
        "flux_shift": "shifted",
    }
    by_scheme = {"uniform": "uniform", "none": "uniform", "logit_normal": "logit_normal"}
    if kind not in (*by_kind, "sigma"):
        found.fault(
            "timestep_sampling", f"expected one of {', '.join(by_kind)}, sigma, found {kind}", "timesteps"
        )
        return
    if kind == "sigma" and scheme not in by_scheme:
        found.fault(
            "weighting_scheme", f"expected one of {', '.join(by_scheme)}, found {scheme}", "timesteps"
        )
        return
    timesteps = by_scheme[scheme] if kind == "sigma" else by_kind[kind]
    found.set("timestep_sampling", rest["timestep_sampling"] or NOT_GIVEN, "timesteps", timesteps)

    for name, wanted in {"weighting_scheme": "", **normal}.items():
        if rest[name] is None:
            continue
        if kind != "sigma" or (name != "weighting_scheme" and scheme != "logit_normal"):
            found.say(name, rest[name], IDLE, why=f"with timestep_sampling {kind}, {scheme}")
        elif name == "weighting_scheme":
            found.say(name, rest[name], TRANSLATED, f"timesteps={timesteps}")
        elif _typed(str(rest[name])) != wanted:
            found.fault(name, f"expected {wanted:g}, found {rest[name]}: the normal is a standard one")
    shift = rest["discrete_flow_shift"]
    if kind in ("sigma", "shift"):
        found.read("discrete_flow_shift", shift, "timestep_shift", number, 3.0, SAME)
    elif shift is not None:
        found.say("discrete_flow_shift", shift, IDLE, why=f"with timestep_sampling {kind}")


def _samples(found: Translation, rest: Mapping[str, Any]) -> None:
    """Pictures while it trains."""
    for name in ("sample_every_n_epochs", "sample_every_n_steps"):
        if rest[name] is not None and not rest["sample_prompts"]:
            found.say(name, rest[name], IDLE, why="there are no sample_prompts")
    if not rest["sample_prompts"]:
        return
    if rest["sample_every_n_epochs"] is not None:
        why = "pictures are drawn by steps: sample_per_steps=N"
        found.say("sample_every_n_epochs", rest["sample_every_n_epochs"], IDLE, why=why)
    if rest["sample_every_n_steps"] is not None:
        found.read("sample_every_n_steps", rest["sample_every_n_steps"], "sample_per_steps", whole, 0, SAME)
    path = Path(str(rest["sample_prompts"]))
    path = path if path.exists() else found.path.parent / path
    try:
        prompts = load_sample_prompts(path)
    except UserError as error:
        found.fault("sample_prompts", str(error))
        return
    texts = [prompt.text for prompt in prompts]
    found.set("sample_prompts", rest["sample_prompts"], "sample_prompts", texts)
    found.set("sample_prompts", NOT_GIVEN, "prompt", texts[:1], why="generating begins with the first")
    own = [prompt for prompt in prompts if prompt.width or prompt.height or prompt.seed or prompt.steps]
    if own or any(prompt.idle for prompt in prompts):
        found.say(
            "sample_prompts",
            "--w, --h, --d, ...",
            IDLE,
            why="all pictures are drawn alike: width, height, ...",
        )


def _prior(found: Translation, rest: Mapping[str, Any]) -> None:
    """The weight of images of the class, where there are any."""
    weight = rest["prior_loss_weight"]
    of_class, metadata = sources_of(found, rest)
    if of_class:
        found.read("prior_loss_weight", weight, "prior_weight", number, 1.0, SAME)
    elif weight is not None:
        why = "no images are of the class" + (f"; {TOOL} takes none beside metadata_file" if metadata else "")
        found.say("prior_loss_weight", weight, IDLE, why=why)
