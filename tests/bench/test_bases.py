"""bench/bases.py: transformers of random weights, of any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.bases import FLUX_DEV, build_transformer, load_base
from tests.bench.mini_shape import MINI_SHAPE
from tests.conftest import MINI_SEQUENCE_LENGTH
from utils.config.schema import Config


def test_random_weights_of_any_shape() -> None:
    state = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16):
        config = replace(Config(), device="cpu", dtype=str(dtype).removeprefix("torch."))
        base = load_base(config, random_weights=True, shape=MINI_SHAPE)
        embeds = base.encode_prompts(["a photo of a person"], MINI_SEQUENCE_LENGTH)
        latents = base.encode_images(torch.zeros(1, 3, 32, 32))
        velocity = base.predict_velocity(torch.ones_like(latents), torch.tensor([0.5]), embeds, 3.5)
        assert base.transformer.dtype == base.part("text_encoder_2").dtype == base.part("vae").dtype == dtype
        assert torch.get_default_dtype() == torch.float32
        for output in (latents, velocity, base.decode_latents(velocity)):
            assert output.isfinite().all()
            assert output.std() > 0
        assert not any(weight.requires_grad for weight in base.transformer.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        transformer = build_transformer(FLUX_DEV)
    assert sum(weight.numel() for weight in transformer.parameters()) == 11_901_408_320


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
def test_random_weights_quantized(quantization: str) -> None:
    pytest.importorskip("bitsandbytes" if quantization == "nf4" else "torchao")
    config = replace(Config(), device="cpu", quantization=quantization)
    base = load_base(config, random_weights=True, shape=MINI_SHAPE)
    embeds = base.encode_prompts(["a photo of a person"], MINI_SEQUENCE_LENGTH)
    velocity = base.predict_velocity(torch.ones(1, 16, 4, 4), torch.tensor([0.5]), embeds, 3.5)
    assert velocity.isfinite().all()
    assert velocity.std() > 0


def test_random_parts_come_back() -> None:
    base = load_base(replace(Config(), device="cpu"), random_weights=True, shape=MINI_SHAPE)
    before = base.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH)
    base.release_text_encoders()
    base.release_vae()
    assert set(base.parts) == {"transformer", "scheduler"}
    after = base.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH)
    assert torch.equal(before["prompt_embeds"], after["prompt_embeds"])
