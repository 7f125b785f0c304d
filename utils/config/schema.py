"""The keys of a config: a line each, see utils/config/keys.py. `python -m utils.config` lists them."""

import re
from dataclasses import dataclass, fields
from typing import Any

from utils.config.keys import A_NAME, A_PATH, NAMES, PATH_OR_NONE, Group, key, keys_of, kinds_of
from utils.config.keys import coerce as coerce_key
from utils.names import is_path

SliderScale = float | tuple[float, ...]
"""A slider's position; of several LoRAs together, one of each."""

MACHINE = Group("machine", "where it runs, and on which base", shared=True)
MEMORY = Group("memory", "what is kept in memory at once")
BASE = Group("base", "the frozen model", trains=True, measured=True, shared=True)
SUBJECT = Group(
    "subject", "captioned images, datasets_folder/DATASET or DATASET.toml", trains=True, measured=True
)
DATA = Group(
    "data",
    "the pairs, datasets_folder/DATASET/{source_folder,target_folder}, matched by file stem",
    trains=True,
    measured=True,
    shared=True,
)
METHOD = Group("method", "what is minimised, and at which noise levels", trains=True, measured=True)
TRAINING = Group(
    "training",
    "of the LoRA; the sweep is datasets x versions x noise_scales",
    trains=True,
    measured=True,
)
SAVING = Group("saving", "what a training writes, and when")
GENERATION = Group("generation", "what is drawn, and from where the edit acts", measured=True)
IMAGES = Group("images", "how many images, of which LoRAs, at which scales")
PHOTOGRAPHS = Group("photographs", "edits of real images")
MEASURING = Group(
    "measuring", 'weights are a local path or a hub id, "" goes without', measured=True, shared=True
)
LAST_STEP = -1
"""end_step, in a YAML and on the command line, for the last of num_inference_steps."""
LEAST_FACTOR = 0.1
"""Of lr where it is a factor on a rate that the optimizer finds."""
SEED: dict[str, Any] = {"ge": 0, "le": 2**62}


def _is_device(text: str) -> bool:
    return re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?|[0-9]+", text) is not None


@dataclass
class Config:
    """One config: what to train, on which pairs, and what to generate with it. Defaults suit FLUX.1-dev."""

    # fmt: off
    device: str = key(MACHINE, "auto", "N alone is a CUDA index", check=_is_device, expected="auto, cpu, mps, cuda, cuda:N or N")
    launcher: str = key(MACHINE, "local", "where runs are trained: one after another here, or by Ray, where a GPU is free", one_of=("local", "ray"))
    base: str = key(MACHINE, "flux_dev", "a file in config/base/, whose keys hold where nothing else gives them", **A_PATH)
    base_note: str = key(MACHINE, "", "what to know of the base, said when it is loaded")
    compile: bool = key(MACHINE, False, "compile the transformer's blocks: faster steps after a minute or so")

    joint_passes: bool = key(MEMORY, True, "a step's forward passes as one batch: faster, and all their memory at once")
    gradient_checkpointing: bool = key(MEMORY, False, "less memory for about a third more time")
    cache_folder: str = key(MEMORY, "", 'where latents and embeddings of captioned images are kept by their content, safe to delete; "": nowhere', **PATH_OR_NONE)
    batch_size_gen: int = key(MEMORY, 8, "most images in one forward pass, of several seeds and scales", ge=1, le=4096)

    pretrained_model_name_or_path: str = key(BASE, "black-forest-labs/FLUX.1-dev", "a folder in diffusers layout, or a hub id", **A_PATH)
    resolution: int = key(BASE, 512, "side of the square whose area images have; a multiple that the family says", ge=1, le=8192)
    dtype: str = key(BASE, "bfloat16", "of the frozen base; adapters are always float32", one_of=("float32", "bfloat16"))
    quantization: str = key(BASE, "none", "of the frozen base's blocks: nf4 by bitsandbytes, int8 and fp8 by torchao", one_of=("none", "nf4", "int8", "fp8"))
    max_sequence_length: int = key(BASE, 512, "tokens a prompt", ge=1)

    datasets_folder: str = key(DATA, "datasets", "where datasets lie; of text sliders, prompt files", **PATH_OR_NONE)
    datasets: list[str] = key(DATA, ["glasses"], "names of datasets, a run each", by_plan=True, **NAMES)
    source_folder: str = key(DATA, "source", "images before the edit", **A_PATH)
    target_folder: str = key(DATA, "target", "images after it", **A_PATH)
    pair_count: int = key(DATA, 0, "how many of the pairs to learn from, the first in order; 0: all", ge=0, by_plan=True)
    resize: str = key(DATA, "error", "error: any aspect ratio, and unequal sizes in a pair are one; the others make squares", one_of=("error", "stretch", "center_crop"))
    align: str = key(DATA, "none", "shift: a target that lies some pixels off its source is moved back", one_of=("none", "shift"))

    trigger: str = key(SUBJECT, "", "the word for the subject, in place of [trigger] in captions, or before them")
    class_word: str = key(SUBJECT, "", "what the subject is one of, such as person: with the trigger, the caption where no image has any")
    new_token: str = key(SUBJECT, "", 'a new word for the subject in trigger\'s place, such as <new1>, whose embedding is learned; "": none')
    token_init: str = key(SUBJECT, "person", "the word that new_token begins from, and that stands for it where it is not learned")
    token_lr: float = key(SUBJECT, 5e-3, "learning rate of new_token", gt=0)
    token_until: int = key(SUBJECT, 0, "steps in which new_token learns alone, before the LoRA does; 0: both in all", ge=0)
    token_t5: bool = key(SUBJECT, False, "new_token is learned for T5 as well, which then stays in memory")
    text_rank: int = key(SUBJECT, 0, "of a LoRA on CLIP's text encoder, learned with the other; 0: none", ge=0, le=8192)
    text_lr: float = key(SUBJECT, 1e-4, "learning rate of that LoRA", gt=0)
    class_prompt: str = key(SUBJECT, "", 'of images of the class; "": a photo of a CLASS_WORD')
    prior: str = key(SUBJECT, "none", "what keeps the class as it is: images of it; base, the base's own velocity without the subject's word", one_of=("none", "images", "base"))
    prior_weight: float = key(SUBJECT, 1.0, "of the prior's loss", ge=0)
    prior_folder: str = key(SUBJECT, "", 'images of the class; what is missing is generated; "": all, in output_folder', **PATH_OR_NONE)
    prior_count: int = key(SUBJECT, 64, "images of the class", ge=1, le=100_000)
    shuffle_caption: bool = key(SUBJECT, False, "the tags of a caption in a new order each time")
    keep_tokens: int = key(SUBJECT, 0, "tags in front that are neither moved nor dropped", ge=0)
    caption_drop: float = key(SUBJECT, 0.0, "how often a caption is left out", ge=0, le=1)
    tag_drop: float = key(SUBJECT, 0.0, "how often each tag is left out", ge=0, le=1)
    resolutions: list[int] = key(SUBJECT, [], "in place of resolution: each image is learned at every one of them", ge=1)
    flip: bool = key(SUBJECT, False, "each image mirrored half the time; not for faces that differ left and right")

    python_name: str = key(METHOD, "train_image", "the method, by its script's name", by_plan=True)
    config_name: str = key(METHOD, "base", "a label of your own in the names of runs", by_plan=True, **A_NAME)
    start_step: int = key(METHOD, 0, "first step index drawn in training, of num_inference_steps", ge=0)
    end_step: int = key(METHOD, 27, "last one; left out everywhere, or -1, the last step", ge=LAST_STEP)
    timesteps: str = key(METHOD, "steps", "noise levels of captioned images: the sampler's own of start_step to end_step, or over all", one_of=("steps", "uniform", "logit_normal", "shifted"))
    timestep_shift: float = key(METHOD, 1.0, "moves uniform and logit_normal to more noise: s sigma / (1 + (s - 1) sigma)", gt=0)
    num_inference_steps: int = key(METHOD, 28, "steps from noise to image", ge=1)
    guidance_scale: float = key(METHOD, 3.5, "of a base that has guidance distilled, as FLUX.1-dev; of true guidance, as FLUX.2 has it, in sampling alone", ge=0)
    train_guidance: float = key(METHOD, 0.0, "guidance_scale while captioned images are learned; 0: guidance_scale", ge=0)
    cfg_eta: float = key(METHOD, 4.0, "eta, the strength of the guidance direction source - target")
    noise_scales: list[float] = key(METHOD, [1.0], "beta of the content-preserving schedule, a run each", ge=0, filled=True, by_plan=True)

    train_method: str = key(TRAINING, "full", "which linear layers carry the LoRA")
    rank: int = key(TRAINING, 16, "of the LoRA", ge=1, le=8192)
    alpha: float = key(TRAINING, 1.0, "the LoRA acts by alpha / rank", gt=0)
    lr: float = key(TRAINING, 2e-3, "learning rate", gt=0)
    optimizer: str = key(TRAINING, "adamw", "adamw8bit is bitsandbytes'; prodigy finds its rate, lr is then a factor, 1", one_of=("adamw", "adamw8bit", "prodigy"))
    weight_decay: float = key(TRAINING, 0.01, "of the optimizer, decoupled from its rate as in AdamW", ge=0)
    max_grad_norm: float = key(TRAINING, 0.0, "gradients beyond this norm, of all weights together, are scaled down to it; 0: none", ge=0)
    ema_decay: float = key(TRAINING, 0.0, "what is saved is the moving mean of the weights, which keeps this share of itself each step; 0: the last", ge=0, le=0.999999)
    lr_scheduler: str = key(TRAINING, "constant", "how lr falls to the last step, as diffusers names it", one_of=("constant", "linear", "cosine", "constant_with_warmup", "cosine_with_restarts"))
    lr_warmup_steps: int = key(TRAINING, 0, "steps in which lr rises from 0, for all but constant", ge=0)
    batch_size: int = key(TRAINING, 1, "samples a step, of each process", ge=1, le=4096)
    train_iteration: int = key(TRAINING, 500, "optimizer steps", ge=1)
    train_epochs: int = key(TRAINING, 0, "of captioned images, in place of train_iteration; 0: that", ge=0, le=1_000_000)
    init_lora: str = key(TRAINING, "", "a LoRA that training goes on from, of the same rank, in place of a new one", **PATH_OR_NONE)
    train_start: int = key(TRAINING, 1, "number of the first version", by_plan=True, **SEED)
    train_count: int = key(TRAINING, 1, "how many versions, each with a seed of its own (seed + version)", ge=1, by_plan=True)
    seed: int = key(TRAINING, 0, "of all that is random", **SEED)

    output_folder: str = key(SAVING, "output/models/image/", "where runs are written", by_plan=True, **A_PATH)
    save_per_steps: int = key(SAVING, 500, "steps between two saves: the LoRA so far, and the state that --resume takes", ge=1)
    save_per_epochs: int = key(SAVING, 0, "of captioned images, in place of save_per_steps; 0: that", ge=0, le=1_000_000)
    save_total_limit: int = key(SAVING, 0, "how many LoRAs of earlier steps are kept; 0: all", ge=0)
    sample_per_steps: int = key(SAVING, 0, "steps between two grids of pictures in samples/ and the tracker; 0: none", ge=0)
    sample_prompts: list[str] = key(SAVING, [], "of those pictures, of captioned images; none: the first caption", commas=False)
    resume: bool = key(SAVING, False, "resume from the last save, as --resume does")
    other_code: bool = key(SAVING, False, "keep trainings and figures that other code made, which are else made anew")
    log_every: int = key(SAVING, 10, "steps between two lines of the loss log", ge=1)
    calibrate: int = key(SAVING, 4, "images a scale by which the slider of an edit is calibrated when training ends; 0: not", ge=0, le=1024)
    report_to: str = key(SAVING, "tensorboard", "the tracker of losses and samples; wandb needs its extra", one_of=("tensorboard", "wandb", "none"))
    push_to_hub: str = key(SAVING, "", "OWNER/NAME on the hub, for a config of one run: the LoRA and its card are uploaded")

    prompt: list[str] = key(GENERATION, ["image of a person"], "one a dataset, the last goes on", filled=True, commas=False, expected="at least one prompt")
    use_prompts_file: bool = key(GENERATION, False, "the prompts of prompts_file in turn, one a seed, in place of prompt")
    prompts_file: list[str] = key(GENERATION, ["prompts-person.yaml"], "YAML lists in prompts/, one a dataset", filled=True, check=is_path, expected="at least one entry", path=True)
    skips: list[int] = key(GENERATION, [14], "step index from which the adapter is active, a row each", ge=0, filled=True)
    width: int = key(GENERATION, 0, "of generated images, in pixels; 0: resolution", ge=0, le=8192)
    height: int = key(GENERATION, 0, "of generated images, in pixels; 0: resolution", ge=0, le=8192)
    locality: bool = key(GENERATION, False, "hold edited images to the unedited one where the edit does little; off for styles")

    use_trained_lora_path: bool = key(IMAGES, False, "apply trained_lora_path in place of each run's own LoRA")
    trained_lora_path: list[str] = key(IMAGES, [], "LoRA files; several act together", commas=False, check=is_path, expected="a list of paths", path=True)
    other_base: bool = key(IMAGES, False, "apply LoRAs that say they were trained on another base all the same")
    scales: list[float] = key(IMAGES, [], "slider scales; auto: the usable range that the LoRA's calibration found, or 0 to 1", filled=True, auto=True)
    lora_scales: list[list[float]] = key(IMAGES, [], "for several trained_lora_path, one list each, every combination; none: scales for all", commas=False)
    lora_skips: list[int] = key(IMAGES, [], "for several trained_lora_path, the step from which each acts, if later than skips; none: skips", ge=0)
    use_random_seed: bool = key(IMAGES, False, "other seeds every time")
    start_seed_gen: int = key(IMAGES, 6666, "the first seed", **SEED)
    count_gen: int = key(IMAGES, 2, "images (seeds) for each run and skip", ge=1)
    save_gif: bool = key(IMAGES, False, "beside a seed's grid, a GIF of the slider moving there and back for each skip")
    output_folder_gen: str = key(IMAGES, "output/eval/image/", "where images are written", **A_PATH)

    image_ids: list[str] = key(PHOTOGRAPHS, [], "stems in the source folder; none: all of them")
    semantic_lora_path: str = key(PHOTOGRAPHS, "", "the edit, a LoRA file", **PATH_OR_NONE)
    semantic_cfg_scale: float = key(PHOTOGRAPHS, 0.75, "w, the strength of the edit beside the inversion LoRA")
    inversion: str = key(PHOTOGRAPHS, "lora", "how a photograph is found in the flow; see docs/photographs.md", one_of=("lora", "euler", "rf_solver", "fireflow", "rf_inversion", "flowedit", "flowslider"))
    inversion_rule: str = key(PHOTOGRAPHS, "difference", "how the edit joins an inversion LoRA", one_of=("difference", "joint", "authors"))

    judge: str = key(MEASURING, "pairs", "what says how far an edit has got: pairs, by what the base sees; clip (and dinov2); probe, the face world's own, pairs for other edits", one_of=("pairs", "clip", "probe"))
    clip_weights: str = key(MEASURING, "openai/clip-vit-large-patch14", "CLIP", **PATH_OR_NONE)
    dinov2_weights: str = key(MEASURING, "facebook/dinov2-base", "DINOv2", **PATH_OR_NONE)
    lpips_alex_weights: str = key(MEASURING, "torchvision", "LPIPS's AlexNet; torchvision fetches its own", **PATH_OR_NONE)
    lpips_vgg_weights: str = key(MEASURING, "torchvision", "LPIPS's VGG", **PATH_OR_NONE)
    arcface_weights: str = key(MEASURING, "", "ArcFace, an .onnx file", **PATH_OR_NONE)
    inception_weights: str = key(MEASURING, "", "torch-fidelity's file for FID and KID; torch-fidelity fetches it", **PATH_OR_NONE)
    # fmt: on

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of generated images."""
        return self.width or self.resolution, self.height or self.resolution


KEYS: dict[str, Any] = kinds_of(Config)
"""Key -> its type."""


def coerce(key: str, value: Any) -> Any:
    """A key's value out of a YAML's; see utils/config/keys.py."""
    return coerce_key(Config, key, value)


def choices(key: str) -> tuple[str, ...]:
    """The values that a key may have, where its line lists them."""
    return keys_of(Config)[key].one_of


def depends_on(what: str) -> frozenset[str]:
    """The keys of all groups with a flag of `Group`: "trains", "measured" or "shared"."""
    return frozenset(name for name, own in keys_of(Config).items() if getattr(own.group, what))


def drawn_by() -> frozenset[str]:
    """The keys that every image depends on beside its LoRA, prompt, skip and scale."""
    return frozenset({*groups()[BASE], "num_inference_steps", "guidance_scale"})


def made_by_plan() -> frozenset[str]:
    """The keys that the plan of a study makes."""
    return frozenset(name for name, own in keys_of(Config).items() if own.by_plan)


def groups() -> dict[Group, list[str]]:
    """The keys of each group, in order."""
    by_group: dict[Group, list[str]] = {}
    for each in fields(Config):
        by_group.setdefault(each.metadata["key"].group, []).append(each.name)
    return by_group


def of_captions_alone(config: Config) -> list[str]:
    """The keys set in a config that make a difference to methods of captioned images alone."""
    known = [*groups()[SUBJECT], "timesteps", "timestep_shift", "train_guidance"]
    known += ["train_epochs", "save_per_epochs", "sample_prompts"]
    plain = Config()
    return [name for name in known if getattr(config, name) != getattr(plain, name)]


def warmup_faults(config: Config) -> list[str]:
    """What is wrong with lr_warmup_steps, by the steps of the training."""
    if config.lr_warmup_steps < config.train_iteration:
        return []
    return [
        f"lr_warmup_steps: expected fewer than {config.train_iteration} (train_iteration), "
        f"found {config.lr_warmup_steps}"
    ]


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
    if not config.train_epochs:  # else they are not known yet
        faults += warmup_faults(config)
    if config.timestep_shift != 1 and config.timesteps not in ("uniform", "logit_normal"):
        faults.append(
            f"timestep_shift: expected 1, since timesteps is {config.timesteps}, not uniform or logit_normal; "
            f"found {config.timestep_shift:g}"
        )
    if config.prior == "base" and not (config.trigger or config.new_token):
        faults.append("trigger: expected the word for the subject, since prior is base; found none")
    if config.optimizer == "prodigy" and config.lr < LEAST_FACTOR:
        faults.append(
            f"lr: expected {LEAST_FACTOR:g} or more, 1 as a rule, since prodigy finds the rate itself and lr is "
            f"a factor on it; found {config.lr:g}"
        )
    if config.quantization != "none" and config.dtype != "bfloat16":
        faults.append(f"dtype: expected bfloat16, since quantization is on; found {config.dtype}")
    loras = len(config.trained_lora_path) if config.use_trained_lora_path else 1
    if config.lora_skips and len(config.lora_skips) != loras:
        faults.append(
            f"lora_skips: expected a step for each of {loras} LoRAs (trained_lora_path, with "
            f"use_trained_lora_path on), found {len(config.lora_skips)}"
        )
    if config.lora_scales and len(config.lora_scales) != loras:
        faults.append(
            f"lora_scales: expected a list of scales for each of {loras} LoRAs (trained_lora_path, with "
            f"use_trained_lora_path on), found {len(config.lora_scales)}"
        )
    return faults
