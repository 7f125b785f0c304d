#!/bin/sh
# What sd-scripts' guide to FLUX.1 runs (docs/flux_train_network.md), without training CLIP's text encoder.
cd sd-scripts
accelerate launch --num_cpu_threads_per_process 1 flux_train_network.py \
  --pretrained_model_name_or_path="models/flux1-dev.safetensors" \
  --clip_l="clip_l.safetensors" --t5xxl="t5xxl.safetensors" --ae="ae.safetensors" \
  --dataset_config="dataset.toml" --output_dir="output" --output_name="my_flux_lora" \
  --save_model_as=safetensors --network_module=networks.lora_flux --network_dim=16 --network_alpha=1 \
  --learning_rate=1e-4 --optimizer_type="AdamW8bit" --lr_scheduler="constant" --sdpa \
  --max_train_epochs=10 --save_every_n_epochs=1 --mixed_precision="fp16" --gradient_checkpointing \
  --guidance_scale=1.0 --timestep_sampling="flux_shift" --model_prediction_type="raw" \
  --blocks_to_swap=18 --cache_text_encoder_outputs --cache_latents --network_train_unet_only
