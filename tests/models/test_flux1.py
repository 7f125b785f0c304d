"""Our FLUX against stock FluxPipeline on the same miniature weights, and its parts one by one."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from utils.errors import UserError
from utils.flow.passes import PairBatch
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import load_base_model
from utils.models.flux1 import image_ids, pack_latents, unpack_latents
from utils.models.velocity import PromptedVelocity, Velocity
from utils.training.methods import build_objective

PROMPTS = ["an old man with glasses", "a smiling cat"]


@pytest.fixture
def pipeline(mini_flux):
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(mini_flux)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sample(flux, latents, embeds, steps, guidance_scale=3.5):
    sigmas = flux.sigmas(steps, *latents.shape[-2:])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        velocity = flux.predict_velocity(latents, sigma.expand(len(latents)), embeds, guidance_scale)
        latents = latents + (sigma_next - sigma) * velocity
    return latents


@pytest.mark.parametrize("guidance_scale", [1.0, 3.5])
def test_sampling_equals_stock_pipeline(pipeline, mini_flux_loaded, latents, guidance_scale):
    flux = mini_flux_loaded
    settings = {
        "height": MINI_RESOLUTION,
        "width": MINI_RESOLUTION,
        "num_inference_steps": 5,
        "guidance_scale": guidance_scale,
        "max_sequence_length": MINI_SEQUENCE_LENGTH,
        "latents": pipeline._pack_latents(latents, 2, 16, 4, 4),
    }
    stock_latents = pipeline(PROMPTS, **settings, output_type="latent").images
    stock_pixels = pipeline(PROMPTS, **settings, output_type="pt").images
    embeds = flux.encode_prompts(PROMPTS, MINI_SEQUENCE_LENGTH)
    ours = sample(flux, latents, embeds, 5, guidance_scale)
    torch.testing.assert_close(pack_latents(ours), stock_latents, atol=1e-5, rtol=0)
    pixels = flux.decode_latents(ours)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close((pixels + 1) / 2, stock_pixels, atol=1e-5, rtol=0)


def test_prompt_and_guidance_reach_the_velocity(mini_flux_loaded, latents):
    flux = mini_flux_loaded
    embeds = flux.encode_prompts(PROMPTS, MINI_SEQUENCE_LENGTH)
    swapped = flux.encode_prompts(PROMPTS[::-1], MINI_SEQUENCE_LENGTH)
    sigma = torch.tensor([0.5, 0.5])
    base = flux.predict_velocity(latents, sigma, embeds, 3.5)
    assert not torch.allclose(base, flux.predict_velocity(latents, sigma, swapped, 3.5), atol=1e-4)
    assert not torch.allclose(base, flux.predict_velocity(latents, sigma, embeds, 1.0), atol=1e-4)
    assert not torch.allclose(base, flux.predict_velocity(latents, sigma / 2, embeds, 3.5), atol=1e-4)


def test_prompt_embeds_equal_stock(pipeline, mini_flux_loaded):
    embeds = mini_flux_loaded.encode_prompts(["", *PROMPTS], MINI_SEQUENCE_LENGTH)
    with torch.no_grad():
        stock, stock_pooled, _ = pipeline.encode_prompt(
            ["", *PROMPTS], max_sequence_length=MINI_SEQUENCE_LENGTH
        )
    assert embeds["prompt_embeds"].shape == (3, MINI_SEQUENCE_LENGTH, 24)
    assert torch.equal(embeds["prompt_embeds"], stock)
    assert torch.equal(embeds["pooled_prompt_embeds"], stock_pooled)


def test_a_prompt_that_is_cut_is_reported(mini_flux_loaded, caplog):
    with caplog.at_level(logging.WARNING, "utils.models.flux1"):
        mini_flux_loaded.encode_prompts(["cat"], 4)
        assert not caplog.records
        mini_flux_loaded.encode_prompts(["a red cat on the blue hill"], 4)
    assert "cut from 8 to 4 tokens: a red cat" in caplog.text


def test_one_prompt_serves_a_batch(mini_flux_loaded, latents):
    flux = mini_flux_loaded
    one = flux.encode_prompts(PROMPTS[:1], MINI_SEQUENCE_LENGTH)
    two = flux.encode_prompts(PROMPTS[:1] * 2, MINI_SEQUENCE_LENGTH)
    sigma = torch.tensor([0.2, 0.9])
    together = flux.predict_velocity(latents, sigma, one, 3.5)
    torch.testing.assert_close(together, flux.predict_velocity(latents, sigma, two, 3.5))
    for index in range(2):
        alone = flux.predict_velocity(latents[index : index + 1], sigma[index : index + 1], one, 3.5)
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-5)


def test_packing_equals_stock_and_has_an_inverse(pipeline):
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    packed = pack_latents(latents)
    assert torch.equal(packed, pipeline._pack_latents(latents, 2, 3, 4, 6))
    assert packed[0, 0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31, 48, 49, 54, 55]
    assert torch.equal(unpack_latents(packed, 4, 6), latents)


def test_image_ids_equal_stock(pipeline):
    stock = pipeline._prepare_latent_image_ids(1, 2, 3, torch.device("cpu"), torch.float32)
    assert torch.equal(image_ids(4, 6), stock)
    assert image_ids(4, 6).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]


def test_latents_are_the_scaled_posterior_mode(pipeline, mini_flux_loaded):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = mini_flux_loaded.encode_images(pixels)
    with torch.no_grad():
        mean = pipeline.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, (mean - 0.1159) * 0.3611)
    assert torch.equal(latents, mini_flux_loaded.encode_images(pixels))


def test_sigmas_equal_stock_schedule(pipeline, mini_flux_loaded, latents):
    pipeline(
        PROMPTS[0],
        height=32,
        width=32,
        num_inference_steps=7,
        max_sequence_length=MINI_SEQUENCE_LENGTH,
        output_type="latent",
    )
    torch.testing.assert_close(mini_flux_loaded.sigmas(7, 4, 4), pipeline.scheduler.sigmas)


def test_sigmas_of_a_fixed_shift_equal_stock(mini_flux_loaded):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False)
    mini_flux_loaded.parts["scheduler"] = scheduler
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(mini_flux_loaded.sigmas(4, 4, 4), scheduler.sigmas)


def test_loaded_frozen_and_in_eval_mode(mini_flux_loaded):
    flux = mini_flux_loaded
    for part in map(flux.part, ("transformer", "vae", "text_encoder", "text_encoder_2")):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_bfloat16_base_gives_float32_latents_and_velocities(mini_flux, latents):
    flux = load_base_model(str(mini_flux), torch.device("cpu"), torch.bfloat16)
    assert flux.transformer.dtype == torch.bfloat16
    embeds = flux.encode_prompts(PROMPTS, MINI_SEQUENCE_LENGTH)
    assert flux.encode_images(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    assert flux.predict_velocity(latents, torch.tensor([0.1, 0.7]), embeds, 3.5).dtype == torch.float32


def test_parts_come_when_they_are_needed_and_come_back(mini_flux):
    flux = load_base_model(str(mini_flux), torch.device("cpu"), torch.float32)
    assert set(flux.parts) == {"scheduler"}
    embeds = flux.encode_prompts([""], MINI_SEQUENCE_LENGTH)
    assert "transformer" not in flux.parts
    flux.release_text_encoders()
    assert set(flux.parts) == {"scheduler"}
    again = flux.encode_prompts([""], MINI_SEQUENCE_LENGTH)
    assert all(torch.equal(again[name], embeds[name]) for name in embeds.tensors)
    latents = flux.encode_images(torch.zeros(1, 3, 32, 32))
    flux.release_vae()
    assert "vae" not in flux.parts
    assert torch.equal(flux.encode_images(torch.zeros(1, 3, 32, 32)), latents)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(
        UserError, match=r"pretrained_model_name_or_path.*expected a diffusers model"
    ) as caught:
        load_base_model(str(tmp_path), torch.device("cpu"), torch.float32)
    assert "\n" not in str(caught.value)


def test_objective_trains_each_adapter_through_the_real_model(mini_flux_loaded, latents):
    flux = mini_flux_loaded
    for name in ("content", "semantic"):
        add_adapter(flux.transformer, name, 2, 1)
    model = PromptedVelocity(flux, {"": flux.encode_prompts([""], MINI_SEQUENCE_LENGTH)}, 3.5)
    batch = PairBatch(latents, latents.flip(1), torch.tensor([0.3, 0.6]), torch.ones_like(latents))
    for losses in build_objective("train_image", 4.0, 1.0).losses(model, batch):
        sum(losses.values()).backward()
    for name in ("content", "semantic"):
        weights_b = adapter_parameters(flux.transformer, name)[1::2]
        assert all(weight.grad.abs().sum() > 0 for weight in weights_b)


def test_scaled_velocity_is_the_slider(mini_flux_loaded, latents):
    flux = mini_flux_loaded
    add_adapter(flux.transformer, "semantic", 2, 1)
    for weight in adapter_parameters(flux.transformer, "semantic"):
        weight.data.fill_(0.1)
    model = Velocity(flux, flux.encode_prompts([""], MINI_SEQUENCE_LENGTH), 3.5)
    sigma = torch.tensor([0.4, 0.4])
    with torch.no_grad():
        bare = model(latents, sigma)
        assert torch.equal(model.scaled({"semantic": 0.0})(latents, sigma), bare)
        assert not torch.allclose(model.scaled({"semantic": -1.0})(latents, sigma), bare, atol=1e-4)
        assert torch.equal(model(latents, sigma), bare)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
@pytest.mark.parametrize("prompts", [[""], PROMPTS])
def test_scales_of_one_batch_are_as_each_alone(mini_flux_loaded, latents, batch_size, prompts):
    flux = mini_flux_loaded
    for name in ("semantic", "semantic_2"):
        add_adapter(flux.transformer, name, 2, 1)
        for weight in adapter_parameters(flux.transformer, name):
            weight.data.normal_(0, 0.3)
    embeds = flux.encode_prompts(prompts, MINI_SEQUENCE_LENGTH)
    model = Velocity(flux, embeds, 3.5, batch_size)
    each = [
        {},
        {"semantic": 1.0},
        {"semantic": -0.5},
        {"semantic": 0.3, "semantic_2": 2.0},
        {"semantic": 0.0},
    ]
    x_t = torch.cat([latents * (index + 1) for index in range(len(each))])
    sigma = torch.tensor([0.3, 0.8]).repeat(len(each))
    with torch.no_grad():
        before = flux.forwards.calls
        together = model.scaled(*each)(x_t, sigma).chunk(len(each))
        assert flux.forwards.calls - before == {1: 10, 3: 5, 4: 3, 100: 1}[batch_size]
        for scales, x, velocity in zip(each, x_t.chunk(len(each)), together, strict=True):
            alone = model.scaled(scales)(x, sigma[:2])
            torch.testing.assert_close(velocity, alone, atol=1e-5, rtol=1e-4)
