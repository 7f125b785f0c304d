"""Our FLUX.2 [klein] against stock Flux2KleinPipeline on the same miniature weights, and its parts."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.mini_flux2 import SEQUENCE_LENGTH, save_mini_flux2, tokenizer
from utils.errors import UserError
from utils.models.adapters import adapter_parameters, add_adapter, lora_layers
from utils.models.base import Base, load_base_model
from utils.models.flux2 import from_patches, image_ids, text_ids, to_patches
from utils.models.velocity import PromptedVelocity, Velocity

PROMPTS = ["an old man with glasses", "a smiling cat"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini_flux2")
    save_mini_flux2(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    from diffusers import Flux2KleinPipeline

    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def base(folder: Path) -> Base:
    return load_base_model(str(folder), CPU, torch.float32)


def noise(height: int = 2, width: int = 2, count: int = 2) -> Tensor:
    return torch.randn(count, 128, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sample(model: Velocity, latents: Tensor, steps: int) -> Tensor:
    sigmas = model.base.sigmas(steps, *latents.shape[-2:])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        latents = latents + (sigma_next - sigma) * model(latents, sigma.expand(len(latents)))
    return latents


@pytest.mark.parametrize(
    ("size", "steps", "guidance_scale"),
    [((32, 32), 3, 4.0), ((32, 32), 5, 4.0), ((32, 64), 3, 4.0), ((32, 64), 5, 4.0), ((32, 64), 3, 1.0)],
)
def test_sampling_equals_stock_pipeline(
    pipeline: Any, base: Base, size: tuple[int, int], steps: int, guidance_scale: float
) -> None:
    height, width = size
    latents = noise(*base.latent_shape(height, width)[1:])
    stock = pipeline(
        prompt=PROMPTS,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        max_sequence_length=SEQUENCE_LENGTH,
        latents=latents,
        output_type="latent",
    ).images
    embeds = base.encode_prompts(PROMPTS, SEQUENCE_LENGTH)
    ours = sample(Velocity(base, embeds, guidance_scale), latents, steps)
    torch.testing.assert_close(base.sigmas(steps, *latents.shape[-2:]), pipeline.scheduler.sigmas)

    # The pipeline gives them as its VAE takes them.
    statistics = pipeline.vae.bn
    std = (statistics.running_var + pipeline.vae.config.batch_norm_eps).sqrt()[:, None, None]
    unnormalized = from_patches(ours * std + statistics.running_mean[:, None, None])
    torch.testing.assert_close(unnormalized, stock, atol=1e-5, rtol=0)

    pixels = base.decode_latents(ours)
    assert pixels.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(pixels, pipeline.vae.decode(stock).sample.clamp(-1, 1), atol=1e-5, rtol=0)


def test_a_distilled_model_has_no_guidance(tmp_path: Path) -> None:
    from diffusers import Flux2KleinPipeline

    save_mini_flux2(tmp_path, distilled=True)
    base = load_base_model(str(tmp_path), CPU, torch.float32)
    pipeline = Flux2KleinPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"max_sequence_length": SEQUENCE_LENGTH, "height": 32, "width": 32, "num_inference_steps": 4}
    stock = pipeline(prompt=PROMPTS, latents=noise(), output_type="pt", **settings).images
    embeds = base.encode_prompts(PROMPTS, SEQUENCE_LENGTH)
    pixels = base.decode_latents(sample(Velocity(base, embeds, 4.0), noise(), 4))
    torch.testing.assert_close((pixels + 1) / 2, stock, atol=1e-5, rtol=0)


def test_prompt_embeds_equal_stock_and_carry_the_empty_one(pipeline: Any, base: Base) -> None:
    prompts = ["", *PROMPTS]
    embeds = base.encode_prompts(prompts, SEQUENCE_LENGTH)
    with torch.no_grad():
        stock, stock_ids = pipeline.encode_prompt(prompts, max_sequence_length=SEQUENCE_LENGTH)
    torch.testing.assert_close(embeds["prompt_embeds"], stock, atol=1e-6, rtol=0)
    assert torch.equal(text_ids(SEQUENCE_LENGTH), stock_ids[0].float())
    for row in embeds["negative_prompt_embeds"]:
        torch.testing.assert_close(row, stock[0], atol=1e-6, rtol=0)


def test_images_are_encoded_as_stock_encodes_them(pipeline: Any, base: Base) -> None:
    pixels = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = base.encode_images(pixels)
    with torch.no_grad():
        stock = pipeline._encode_vae_image(pixels, torch.Generator())
    assert latents.shape[1:] == base.latent_shape(32, 64) == (128, 2, 4)
    torch.testing.assert_close(latents, stock, atol=1e-5, rtol=0)
    assert torch.equal(image_ids(2, 4), pipeline._prepare_latent_ids(latents)[0].float())


def test_patches_equal_stock_and_have_an_inverse(pipeline: Any) -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert torch.equal(to_patches(latents), pipeline._patchify_latents(latents))
    assert torch.equal(from_patches(to_patches(latents)), latents)


def test_training_is_under_the_prompt_alone_and_sampling_guided(base: Base) -> None:
    embeds = base.encode_prompts(PROMPTS[:1], SEQUENCE_LENGTH)
    empty = base.encode_prompts([""], SEQUENCE_LENGTH)
    sigma = torch.tensor([0.3, 0.6])
    with torch.no_grad():
        learned = PromptedVelocity(base, {"": embeds}, 4.0)(noise(), sigma, [""])
        prompted, unprompted = (Velocity(base, each, 1.0)(noise(), sigma) for each in (embeds, empty))
        guided = Velocity(base, embeds, 4.0)(noise(), sigma)
    assert torch.equal(learned, prompted)
    torch.testing.assert_close(guided, unprompted + 4 * (prompted - unprompted), atol=1e-5, rtol=0)
    assert not torch.allclose(guided, prompted, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_scales_of_one_guided_batch_are_as_each_alone(base: Base, batch_size: int) -> None:
    add_adapter(base.transformer, "semantic", 2, 1)
    for weight in adapter_parameters(base.transformer, "semantic"):
        weight.data.normal_(0, 0.3)
    model = Velocity(base, base.encode_prompts(PROMPTS, SEQUENCE_LENGTH), 4.0, batch_size)
    each = [{}, {"semantic": 1.0}, {"semantic": -0.5}]
    x_t, sigma = noise().repeat(3, 1, 1, 1), torch.tensor([0.3, 0.8]).repeat(3)
    with torch.no_grad():
        together = model.scaled(*each)(x_t, sigma).chunk(3)
        for scales, velocity in zip(each, together, strict=True):
            torch.testing.assert_close(
                velocity, model.scaled(scales)(noise(), sigma[:2]), atol=1e-5, rtol=1e-4
            )
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_every_block_trains(base: Base) -> None:
    add_adapter(base.transformer, "semantic", 2, 1)
    layers = lora_layers(base.transformer)
    blocks = {".".join(name.split(".")[:2]) for name in layers}
    assert len(blocks) == 2 + 3
    assert len(layers) == 2 * 8 + 3 * 2
    assert "single_transformer_blocks.2.attn.to_qkv_mlp_proj" in layers


def test_a_bfloat16_base_gives_float32_latents_and_velocities(folder: Path) -> None:
    base = load_base_model(str(folder), CPU, torch.bfloat16)
    embeds = base.encode_prompts(PROMPTS, SEQUENCE_LENGTH)
    assert base.encode_images(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    velocity = base.predict_velocity(noise(), torch.tensor([0.1, 0.7]), embeds, 4.0)
    assert velocity.dtype == torch.float32


def test_a_prompt_that_is_cut_is_reported(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "utils.models.flux2"):
        base.encode_prompts(["cat"], SEQUENCE_LENGTH)
        assert not caplog.records
        base.encode_prompts(["a red cat " * 9], SEQUENCE_LENGTH)
    assert f"to {SEQUENCE_LENGTH} tokens: a red cat" in caplog.text


def _without(part: str) -> Any:
    return lambda folder: shutil.rmtree(folder / part)


def _of_flux1(folder: Path) -> None:
    from tests.conftest import _mini_transformer

    shutil.rmtree(folder / "transformer")
    _mini_transformer().save_pretrained(folder / "transformer")


def _unfinished(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["proj_out.weight"]
    save_file(weights, path, {"format": "pt"})


def _mute(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    tokenizer(None).save_pretrained(folder / "tokenizer")


def _shallow(folder: Path) -> None:
    save_mini_flux2(folder, layers=20)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_without("scheduler"), "Flux2KleinPipeline"),
        (_without("transformer"), "Flux2KleinPipeline"),
        (_without("text_encoder"), "Flux2KleinPipeline"),
        (_without("vae"), "Flux2KleinPipeline"),
        (_of_flux1, "transformer: expected a Flux2Transformer2DModel, found a FluxTransformer2DModel"),
        (
            _unfinished,
            "expected the weights of a Flux2Transformer2DModel, found none for 1 of them, as proj_out",
        ),
        (_mute, "tokenizer: expected a chat template"),
        (_shallow, "text_encoder: expected 27 layers or more, found 20"),
    ],
)
def test_a_bad_folder_is_one_line(folder: Path, tmp_path: Path, spoil: Any, found: str) -> None:
    shutil.copytree(folder, tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")

    def use_all() -> None:
        base = load_base_model(str(tmp_path / "spoilt"), CPU, torch.float32)
        base.encode_prompts([""], SEQUENCE_LENGTH)
        base.encode_images(torch.zeros(1, 3, 32, 32))
        _ = base.transformer

    with pytest.raises(UserError, match=found) as caught:
        use_all()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "spoilt") in str(caught.value)


def test_a_hub_folder_names_the_families(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Flux2Pipeline"}))
    with pytest.raises(UserError, match="Flux2KleinPipeline, FluxPipeline, found 'Flux2Pipeline'"):
        load_base_model(str(tmp_path), CPU, torch.float32)
