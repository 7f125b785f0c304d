"""ai-toolkit's keys, those of FLUX.1: process[0] and its tables beside train and datasets."""

from __future__ import annotations

from typing import Any

from utils.data.foreign.rows import (
    Table,
    becomes,
    each,
    flag,
    idle,
    joint,
    number,
    refused,
    same,
    whole,
)

_OTHER = "what is trained is a LoRA on the transformer, by captioned images"
_MODEL = "the parts of a model are those of its folder"
_UI = "of its own interface"
_VIDEO = "of video"

PROCESS: Table = {
    "type": joint(),
    "training_folder": same("output_folder"),
    "device": same("device"),
    "trigger_word": same("trigger"),
    "training_seed": same("seed"),
    **each(joint(), "network save datasets train model sample logging"),
    **each(idle(_UI), "name sqlite_db_path log_dir"),
    "performance_log_every": idle("speed is in tensorboard/ and record.json"),
    "torch_profiler": idle("it measures speed"),
    "first_sample": idle("pictures are drawn every sample_per_steps"),
    "do_lorm": refused(_OTHER, False),
    **each(idle("of LoRM, which is off"), "lorm_extract_mode lorm_extract_mode_param"),
    **each(refused(_OTHER), "adapter embedding decorator guidance slider"),
}

NETWORK: Table = {
    "type": refused("LoKr and others have other weights than a LoRA", "lora"),
    "linear": joint(),
    "rank": joint(),
    "linear_alpha": joint(),
    "alpha": joint(),
    "dropout": refused("a LoRA's inputs are not dropped out", 0),
    "network_kwargs": joint(),
    "transformer_only": refused("linears outside the blocks get no LoRA", True),
    "pretrained_lora_path": same("init_lora"),
    "all_layers": refused("layers that are not linear are not trained", False),
    "lorm": refused(_OTHER),
    **each(idle("FLUX has no convolutions"), "conv conv_alpha"),
    **each(idle("of LoKr, which is not what is trained"), "lokr_full_rank lokr_factor old_lokr_format"),
    "split_multistage_loras": idle("of models in several stages"),
    "layer_offloading": idle("the base stays on its device"),
}

SAVE: Table = {
    "save_every": joint(1000),
    "dtype": idle("LoRAs are saved as they are trained, in float32"),
    "max_step_saves_to_keep": same("save_total_limit", default=5),
    "save_format": idle("the file has diffusers' names of layers"),
    "push_to_hub": joint(False),
    "hf_repo_id": joint(),
    "hf_private": idle("a repository that is there keeps its visibility, a new one is public"),
}

LOGGING: Table = {
    "log_every": same("log_every"),
    "use_wandb": becomes("report_to", lambda value: "wandb" if flag(value) else "tensorboard"),
    **each(idle(_UI), "verbose use_ui_logger project_name run_name"),
}

MODEL: Table = {
    "name_or_path": joint(),
    **each(joint(), "is_flux arch quantize qtype"),
    **each(
        refused("the base is FLUX.1", False),
        "is_v2 is_xl is_pixart is_pixart_sigma is_auraflow is_v3 is_lumina2 is_ssd is_vega "
        "is_v_pred experimental_xl use_flux_cfg in_context",
    ),
    **each(refused(_MODEL), "vae_path unet_path te_name_or_path extras_name_or_path refiner_name_or_path"),
    **each(refused(_MODEL, {}), "model_kwargs model_paths quantize_kwargs"),
    "lora_path": refused("no LoRA is merged into the base", ""),
    "assistant_lora_path": refused("no LoRA helps while another is trained", ""),
    "unconditional_lora_path": refused("no LoRA helps while another is trained", ""),
    "inference_lora_path": idle("it acts on samples alone"),
    "accuracy_recovery_adapter": refused("no adapter makes up for quantization"),
    "attn_masking": refused("attention sees the padding of prompts, as FLUX was trained", False),
    "dtype": idle("train.dtype says it"),
    **each(
        idle("text encoders go once all captions are encoded, before the transformer comes"),
        "quantize_te qtype_te text_encoder_bits te_device te_dtype",
    ),
    **each(idle("the VAE goes once all images are encoded"), "vae_device vae_dtype"),
    **each(
        idle("the base stays on its device; base=flux_dev_16gb and others are for smaller cards"),
        "low_vram auto_memory layer_offloading layer_offloading_transformer_percent "
        "layer_offloading_text_encoder_percent split_model_over_gpus "
        "split_model_other_module_param_count_scale ignore_if_contains only_if_contains",
    ),
    "compile": becomes("compile", flag),
    "block_compile": idle("compile=1 compiles the blocks"),
    **each(
        idle("compile=1 has ways of its own"),
        "compile_mode compile_fullgraph compile_dynamic cache_size_limit",
    ),
    **each(
        idle("of other models"),
        "refiner_start_at latent_space_version use_text_encoder_1 use_text_encoder_2 unet_sample_size",
    ),
}

SAMPLE: Table = {
    "sample_every": joint(),
    "sampler": idle("samples take Euler steps of the flow"),
    "sample_start_step": idle("pictures are drawn every sample_per_steps"),
    "width": becomes("width", whole, "of pictures"),
    "height": becomes("height", whole, "of pictures"),
    "seed": becomes("start_seed_gen", whole, "of pictures"),
    "walk_seed": idle("each prompt is drawn from the same seeds, start_seed_gen and those after it"),
    "guidance_scale": becomes("guidance_scale", number, "of pictures; train_guidance is that of training"),
    "sample_steps": becomes("num_inference_steps", whole, "of pictures"),
    "prompts": joint(),
    "samples": joint(),
    "neg": idle("guidance is distilled: there is no negative prompt"),
    "network_multiplier": idle("pictures are drawn at all scales"),
    **each(
        idle("of other models"),
        "format guidance_rescale adapter_conditioning_scale refiner_start_at extra_values do_cfg_norm",
    ),
    **each(idle(_VIDEO), "num_frames fps"),
}

SAMPLE_ITEM: tuple[str, ...] = (
    *("prompt", "width", "height", "neg", "seed", "guidance_scale", "sample_steps", "network_multiplier"),
    *("ctrl_img", "ctrl_idx", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3", "fps", "num_frames", "do_cfg_norm"),
)
"""Keys of one of `samples`; all but the prompt have no effect."""

QUANTIZATION: dict[str, Any] = {
    **dict.fromkeys(("qfloat8", "float8"), "fp8"),
    **dict.fromkeys(("qint8", "int8"), "int8"),
}
"""ai-toolkit's qtype -> the key quantization."""
