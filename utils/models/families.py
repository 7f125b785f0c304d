"""The families of base models: a row each, the facts that are known without loading one.

A family is found by the pipeline that its model_index.json names; how its prompts, images and velocities are
computed is a file of its own beside this one, imported when a base is loaded. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from utils.errors import UserError, nearest
from utils.machine import resolve_model_path
from utils.models.family import IMAGE_STREAM, TEXT_STREAM, Family, LoraNames
from utils.models.flux2_family import FLUX2
from utils.models.text_names import CLIP_L, T5_XXL


def name_of(family: Family) -> str:
    """A family's key in FAMILIES."""
    return next(name for name, each in FAMILIES.items() if each is family)


def family_named(pipeline: str) -> Family:
    """The family of a pipeline's class; raises `UserError`, naming those there are, for any other."""
    for family in FAMILIES.values():
        if family.pipeline == pipeline:
            return family
    known = {family.pipeline for family in FAMILIES.values()}
    raise UserError(
        f"pretrained_model_name_or_path: expected a pipeline of {', '.join(sorted(known))}, "
        f"found {pipeline!r}{nearest(pipeline, known)}"
    )


def family_of(transformer: object) -> Family:
    """The family of a transformer; raises `UserError`, naming those there are, for one of none."""
    classes = [each.__name__ for each in type(transformer).__mro__]  # FSDP wraps the class in one of its own
    for family in FAMILIES.values():
        if family.transformer in classes:
            return family
    known = ", ".join(family.transformer for family in FAMILIES.values())
    raise UserError(f"transformer: expected one of {known}, found {classes[0]}")


def family_at(path: str) -> Family | None:
    """The family of the model in a folder, or of a hub id that was loaded before; None for any other id."""
    index = local_index(path)
    return None if index is None else family_named(pipeline_in(index))


def pixel_multiple_at(name: str) -> int:
    """Of which image sides are multiples with a model as a config names it; one not there yet: with all."""
    family = family_at(resolve_model_path(name))
    if family is not None:
        return family.pixel_multiple
    return math.lcm(*(each.pixel_multiple for each in FAMILIES.values()))


def local_index(path: str) -> Path | None:
    """The model_index.json of a folder, or of a hub id in the hub's cache, if it is there."""
    index = Path(path) / "model_index.json"
    if index.is_file():
        return index
    if Path(path).is_dir():
        return None

    from huggingface_hub import try_to_load_from_cache  # takes a tenth of a second, which a folder need not
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(path, index.name)
    except HFValidationError:  # no hub id either
        return None
    return Path(cached) if isinstance(cached, str) else None


def pipeline_in(index: Path) -> str:
    """The pipeline that a model_index.json names; raises `UserError` if it is none."""
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{index}: expected a diffusers model_index.json, found: {reason}") from None


def train_methods() -> list[str]:
    """Every train_method that some family knows."""
    return list(dict.fromkeys(name for family in FAMILIES.values() for name in family.targets))


def presets_beside(base: str) -> dict[str, int]:
    """The presets of the family that a base in config/base/ is a preset of; {} for any other base."""
    return next((dict(each.presets) for each in FAMILIES.values() if base in each.presets), {})


_DOUBLE = (
    *(*IMAGE_STREAM, *TEXT_STREAM),
    *(f"{ff}.net.{part}" for ff in ("ff", "ff_context") for part in ("0.proj", "2")),
    *("norm1.linear", "norm1_context.linear"),
)
_SINGLE = (*IMAGE_STREAM[:3], "proj_mlp", "proj_out", "norm.linear")

# FLUX has no separate cross-attention: double blocks attend jointly over text and image with a set of
# projections for each stream, single blocks over both with one set (to_q, to_k, to_v; their output projection
# lies outside attention). So "xattn" is the text stream, the part of attention that text conditions through,
# and "xattn-strict" its keys and values. "blocks" is every linear of the blocks, as other trainers have it.
_FLUX1 = Family(
    pipeline="FluxPipeline",
    base="utils.models.flux1:Flux1",
    transformer="FluxTransformer2DModel",
    pixel_multiple=16,  # the VAE shrinks by 8, and a token is 2 x 2 latents
    targets={
        "full": (*IMAGE_STREAM, *TEXT_STREAM),
        "image": IMAGE_STREAM,
        "xattn": TEXT_STREAM,
        "xattn-strict": ("attn.add_k_proj", "attn.add_v_proj"),
        "blocks": tuple(dict.fromkeys((*_DOUBLE, *_SINGLE))),
    },
    blocks=("transformer_blocks", "single_transformer_blocks"),
    lora=LoraNames(
        linears={
            "transformer_blocks": _DOUBLE,
            "single_transformer_blocks": _SINGLE,
            "": (
                *("x_embedder", "context_embedder", "norm_out.linear", "proj_out"),
                *(
                    f"time_text_embed.{part}_embedder.linear_{number}"
                    for part in ("timestep", "guidance", "text")
                    for number in (1, 2)
                ),
            ),
        },
        original={
            "double_blocks": (
                "transformer_blocks",
                {
                    "img_attn_qkv": IMAGE_STREAM[:3],
                    "txt_attn_qkv": TEXT_STREAM[:3],
                    "img_attn_proj": IMAGE_STREAM[3:],
                    "txt_attn_proj": TEXT_STREAM[3:],
                    "img_mlp_0": ("ff.net.0.proj",),
                    "img_mlp_2": ("ff.net.2",),
                    "txt_mlp_0": ("ff_context.net.0.proj",),
                    "txt_mlp_2": ("ff_context.net.2",),
                    "img_mod_lin": ("norm1.linear",),
                    "txt_mod_lin": ("norm1_context.linear",),
                },
            ),
            "single_blocks": (
                "single_transformer_blocks",
                {
                    "linear1": (*IMAGE_STREAM[:3], "proj_mlp"),
                    "linear2": ("proj_out",),
                    "modulation_lin": ("norm.linear",),
                },
            ),
        },
        original_outside={
            "img_in": "x_embedder",
            "txt_in": "context_embedder",
            "final_layer_linear": "proj_out",
            "final_layer_adaLN_modulation_1": "norm_out.linear",
            **{
                f"{module}_{layer}": f"time_text_embed.{embedder}_embedder.linear_{number}"
                for module, embedder in (
                    ("time_in", "timestep"),
                    ("guidance_in", "guidance"),
                    ("vector_in", "text"),
                )
                for number, layer in ((1, "in_layer"), (2, "out_layer"))
            },
        },
        original_aliases={
            # processor: XLabs' LoRAs, which sit in its attention processors
            "double_blocks": {
                "processor_qkv_lora1": IMAGE_STREAM[:3],
                "processor_qkv_lora2": TEXT_STREAM[:3],
                "processor_proj_lora1": IMAGE_STREAM[3:],
                "processor_proj_lora2": TEXT_STREAM[3:],
            },
            "single_blocks": {
                "processor_qkv_lora": IMAGE_STREAM[:3],
                "processor_proj_lora": ("proj_out",),
                "linear1_qkv": IMAGE_STREAM[:3],  # ComfyUI's, without the MLP
            },
        },
        swapped=("norm_out.linear",),  # shift and scale there, scale and shift in diffusers
        wider={"proj_mlp": 4},  # the MLP's hidden size
        sizes={
            "double_blocks": {
                **{f"{stream}_mlp_0": (4, 1) for stream in ("img", "txt")},
                **{f"{stream}_mlp_2": (1, 4) for stream in ("img", "txt")},
            },
            "single_blocks": {"linear1": (7, 1), "linear2": (1, 5)},
        },
        network_module="networks.lora_flux",
        architectures=("flux-1-dev", "flux-1-schnell"),
        text=(CLIP_L, T5_XXL),
    ),
    presets={"flux_dev": 40, "flux_dev_24gb": 24, "flux_dev_16gb": 16, "flux_dev_12gb": 12},
    tags=("flux",),
)

FAMILIES: dict[str, Family] = {"flux1": _FLUX1, "flux2": FLUX2}
