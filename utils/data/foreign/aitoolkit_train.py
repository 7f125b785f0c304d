"""ai-toolkit's table `train`: steps, optimizer, noise levels and losses."""

from __future__ import annotations

from typing import Any

from utils.data.foreign.rows import Table, becomes, each, flag, idle, joint, number, one_of, refused, same

_LOSS = "the loss is the squared error of the velocity"
_NOISE = "the noise is standard normal, and images as they are"
_PROMPT = "captions are learned as they are written, beside [trigger], shuffling and dropping"
_PRIOR = "prior: base and prior: images are what there is to keep the base as it was"
_LRS = "one rate holds for all that is trained"
_SPEED = "speed or memory alone"

OPTIMIZERS: dict[str, str] = {"adamw": "adamw", "adamw8bit": "adamw8bit", "prodigy": "prodigy"}
"""Its optimizers -> the key optimizer."""

SCHEDULERS: dict[str, str] = {"constant": "constant", "constant_with_warmup": "constant_with_warmup"}
"""Its schedules that there are here; its cosine and linear are torch's, which end elsewhere."""

TIMESTEPS: dict[str, tuple[str, str]] = {
    "sigmoid": ("logit_normal", "the same distribution"),
    "linear": ("uniform", "the same distribution"),
    **dict.fromkeys(
        ("shift", "flux_shift"),
        ("steps", "all levels that sampling has at the image's size, where it has a thousand in between"),
    ),
}
"""Its timestep_type -> the key timesteps, and how alike they are."""


def _dtype(value: Any) -> str:
    known = {
        **dict.fromkeys(("bf16", "bfloat16"), "bfloat16"),
        **dict.fromkeys(("float32", "fp32", "float"), "float32"),
        **dict.fromkeys(("fp16", "float16", "half"), "bfloat16"),
    }
    return str(one_of(known)(value))


TRAIN: Table = {
    **each(joint(), "steps batch_size gradient_accumulation_steps gradient_accumulation"),
    **each(joint(), "lr unet_lr optimizer optimizer_params"),
    **each(joint(), "lr_scheduler lr_scheduler_params ema_config"),
    **each(joint(), "timestep_type linear_timesteps linear_timesteps2"),
    **each(
        joint(), "diff_output_preservation diff_output_preservation_multiplier diff_output_preservation_class"
    ),
    "disable_sampling": joint(False),
    "dtype": becomes("dtype", _dtype, "of the frozen base; LoRAs are float32", default="bf16"),
    "gradient_checkpointing": becomes("gradient_checkpointing", flag, default=True),
    "max_grad_norm": same("max_grad_norm", default=1.0),
    "cfg_scale": becomes("train_guidance", number, "FLUX's guidance in training", default=1.0),
    "reg_weight": same("prior_weight"),
    "train_unet": refused("the LoRA is on the transformer", True),
    "train_text_encoder": refused("text encoders are not trained", False),
    "noise_scheduler": refused("FLUX is learned by flow matching", "flowmatch", default="ddpm"),
    "content_or_style": refused("noise levels are drawn as timesteps says", "balanced"),
    "min_denoising_steps": refused("noise levels are drawn from all", 0),
    "max_denoising_steps": refused("noise levels are drawn from all", 999, 1000),
    "num_train_timesteps": refused("noise levels are 0 to 1000", 1000),
    "loss_type": refused(_LOSS, "mse"),
    "loss_target": refused(_LOSS, "noise"),
    **each(
        refused(_LOSS, False),
        "t0_loss_target do_fft_loss t0_velocity_equiv_weight do_fft_velocity_equiv_weight "
        "learnable_snr_gos correct_pred_norm do_guidance_loss do_guidance_loss_cfg_zero "
        "do_differential_guidance train_turbo do_blank_stabilization match_noise_norm",
    ),
    **each(refused(_LOSS, 1), "pred_scaler"),
    **each(
        refused(_LOSS),
        "min_snr_gamma snr_gamma target_norm_std max_loss latent_feature_extractor_path "
        "diffusion_feature_extractor_path",
    ),
    **each(refused(_NOISE, 0), "noise_offset random_noise_shift random_noise_multiplier weight_jitter"),
    **each(
        refused(_NOISE, 1),
        "noise_multiplier target_noise_multiplier img_multiplier noisy_latent_multiplier "
        "latent_multiplier optimal_noise_pairing_samples",
    ),
    **each(
        refused(_NOISE, False),
        "dynamic_noise_offset do_signal_correction_noise do_batch_noise_correction free_u "
        "do_signal_amplification force_consistent_noise blended_blur_noise standardize_images "
        "standardize_latents adaptive_scaling_factor",
    ),
    **each(refused("one forward pass a sample is trained", False), "do_cfg do_random_cfg"),
    **each(refused(_PROMPT, 0), "prompt_dropout_prob prompt_saturation_chance"),
    **each(refused(_PROMPT, False), "short_and_long_captions short_and_long_captions_encoder_split"),
    "negative_prompt": refused(_PROMPT, ""),
    **each(refused(_PRIOR, False), "inverted_mask_prior do_prior_divergence blank_prompt_preservation"),
    "bypass_guidance_embedding": refused("FLUX.1-dev is trained with its guidance", False),
    "single_item_batching": refused("a batch is one", False),
    "merge_network_on_save": refused("a LoRA is saved", False),
    "do_paramiter_swapping": refused("all weights are trained in every step", False),
    "start_step": refused("--resume continues, from the last save", 0),
    **each(refused("there is none of this in training"), "adapter_assist_name_or_path validation_config"),
    "match_adapter_chance": refused("there is none of this in training", 0),
    **each(idle(_LRS), "text_encoder_lr refiner_lr embedding_lr adapter_lr"),
    **each(
        idle(_SPEED),
        "xformers sdp attention_backend unload_text_encoder cache_text_embeddings max_loss_debug",
    ),
    **each(
        idle("pictures are drawn every sample_per_steps"),
        "skip_first_sample force_first_sample show_turbo_outputs",
    ),
    **each(
        idle("of other models"),
        "switch_boundary_every train_refiner audio_loss_multiplier next_sample_timesteps",
    ),
    **each(
        idle("of something that is off"),
        "signal_amplification_strength signal_correction_noise_scale batch_noise_correction_scale "
        "inverted_mask_prior_multiplier blank_prompt_preservation_multiplier max_cfg_scale "
        "correct_pred_norm_multiplier latent_feature_loss_weight guidance_loss_target "
        "guidance_loss_schedule differential_guidance_scale unconditional_prompt cfg_rescale "
        "diffusion_feature_extractor_weight merge_network_on_save_strength adapter_assist_type "
        "paramiter_swapping_factor target_norm_std_value max_negative_prompts "
        "match_adapter_assist",
    ),
}

EMA: Table = {
    "use_ema": joint(False),
    "ema_decay": joint(),
    "use_feedback": refused("the mean does not act on the weights", False),
    "param_multiplier": refused("the mean does not act on the weights", 1),
}

OPTIMIZER_PARAMS: Table = {
    "weight_decay": joint(),
    "betas": refused("the optimizer's own", [0.9, 0.999]),
    "eps": idle("1e-8 here, 1e-6 there where it is left out"),
}
