"""The weights that ship: small enough, a FLUX to plain diffusers, and as good as its README says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from tinyflux.evaluate import pixels_of, probe_errors
from tinyflux.followed import PROMPTS, UNNAMED, is_present
from tinyflux.people import CONTINUOUS, YES_NO, People, sample_people
from tinyflux.probe import Probe, load_probe
from tinyflux.seeds import HELD_OUT

WEIGHTS = Path(__file__).resolve().parents[2] / "tinyflux" / "weights"


@pytest.fixture(scope="module")
def pipeline() -> FluxPipeline:
    """As anybody loads it, with no code of ours."""
    pipeline = FluxPipeline.from_pretrained(WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def probe() -> Probe:
    return load_probe(WEIGHTS / "probe.safetensors")


@pytest.fixture(scope="module")
def people() -> People:
    return sample_people(HELD_OUT[20_000:20_048])


@pytest.fixture(scope="module")
def pixels(people: People) -> Tensor:
    return pixels_of(people)


@pytest.fixture(scope="module")
def decoded(pipeline: FluxPipeline, pixels: Tensor) -> Tensor:
    """The first 16 through the autoencoder and back."""
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels[:16]).latent_dist.mode()
        return pipeline.vae.decode(latents).sample.clamp(-1, 1)


def generated(pipeline: FluxPipeline, prompt: str, count: int, steps: int, seed: int = 0) -> Tensor:
    """(count, 3, 128, 128) in [-1, 1]."""
    images = pipeline(
        prompt,
        height=128,
        width=128,
        num_images_per_prompt=count,
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images
    return images * 2 - 1


def test_all_safetensors_together_are_within_24_mib() -> None:
    sizes = {
        path.relative_to(WEIGHTS).as_posix(): path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")
    }
    assert len(sizes) == 5
    assert "probe.safetensors" in sizes
    assert sum(sizes.values()) <= 24 * 2**20
    assert not [path for path in WEIGHTS.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".part")]


def test_no_part_needs_code_of_ours() -> None:
    index = json.loads((WEIGHTS / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
    libraries = {value[0] for value in index.values() if isinstance(value, list)}
    assert libraries - {None} == {"diffusers", "transformers"}


def test_the_topology_is_fluxs(pipeline: FluxPipeline) -> None:
    vae, transformer, scheduler = pipeline.vae, pipeline.transformer, pipeline.scheduler
    assert vae.config.latent_channels == 16
    assert pipeline.vae_scale_factor == 8
    assert vae.quant_conv is None
    assert vae.post_quant_conv is None
    assert transformer.config.guidance_embeds
    assert transformer.config.in_channels == 64
    assert type(pipeline.text_encoder).__name__ == "CLIPTextModel"
    assert type(pipeline.text_encoder_2).__name__ == "T5EncoderModel"
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    settings = {
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    }
    assert {name: scheduler.config[name] for name in settings} == settings


def test_all_parts_load_in_single_precision(pipeline: FluxPipeline) -> None:
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}
        assert all(parameter.isfinite().all() for parameter in part.parameters())


@torch.no_grad()
def test_scaled_latents_are_about_standard_normal(pipeline: FluxPipeline, pixels: Tensor) -> None:
    vae = pipeline.vae
    mean = vae.encode(pixels[:16]).latent_dist.mean
    latents = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert latents.mean().item() == pytest.approx(0, abs=0.1)
    assert latents.std().item() == pytest.approx(1, abs=0.1)


def test_the_autoencoder_reaches_30_db(pixels: Tensor, decoded: Tensor) -> None:
    """10 log10(2^2 / mean squared error), the mean over 16 held-out renders."""
    errors = (decoded - pixels[:16]).square().mean(dim=(1, 2, 3))
    assert sum(10 * math.log10(4 / error) for error in errors.tolist()) / 16 >= 30


def assert_reads_well(probe: Probe, people: People, images: Tensor) -> None:
    errors = probe_errors(probe, people, images)
    right, off = [errors[name] for name in YES_NO], [errors[name] for name in CONTINUOUS]
    assert sum(right) / len(right) >= 0.97, errors
    assert sum(off) / len(off) <= 0.08, errors
    assert min(right) >= 0.87, errors  # of each attribute there are but few cases here
    assert max(off) <= 0.16, errors


def test_the_probe_reads_held_out_renders(probe: Probe, people: People, pixels: Tensor) -> None:
    assert_reads_well(probe, people, pixels)


def test_the_probe_reads_reconstructions(probe: Probe, people: People, decoded: Tensor) -> None:
    assert_reads_well(probe, {name: value[:16] for name, value in people.items()}, decoded)


def test_an_image_is_its_seeds(pipeline: FluxPipeline) -> None:
    one = generated(pipeline, "", 1, 2)
    assert one.shape == (1, 3, 128, 128)
    assert one.isfinite().all()
    assert one.std() > 0.1
    assert torch.equal(generated(pipeline, "", 1, 2), one)
    assert not torch.allclose(generated(pipeline, "", 1, 2, seed=1), one, atol=0.1)


def test_prompts_are_obeyed(pipeline: FluxPipeline, probe: Probe) -> None:
    """Glasses where they are named; where not, about as often as in the world, which is less than half."""
    named = probe.read(generated(pipeline, PROMPTS["glasses"], 8, 8))
    assert is_present(named, "glasses") >= 0.75
    plain = probe.read(generated(pipeline, UNNAMED, 6, 8))
    assert is_present(plain, "glasses") <= 0.5
    men, women = (probe.read(generated(pipeline, f"a photo of a {who}", 3, 8)) for who in ("man", "woman"))
    assert men["male"].mean() > 0.5 > women["male"].mean()
