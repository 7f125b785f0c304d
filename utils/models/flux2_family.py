"""FLUX.2 [klein]: the facts that are known without loading one, and the names of its linears."""

from __future__ import annotations

from utils.models.family import IMAGE_STREAM, TEXT_STREAM, Family, LoraNames

# A single block's attention and MLP are one linear in, and one out.
_FUSED = ("attn.to_qkv_mlp_proj", "attn.to_out")

_MLPS = {"img": "ff", "txt": "ff_context"}
_MODULATIONS = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")

_NAMES = LoraNames(
    linears={
        "transformer_blocks": (
            *(*IMAGE_STREAM, *TEXT_STREAM),
            *(f"{ff}.linear_{side}" for ff in _MLPS.values() for side in ("in", "out")),
        ),
        "single_transformer_blocks": _FUSED,
        "": (
            *("x_embedder", "context_embedder", "norm_out.linear", "proj_out"),
            *(f"{modulation}.linear" for modulation in _MODULATIONS),
            *(
                f"time_guidance_embed.{part}_embedder.linear_{number}"
                for part in ("timestep", "guidance")
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
                **{f"{stream}_mlp_0": (f"{ff}.linear_in",) for stream, ff in _MLPS.items()},
                **{f"{stream}_mlp_2": (f"{ff}.linear_out",) for stream, ff in _MLPS.items()},
            },
        ),
        "single_blocks": (
            "single_transformer_blocks",
            {"linear1": (_FUSED[0],), "linear2": (_FUSED[1],)},
        ),
    },
    original_outside={
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "final_layer_linear": "proj_out",
        "final_layer_adaLN_modulation_1": "norm_out.linear",
        **{f"{modulation}_lin": f"{modulation}.linear" for modulation in _MODULATIONS},
        **{
            f"{module}_{layer}": f"time_guidance_embed.{embedder}_embedder.linear_{number}"
            for module, embedder in (("time_in", "timestep"), ("guidance_in", "guidance"))
            for number, layer in ((1, "in_layer"), (2, "out_layer"))
        },
    },
    swapped=("norm_out.linear",),
    sizes={  # the MLP is three times as wide, and gated
        "double_blocks": {
            **{f"{stream}_mlp_0": (6, 1) for stream in _MLPS},
            **{f"{stream}_mlp_2": (1, 3) for stream in _MLPS},
        },
        "single_blocks": {"linear1": (9, 1), "linear2": (1, 4)},
    },
)

FLUX2 = Family(
    pipeline="Flux2KleinPipeline",
    base="utils.models.flux2:Flux2",
    transformer="Flux2Transformer2DModel",
    pixel_multiple=16,  # the VAE shrinks by 8, and 2 x 2 of what it gives are one latent
    targets={
        "full": (*IMAGE_STREAM, *TEXT_STREAM, *_FUSED),
        "image": (*IMAGE_STREAM, *_FUSED),
        "xattn": TEXT_STREAM,
        "xattn-strict": ("attn.add_k_proj", "attn.add_v_proj"),
    },
    blocks=("transformer_blocks", "single_transformer_blocks"),
    lora=_NAMES,
    presets={"flux2_klein_4b": 24, "flux2_klein_4b_16gb": 16, "flux2_klein_4b_12gb": 12},
    tags=("flux2",),
)
