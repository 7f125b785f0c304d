"""The captioners' networks in miniature, with random weights, saved as their own classes save them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

LETTERS = list(string.ascii_lowercase)


def save_blip(folder: Path) -> None:
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "photo", "of", *LETTERS, "[DEC]"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = BertTokenizer(vocab=vocabulary, extra_special_tokens=["[DEC]"])
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": len(words) - 1, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    text = {"vocab_size": len(words), "encoder_hidden_size": 16, **sizes, **tokens}
    vision = {"image_size": 32, "patch_size": 16, **sizes}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
    _saved(BlipForConditionalGeneration, config, folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def save_florence(folder: Path) -> None:
    from transformers import (
        BartConfig,
        BartTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        *LETTERS,
        *(f"Ġ{letter}" for letter in LETTERS),
        "<image>",
    ]
    vocabulary = {word: index for index, word in enumerate(words)}
    special = {"extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = BartTokenizer(vocab=vocabulary, merges=[], **special)
    vision = {
        **{"depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1)},
        **{"patch_prenorm": (False, True), "embed_dim": (8, 16), "num_heads": (2, 2), "num_groups": (2, 2)},
        **{"window_size": 4, "projection_dim": 16, "drop_path_rate": 0.0},
    }
    text = BartConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    config = Florence2Config(
        text_config=text.to_dict(), vision_config=vision, image_token_id=vocabulary["<image>"]
    )
    _saved(Florence2ForConditionalGeneration, config, folder)
    size = {"height": 32, "width": 32}
    pixels = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    pixels.image_seq_length = 17  # 4 x 4 positions, and their mean
    Florence2Processor(pixels, tokenizer).save_pretrained(folder)


def save_qwen(folder: Path) -> None:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    special = ["<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = [*LETTERS, "Ġ", *special]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=special[1:])
    text = {
        **{"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": 27, "eos_token_id": 27},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }
    vision = {
        **{"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        **{"patch_size": 14, "spatial_merge_size": 2, "window_size": 28, "fullatt_block_indexes": [0]},
    }
    ids = {"image_token_id": vocabulary["<|image_pad|>"], "video_token_id": vocabulary["<|video_pad|>"]}
    ids |= {"vision_start_token_id": vocabulary["<|vision_start|>"]}
    ids |= {"vision_end_token_id": vocabulary["<|vision_end|>"]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    _saved(Qwen2_5_VLForConditionalGeneration, config, folder)
    sizes = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    template = (
        "{% for part in messages[0].content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|>"
        "<|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    )
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=template
    ).save_pretrained(folder)


def _saved(kind: Any, config: Any, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        kind(config).save_pretrained(folder)


SAVED = {"blip": save_blip, "florence": save_florence, "qwen": save_qwen}
