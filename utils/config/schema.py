"""The keys of a study, their types and what makes a value right.

`Config` is the one list of keys: names and meanings are those documented in the README. `coerce` turns what a
YAML or the command line holds into a typed value, `contradictions` checks the keys against each other. Both
only look; reading files and layering them is utils/config/load.py's.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

RESIZE_RULES = ("error", "stretch", "center_crop")
DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("none", "nf4", "int8", "fp8")
INVERSIONS = ("lora", "euler", "rf_solver", "fireflow", "rf_inversion", "flowedit")
INVERSION_RULES = ("difference", "joint", "authors")
JUDGES = ("clip", "probe")
LAUNCHERS = ("local", "ray")
LR_SCHEDULERS = ("constant", "linear", "cosine")

SliderScale = float | tuple[float, ...]
"""A slider's position; of several LoRAs together, one of each."""


@dataclass
class Config:
    """One study: what to train, on which pairs, and what to generate with it. Defaults suit FLUX.1-dev."""

    # the machine and the base model
    device: str = "auto"  # auto, cpu, cuda, cuda:N, or N alone
    launcher: str = "local"  # where runs are trained: local, one after another here; ray, where a GPU is free
    base: str = "flux_dev"  # a file in config/base/, whose keys hold where nothing else gives them
    pretrained_model_name_or_path: str = "black-forest-labs/FLUX.1-dev"
    resolution: int = 512  # pixels a side, of the pairs and of generated images
    dtype: str = "bfloat16"  # of the frozen base; adapters are always float32
    quantization: str = "none"  # of the frozen base's blocks: none, nf4 (bitsandbytes), int8, fp8 (torchao)
    compile: bool = False  # compile the transformer's blocks: faster steps after a minute or so
    max_sequence_length: int = 512  # tokens a prompt

    # the pairs: datasets_folder/DATASET/{source_folder,target_folder}, matched by file stem
    datasets_folder: str = "datasets"
    datasets: list[str] = field(default_factory=lambda: ["glasses"])
    source_folder: str = "source"
    target_folder: str = "target"
    pair_count: int = 0  # how many of the pairs to learn from, the first in order; 0: all
    resize: str = "error"  # for images that are not square or of unequal size: error, stretch, center_crop

    # the method
    python_name: str = "train_image"  # the objective, by its script's name
    config_name: str = "base"  # a label of your own in the names of runs
    start_step: int = 0  # first and last step index drawn in training, of num_inference_steps
    end_step: int = 27  # left out everywhere: the last step
    num_inference_steps: int = 28
    guidance_scale: float = 3.5  # FLUX's distilled guidance embedding
    cfg_eta: float = 4.0  # eta, the strength of the guidance direction source - target
    noise_scales: list[float] = field(
        default_factory=lambda: [1.0]
    )  # beta of the content-preserving schedule

    # training; the sweep is datasets x versions x noise_scales
    train_method: str = "full"  # which linear layers carry the LoRA
    rank: int = 16
    alpha: float = 1.0
    lr: float = 2e-3
    lr_scheduler: str = "constant"  # or linear, cosine: from lr down to 0 after the last step
    batch_size: int = 1
    train_iteration: int = 500
    save_per_steps: int = 500  # steps between two saves: the LoRA so far, and the state that --resume takes
    save_total_limit: int = 0  # how many LoRAs of earlier steps are kept; 0: all
    sample_per_steps: int = 0  # steps between two grids of pictures in samples/ and TensorBoard; 0: none
    resume: bool = False  # go on from the last save, as --resume does
    train_start: int = 1  # number of the first version
    train_count: int = 1  # how many versions, each with a seed of its own (seed + version)
    seed: int = 0
    joint_passes: bool = True  # a step's forward passes as one batch: faster, and all their memory at once
    gradient_checkpointing: bool = False  # less memory for about a third more time
    log_every: int = 10  # steps between two lines of the loss log
    output_folder: str = "output/models/image/"
    push_to_hub: str = ""  # OWNER/NAME on the hub, for a study of one run: the LoRA and its card are uploaded

    # generation
    use_trained_lora_path: bool = False  # apply trained_lora_path in place of each run's own LoRA
    trained_lora_path: list[str] = field(default_factory=list)  # several act together
    other_base: bool = False  # apply LoRAs that say they were trained on another base all the same
    use_prompts_file: bool = False  # draw prompts from prompts_file in place of prompt
    prompts_file: list[str] = field(
        default_factory=lambda: ["prompts-person.yaml"]
    )  # in prompts/, one a dataset
    prompt: list[str] = field(
        default_factory=lambda: ["image of a person"]
    )  # one a dataset, the last goes on
    use_random_seed: bool = False
    start_seed_gen: int = 6666
    count_gen: int = 2  # images (seeds) for each run and skip
    batch_size_gen: int = 8  # most images in one forward pass, of several seeds and scales
    skips: list[int] = field(default_factory=lambda: [14])  # step index from which the adapter is active
    scales: list[float] = field(
        default_factory=lambda: [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    )  # auto, kept as []: what the LoRA's calibration says (eval_scripts/calibrate.py)
    lora_scales: list[list[float]] = field(
        default_factory=list
    )  # for several trained_lora_path, one list each; none: scales for all. Every combination is drawn
    save_gif: bool = False  # beside a seed's grid, a GIF of the slider moving there and back for each skip
    output_folder_gen: str = "output/eval/image/"

    # real images
    image_ids: list[str] = field(default_factory=list)  # stems in the source folder; none = all of them
    semantic_lora_path: str = ""
    semantic_cfg_scale: float = 0.75  # w, the strength of the edit beside the inversion LoRA
    inversion: str = "lora"  # how a photograph is found in the flow; see utils/flow/inversion.py
    inversion_rule: str = "difference"  # how the edit joins an inversion LoRA: difference, joint, authors

    # measuring; weights are a local path or a hub id, "" goes without
    judge: str = (
        "clip"  # what says how far an edit has got: clip (and dinov2), or probe, the face world's own
    )
    clip_weights: str = "openai/clip-vit-large-patch14"
    dinov2_weights: str = "facebook/dinov2-base"
    lpips_alex_weights: str = "torchvision"  # the backbone's; torchvision fetches its own
    lpips_vgg_weights: str = "torchvision"
    arcface_weights: str = ""  # an .onnx file
    inception_weights: str = ""  # torch-fidelity's file for FID and KID; "torch-fidelity" fetches it


KEYS: dict[str, Any] = get_type_hints(Config)

# What a trained LoRA does not depend on: the machine, and all from generation on.
AFTER_TRAINING = {
    *("device", "launcher", "output_folder", "base", "log_every"),
    *("compile", "joint_passes", "gradient_checkpointing"),
    *("save_per_steps", "save_total_limit", "sample_per_steps", "resume", "push_to_hub"),
    *list(KEYS)[list(KEYS).index("use_trained_lora_path") :],
}
_TYPED = OmegaConf.structured(Config)

# One item a comma, so that `scales: 0,0.8,1.0` and `datasets=age,smile` work. Prompts and paths keep commas.
COMMA_LISTS = {key for key, kind in KEYS.items() if get_origin(kind) is list} - {
    *("prompt", "trained_lora_path", "lora_scales")
}

_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false (or 1 or 0)",
    str: "text",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    list[list[float]]: "a list of lists of numbers",
}


# What a value must be beyond its type: the test, and in words what was expected.
Rule = tuple[Callable[[Any], bool], str]


def _one_of(options: tuple[str, ...]) -> Rule:
    return (lambda value: value in options), "one of " + ", ".join(options)


def _at_least(least: int) -> Rule:
    return (lambda value: value >= least), f"{least} or more"


def _between(least: int, most: int) -> Rule:
    return (lambda value: least <= value <= most), f"{least} to {most}"


_GREATEST = 1e9  # of any number but a seed; what is beyond overflows somewhere
_SEED: Rule = _between(0, 2**62)
_POSITIVE: Rule = (lambda value: value > 0), "more than 0"
_FILLED: Rule = (lambda value: bool(value) and "" not in value), "at least one entry"
_TEXT: Rule = (lambda value: bool(value.strip())), "a name or path"
# Names become parts of the paths that are written to: none may lead out of the output folder.
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]*[^/\\\x00-\x1f\s][^/\\\x00-\x1f]*")
_A_NAME: Rule = (lambda value: _NAME.fullmatch(value) is not None), "a name, without / or \\"
_NAMES: Rule = (
    (lambda value: bool(value) and all(map(_NAME.fullmatch, value))),
    "at least one entry, each a name without / or \\",
)

_RULES: dict[str, Rule] = {
    "device": (
        lambda value: re.fullmatch(r"auto|cpu|cuda(:\d+)?|\d+", value) is not None,
        "auto, cpu, cuda, cuda:N or N",
    ),
    "resolution": _between(1, 8192),  # a multiple of what the family of the base says, see families.py
    "dtype": _one_of(DTYPES),
    "quantization": _one_of(QUANTIZATIONS),
    "resize": _one_of(RESIZE_RULES),
    "inversion": _one_of(INVERSIONS),
    "judge": _one_of(JUDGES),
    "launcher": _one_of(LAUNCHERS),
    "inversion_rule": _one_of(INVERSION_RULES),
    "lr_scheduler": _one_of(LR_SCHEDULERS),
    "noise_scales": ((lambda value: bool(value) and min(value) >= 0), "at least one number, none below 0"),
    "skips": ((lambda value: bool(value) and min(value) >= 0), "at least one whole number, none below 0"),
    "scales": (bool, "at least one number"),
    "lora_scales": (all, "at least one number in each list"),
    **dict.fromkeys(("alpha", "lr"), _POSITIVE),
    "datasets": _NAMES,
    "config_name": _A_NAME,
    "prompts_file": _FILLED,
    # An empty prompt is a prompt.
    "prompt": (bool, "at least one prompt"),
    **dict.fromkeys(("base", "pretrained_model_name_or_path", "source_folder", "target_folder"), _TEXT),
    **dict.fromkeys(("output_folder", "output_folder_gen"), _TEXT),
    **dict.fromkeys(
        ("start_step", "end_step", "guidance_scale", "pair_count"),
        _at_least(0),
    ),
    **dict.fromkeys(("save_total_limit", "sample_per_steps"), _at_least(0)),
    **dict.fromkeys(("seed", "start_seed_gen", "train_start"), _SEED),
    **dict.fromkeys(
        ("num_inference_steps", "train_iteration", "save_per_steps", "train_count"), _at_least(1)
    ),
    **dict.fromkeys(("max_sequence_length", "log_every", "count_gen"), _at_least(1)),
    "rank": _between(1, 8192),
    **dict.fromkeys(("batch_size", "batch_size_gen"), _between(1, 4096)),
}


def expected(key: str) -> str:
    """Say in words what type `key` takes."""
    return _EXPECTED[KEYS[key]]


def coerce(key: str, value: Any) -> Any:
    """Turn a YAML value into the type of `key`: 1 -> True, "0,0.8,1" -> [0.0, 0.8, 1.0], "a" -> ["a"].

    An empty value (None) is "" for text and [] for a list. Raises ValueError "expected ..., found ..." on a
    wrong type, on NaN and infinity, and on a value outside the key's own rule.
    """
    if key == "scales" and value in ("auto", []):
        return []
    found = value
    kind = KEYS[key]
    is_list = get_origin(kind) is list
    entry_type = get_args(kind)[0] if is_list else kind
    if is_list:
        value = _as_list(key, value)
    elif kind is str and value is None:
        value = ""
    wrong_type = ValueError(f"expected {expected(key)}, found {found!r}")
    if not all(_may_become(entry_type, entry) for entry in (value if is_list else [value])):
        raise wrong_type
    node = OmegaConf.masked_copy(_TYPED, [key])
    try:
        OmegaConf.update(node, key, value)
        value = OmegaConf.to_container(node)[key]  # type: ignore[index, call-overload]
    except OmegaConfBaseException:
        raise wrong_type from None
    entries = value if is_list else [value]
    # A "???" or "${...}" passes OmegaConf as text whatever the type.
    if not all(_is(entry_type, entry) for entry in entries):
        raise wrong_type
    numbers = [number for entry in entries for number in (entry if isinstance(entry, list) else [entry])]
    if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
        raise ValueError(f"expected finite numbers, found {found!r}")
    if _RULES.get(key) is not _SEED and any(
        abs(number) > _GREATEST for number in numbers if isinstance(number, int | float)
    ):
        raise ValueError(f"expected numbers up to {_GREATEST:g}, found {found!r}")
    test, wanted = _RULES.get(key, (lambda _: True, ""))
    if not test(value):
        raise ValueError(f"expected {wanted}, found {found!r}")
    return value


def _is(kind: Any, entry: Any) -> bool:
    if kind == list[float]:
        return isinstance(entry, list) and all(isinstance(number, float) for number in entry)
    return isinstance(entry, kind)


def _may_become(kind: Any, entry: Any) -> bool:
    """Refuse what OmegaConf would let pass: True as the text "True", 7 as a flag, a list within a list."""
    if kind == list[float]:
        return isinstance(entry, list) and all(_may_become(float, number) for number in entry)
    if kind is bool:
        return entry in (0, 1, "0", "1", "true", "false")
    return not isinstance(entry, (list, dict, bool, type(None)))


def _as_list(key: str, value: Any) -> Any:
    if value is None or (value == "" and key != "prompt"):
        return []
    if isinstance(value, str) and key in COMMA_LISTS:
        return [] if not value.strip() else [part.strip() for part in value.split(",")]
    return value if isinstance(value, list) else [value]


def contradictions(config: Config) -> list[str]:
    """Check the keys against each other; one line a fault."""
    faults = []
    steps = config.num_inference_steps
    if not config.start_step <= config.end_step < steps:
        faults.append(
            f"start_step, end_step: expected 0 <= start_step <= end_step <= {steps - 1} "
            f"(num_inference_steps - 1), found {config.start_step} and {config.end_step}"
        )
    if max(config.skips) > steps:
        faults.append(f"skips: expected 0 to {steps} (num_inference_steps), found {max(config.skips)}")
    if config.use_trained_lora_path and not config.trained_lora_path:
        faults.append(
            "trained_lora_path: expected a LoRA file, since use_trained_lora_path is on; found nothing"
        )
    if config.quantization != "none" and config.dtype != "bfloat16":
        faults.append(f"dtype: expected bfloat16, since quantization is on; found {config.dtype}")
    loras = len(config.trained_lora_path) if config.use_trained_lora_path else 1
    if config.lora_scales and len(config.lora_scales) != loras:
        faults.append(
            f"lora_scales: expected a list of scales for each of {loras} LoRAs (trained_lora_path, with "
            f"use_trained_lora_path on), found {len(config.lora_scales)}"
        )
    return faults
