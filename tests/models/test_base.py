"""What all families share: embeddings by name, noise levels by the scheduler; families found by class."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from utils.errors import UserError
from utils.models.base import Base, PromptEmbeds, load_base_model, scheduler_sigmas
from utils.models.families import FAMILIES, family_at, family_named, family_of

FLUX_DEV = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
CPU = torch.device("cpu")


def shifted_sigmas(steps: int, mu: float) -> Tensor:
    """sigma' = e^mu / (e^mu + 1/sigma - 1) over sigma = 1, ..., 1/N, then 0 (Esser et al. 2024, eq. 23)."""
    sigmas = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    shifted = math.exp(mu) / (math.exp(mu) + 1 / sigmas - 1)
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


@pytest.mark.parametrize("steps", [1, 2, 4, 14, 28, 50])
@pytest.mark.parametrize("image_seq_len", [4, 64, 1024, 4096])
def test_sigmas_are_flux_formula_to_the_last_bit(steps: int, image_seq_len: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**FLUX_DEV)
    mu = calculate_shift(image_seq_len, 256, 4096, 0.5, 1.15)
    assert mu == pytest.approx(0.5 + 0.65 * (image_seq_len - 256) / 3840)
    sigmas = scheduler_sigmas(scheduler, steps, mu)
    assert torch.equal(sigmas, shifted_sigmas(steps, mu))
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=2e-7, rtol=0)


def test_a_fixed_shift_is_a_mu_of_its_logarithm() -> None:
    sigmas = scheduler_sigmas(FlowMatchEulerDiscreteScheduler(shift=3.0), 10, None)
    base = torch.linspace(1, 1 / 10, 10)
    torch.testing.assert_close(sigmas[:-1], 3.0 * base / (1 + 2.0 * base))
    assert torch.equal(sigmas, shifted_sigmas(10, math.log(3.0)))


@pytest.mark.parametrize(
    "settings", [{"use_beta_sigmas": True}, {"use_karras_sigmas": True}, {"shift_terminal": 0.1}]
)
def test_any_other_schedule_is_the_schedulers_own(settings: dict) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **settings)
    sigmas = scheduler_sigmas(scheduler, 8, None)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8))
    assert torch.equal(sigmas, scheduler.sigmas)
    assert not torch.allclose(sigmas, shifted_sigmas(8, math.log(3.0)), atol=1e-3)


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scheduler_sigmas(FlowMatchEulerDiscreteScheduler(shift=3.0), 0, None)


def test_a_scheduler_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected a flow-matching scheduler .*, found DDIMScheduler"):
        scheduler_sigmas(DDIMScheduler(), 4, None)


def test_embeddings_keep_their_names() -> None:
    one = PromptEmbeds({"words": torch.ones(1, 3, 2), "whole": torch.zeros(1, 5)})
    assert {name: each.shape[0] for name, each in one.expand(4).tensors.items()} == {"words": 4, "whole": 4}
    assert one.for_parts([{}] * 3, 4) is one
    assert one.of_images(slice(1, 2)) is one
    two = PromptEmbeds.joined([one, PromptEmbeds({"words": torch.zeros(1, 3, 2), "whole": torch.ones(1, 5)})])
    assert len(two) == 2
    assert len(two.for_parts([{}] * 2, 2)) == 4
    assert torch.equal(two.of_images(slice(1, 2))["whole"], torch.ones(1, 5))
    with pytest.raises(ValueError, match="expected 1 prompt or 3, one an image; found 2"):
        two.expand(3)


def test_embeddings_under_loras_go_by_the_scales_of_each_part() -> None:
    key = (("a.safetensors", 0.5),)
    plain, under = ({"words": torch.full((1, 3, 2), value)} for value in (0.0, 1.0))
    one = PromptEmbeds(plain, {key: PromptEmbeds(under)}, {"semantic": "a.safetensors"})
    parts = [{}, {"semantic": 0.5, "other": 2.0}, {"semantic": 0.0}]
    values = one.for_parts(parts, 2)["words"][:, 0, 0]
    assert values.tolist() == [0, 0, 1, 1, 0, 0]
    two = PromptEmbeds.joined([one, one]).expand(2).of_images(slice(1, 2))
    assert two.for_parts(parts, 1)["words"][:, 0, 0].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"expected prompts encoded at .*0\.7.*, found those at .*0\.5"):
        one.for_parts([{"semantic": 0.7}], 1)


def test_a_family_is_found_by_its_classes(mini_flux: Path, mini_flux_loaded: Base) -> None:
    assert family_at(str(mini_flux)) is FAMILIES["flux1"] is family_of(mini_flux_loaded.transformer)
    assert family_at("owner/name") is None
    assert mini_flux_loaded.family is FAMILIES["flux1"]
    with pytest.raises(
        UserError, match=r"a pipeline of Flux2KleinPipeline, FluxPipeline, found 'FluxPipelin'"
    ):
        family_named("FluxPipelin")
    with pytest.raises(
        UserError, match="expected one of FluxTransformer2DModel, Flux2Transformer2DModel, found Linear"
    ):
        family_of(torch.nn.Linear(1, 1))


def test_a_hub_id_in_the_cache_is_known_before_it_is_loaded(tmp_path: Path, monkeypatch) -> None:
    commit = "0" * 40
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert family_at("owner/name") is FAMILIES["flux1"]
    assert family_at("owner/other") is None
    assert family_at(str(tmp_path)) is None


def test_a_folder_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        UserError, match=r"a pipeline of Flux2KleinPipeline, FluxPipeline, found 'StableDiffusionP"
    ):
        load_base_model(str(tmp_path), CPU, torch.float32)
    index.write_text("{}")
    with pytest.raises(UserError, match=r"model_index.json: expected a diffusers model_index.json, found"):
        load_base_model(str(tmp_path), CPU, torch.float32)


def test_sizes_are_multiples_of_the_familys(mini_flux_loaded: Base) -> None:
    assert mini_flux_loaded.latent_shape(32, 48) == (16, 4, 6)
    with pytest.raises(UserError, match="resolution: expected a multiple of 16, found 40"):
        mini_flux_loaded.latent_shape(32, 40)
