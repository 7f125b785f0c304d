"""A miniature FLUX.2 [klein] with random weights, in the standard diffusers folder layout.

Every part has the class and topology of FLUX.2-klein-base-4B's config, with small numbers: fused single
blocks, shared modulation, no guidance embedding, 32 latent channels with running statistics, Qwen3 with
grouped heads and as many layers as are looked at. 32 x 32 pixels: 2 x 2 latents of 128 channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
SEQUENCE_LENGTH = 96  # the chat's own letters are as many tokens
WIDTH = 8


def _transformer() -> torch.nn.Module:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=128,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        mlp_ratio=3.0,
        axes_dims_rope=(4, 4, 4, 4),
        rope_theta=2000,
        guidance_embeds=False,
    )


def _vae() -> torch.nn.Module:
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        latent_channels=32,
        norm_num_groups=2,
        sample_size=32,
    )
    vae.bn.running_mean.normal_(0, 0.3)
    vae.bn.running_var.uniform_(0.5, 2)
    return vae


def tokenizer(template: str | None = CHAT) -> Any:
    """Qwen's, of letters alone."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())
    made = Qwen2Tokenizer(vocab={letter: index for index, letter in enumerate(letters)}, merges=[])
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made


def _text_encoder(vocabulary: int, layers: int) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            tie_word_embeddings=True,
        )
    )


def save_mini_flux2(folder: Path, distilled: bool = False, layers: int = 28) -> None:
    """Save the miniature, the same weights every time.

    Args:
        folder: where.
        distilled: as the model of four steps says it.
        layers: of the text encoder.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer()
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True
            ),
            vae=_vae(),
            text_encoder=_text_encoder(len(words), layers),
            tokenizer=words,
            transformer=_transformer(),
            is_distilled=distilled,
        )
    pipeline.save_pretrained(folder)
