"""Every flag of sd-scripts' flux_train_network.py: model, network, optimizer, noise levels, losses, saves."""

from __future__ import annotations

from typing import Any

from utils.data.foreign.rows import Table, becomes, each, flag, idle, joint, number, refused, same, whole

_PARTS = "the parts of a model are those of its folder"
_MEMORY = "speed or memory alone; base=flux_dev_16gb and others are for smaller cards"
_IDLE_THERE = "sd-scripts' training of FLUX takes no notice of it either"
_SD = "of other models"
_LOSS = "the loss is the squared error of the velocity"
_RESUME = "--resume continues, from the last save"
_HUB = "the LoRA and its card are uploaded when training ends"
_STATE = "the state of an unfinished training is always kept"
_CAPTIONS = "captions and images are encoded once; cache_folder keeps that on disk"
_LOG = "losses are in losses.jsonl and the tracker that report_to names"


def _guidance(value: Any) -> float:
    if (found := number(value)) > 0:
        return found
    raise ValueError(f"expected more than 0, as FLUX.1-dev has guidance distilled, found {found:g}")


def _tracker(value: Any) -> str:
    return "wandb" if value in ("wandb", "all") else str(value)


MODEL: Table = {
    "pretrained_model_name_or_path": joint(),
    **each(idle(_PARTS), "clip_l t5xxl ae vae"),
    "model_type": refused("the base is FLUX.1", "flux"),
    "t5xxl_max_token_length": becomes("max_sequence_length", whole),
    "apply_t5_attn_mask": refused("attention sees the padding of prompts, as FLUX was trained", False),
    "controlnet_model_name_or_path": refused("a LoRA is trained, no ControlNet"),
    **each(refused(_SD, False), "v2 v_parameterization"),
    **each(idle(_SD), "tokenizer_cache_dir clip_skip max_token_length"),
    **each(joint(), "mixed_precision fp8_base fp8_base_unet"),
    **each(idle("LoRAs are float32, the base is as dtype says"), "full_bf16 full_fp16 no_half_vae"),
    **each(
        idle(_MEMORY),
        "blocks_to_swap split_mode lowram highvram xformers sdpa mem_eff_attn vae_batch_size "
        "text_encoder_batch_size disable_mmap_load_safetensors cpu_offload_checkpointing deepspeed "
        "zero_stage offload_optimizer_device offload_optimizer_nvme_path offload_param_device "
        "offload_param_nvme_path zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients "
        "fused_backward_pass ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph dynamo_backend "
        "max_data_loader_n_workers persistent_data_loader_workers",
    ),
    "torch_compile": becomes("compile", flag),
    "gradient_checkpointing": becomes("gradient_checkpointing", flag),
}

NETWORK: Table = {
    "network_module": refused(
        "LoKr, OFT and others have other weights than a LoRA", "networks.lora_flux", default="none"
    ),
    "network_dim": same("rank", default=4),
    "network_alpha": same("alpha", default=1.0),
    "network_args": joint(),
    "network_weights": same("init_lora"),
    "dim_from_weights": refused("network_dim says it", False),
    "network_dropout": refused("a LoRA's inputs are not dropped out", 0),
    **each(joint(), "network_train_unet_only text_encoder_lr"),
    "network_train_text_encoder_only": refused("the LoRA is on the transformer", False),
    "scale_weight_norms": refused("a LoRA's weights are not scaled down", 0),
    "base_weights": refused("no LoRA is merged into the base"),
    "base_weights_multiplier": idle("of base_weights, of which there are none"),
    "training_comment": idle("the header has a place for the config alone"),
    "no_metadata": idle("a LoRA always says what it was trained on"),
}

NETWORK_ARGS: Table = {
    "train_blocks": refused("all blocks get a LoRA; train_method says which linears", "all"),
    "split_qkv": idle("q, k and v have a LoRA each, as they are linears of their own in diffusers"),
    "train_t5xxl": refused("text encoders are not trained", False),
    "verbose": idle("it says more"),
    **each(idle("FLUX has no convolutions"), "conv_dim conv_alpha"),
    **each(refused("parts of a LoRA are not dropped out", 0), "rank_dropout module_dropout"),
    **each(
        refused("one rank and one rate hold for all linears"),
        "img_attn_dim txt_attn_dim img_mlp_dim txt_mlp_dim img_mod_dim txt_mod_dim single_dim single_mod_dim "
        "in_dims network_reg_dims network_reg_lrs loraplus_lr_ratio loraplus_unet_lr_ratio "
        "loraplus_text_encoder_lr_ratio",
    ),
    **each(refused("all blocks get a LoRA", "all"), "train_double_block_indices train_single_block_indices"),
    **each(refused("weights are trained without noise on them"), "ggpo_beta ggpo_sigma"),
}

OPTIMIZER: Table = {
    **each(joint(), "optimizer_type use_8bit_adam optimizer_args learning_rate unet_lr"),
    **each(joint(), "lr_scheduler lr_warmup_steps"),
    "use_lion_optimizer": refused("optimizer is adamw, adamw8bit or prodigy", False),
    "max_grad_norm": same("max_grad_norm", default=1.0),
    "lr_scheduler_type": refused("lr_scheduler names it", ""),
    "lr_scheduler_args": refused("schedules have no other arguments"),
    "lr_decay_steps": idle("of a schedule that there is not"),
    "lr_scheduler_num_cycles": refused("cosine_with_restarts has one cycle", 1),
    **each(
        idle("of a schedule that there is not"),
        "lr_scheduler_power lr_scheduler_timescale lr_scheduler_min_lr_ratio",
    ),
}

NOISE: Table = {
    **each(joint(), "timestep_sampling weighting_scheme logit_mean logit_std discrete_flow_shift"),
    "sigmoid_scale": refused("logit_normal is the sigmoid of a standard normal", 1),
    "mode_scale": idle("of another weighting_scheme"),
    "guidance_scale": becomes(
        "train_guidance", _guidance, "of training; pictures have guidance_scale", default=3.5
    ),
    "model_prediction_type": refused(
        "the model predicts the velocity, which is compared as it is", "raw", default="sigma_scaled"
    ),
    "loss_type": refused(_LOSS, "l2"),
    **each(idle("of Huber's loss, which is not what is minimised"), "huber_schedule huber_c huber_scale"),
    "prior_loss_weight": joint(),
    "masked_loss": refused("the loss counts all of an image", False),
    "ip_noise_gamma": refused("the noise is standard normal", 0),
    "ip_noise_gamma_random_strength": idle("of ip_noise_gamma, which is off"),
    **each(
        idle(_IDLE_THERE),
        "noise_offset noise_offset_random_strength multires_noise_iterations multires_noise_discount "
        "adaptive_noise_scale zero_terminal_snr min_timestep max_timestep min_snr_gamma "
        "scale_v_pred_loss_like_noise_pred v_pred_like_loss debiased_estimation_loss",
    ),
    "weighted_captions": refused("captions are learned as they are written", False),
}

SAVING: Table = {
    "output_dir": same("output_folder"),
    "output_name": becomes("config_name", lambda value: str(value).replace("/", "_"), "in the run's name"),
    **each(
        joint(),
        "max_train_steps max_train_epochs train_batch_size gradient_accumulation_steps save_every_n_epochs "
        "save_every_n_steps save_n_epoch_ratio save_last_n_epochs save_last_n_steps sample_every_n_steps "
        "sample_every_n_epochs sample_prompts dataset_config",
    ),
    "seed": same("seed", why="of draws of our own"),
    **each(idle("LoRAs are saved as they are trained, in float32"), "save_precision"),
    **each(idle("LoRAs are .safetensors"), "save_model_as use_safetensors"),
    **each(
        idle(_STATE), "save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state"
    ),
    "resume": refused(_RESUME),
    **each(refused(_RESUME, False), "resume_from_huggingface"),
    **each(refused(_RESUME, 1), "initial_epoch"),
    **each(refused(_RESUME, 0), "initial_step"),
    "skip_until_initial_step": idle("of initial_step"),
    "huggingface_repo_id": same("push_to_hub", why=_HUB),
    **each(
        idle(_HUB),
        "huggingface_repo_type huggingface_path_in_repo huggingface_token huggingface_repo_visibility "
        "save_state_to_huggingface async_upload",
    ),
    "log_with": becomes("report_to", _tracker),
    **each(
        idle(_LOG),
        "logging_dir log_prefix log_tracker_name wandb_run_name log_tracker_config wandb_api_key log_config "
        "console_log_level console_log_file console_log_simple",
    ),
    **each(idle("pictures are drawn every sample_per_steps"), "sample_at_first"),
    "sample_sampler": idle("pictures take Euler steps of the flow"),
    **each(
        idle("of the model card"),
        "metadata_title metadata_author metadata_description metadata_license metadata_tags "
        "metadata_usage_hint metadata_thumbnail metadata_merged_from metadata_trigger_phrase "
        "metadata_preprocessor metadata_is_negative_embedding",
    ),
    **each(
        idle("no images are held out"), "validate_every_n_steps validate_every_n_epochs max_validation_steps"
    ),
    **each(
        idle(_CAPTIONS), "cache_latents cache_latents_to_disk skip_cache_check cache_text_encoder_outputs"
    ),
    **each(idle(_CAPTIONS), "cache_text_encoder_outputs_to_disk"),
    "config_file": joint(),
    "output_config": idle("it writes a file"),
    "dataset_class": refused("datasets are folders and TOMLs"),
    "debug_dataset": refused("--dry-run says what is learned", False),
}

SECRET = ("huggingface_token", "wandb_api_key")
"""Flags whose values are never said."""

OPTIMIZERS = {"": "adamw", "adamw": "adamw", "adamw8bit": "adamw8bit", "prodigy": "prodigy"}
"""Its optimizer_type -> the key optimizer."""

OPTIMIZER_ARGS: Table = {
    "weight_decay": joint(),
    "betas": refused("the optimizer's own", "0.9,0.999", "(0.9,0.999)"),
    "eps": refused("the optimizer's own", 1e-8),
    "d_coef": refused("the optimizer's own", 1),
    **each(refused("the optimizer's own", True), "decouple use_bias_correction safeguard_warmup"),
}
