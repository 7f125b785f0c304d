"""Text in, velocity out, as FluxPipeline does it; the losses on models that can be solved by hand."""

from __future__ import annotations

import copy
import math
from collections import Counter

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from tinyflux import base as base_module
from tinyflux.base import (
    CAPTION_DROPOUT,
    EYES,
    EYES_WEIGHT,
    SHIFT,
    T5_LENGTHS,
    Base,
    Captioned,
    draw_sigma,
    flow_losses,
    guidance_losses,
    weighted_error,
)
from tinyflux.frame import frame_of
from tinyflux.people import People, sample_people, stack_people, with_attribute
from tinyflux.pretrain import save_pipeline
from tinyflux.seeds import HELD_OUT, TRAIN
from tinyflux.vae import build_vae
from utils.models.base import Base as BaseModel
from utils.models.base import load_base_model

CPU = torch.device("cpu")
PROMPTS = ["a photo of an old man, with glasses", "", "a zebra"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def base() -> Base:
    """Untrained, with weights that half precision holds exactly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Base().eval().half().float()


@pytest.fixture(scope="module")
def flux(base: Base, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """The same weights through a pipeline's folder."""
    folder = tmp_path_factory.mktemp("base")
    save_pipeline(build_vae(), copy.deepcopy(base), folder)
    return load_base_model(str(folder), CPU, torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("length", [32, 48])
def test_prompts_are_encoded_as_by_the_pipeline(base: Base, flux: BaseModel, length: int) -> None:
    sequence, pooled = base.encode(PROMPTS, length)
    embeds = flux.encode_prompts(PROMPTS, length)
    assert sequence.shape == (3, length, 128)
    torch.testing.assert_close(embeds["prompt_embeds"], sequence, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(embeds["pooled_prompt_embeds"], pooled, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(sequence[0], sequence[2], atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_velocity_is_the_pipelines(base: Base, flux: BaseModel, guidance: float) -> None:
    x_t, sigma = torch.randn(3, 16, 16, 16, generator=generator()), torch.tensor([0.2, 0.5, 0.97])
    ours = base(x_t, sigma, torch.full((3,), guidance), base.encode(PROMPTS, 32))
    theirs = flux.predict_velocity(x_t, sigma, flux.encode_prompts(PROMPTS, 32), guidance)
    assert ours.shape == x_t.shape
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_image_has_its_own_condition(base: Base) -> None:
    """Noise level, guidance and text each count, and only for their own image."""
    x_t = torch.randn(1, 16, 4, 4, generator=generator()).expand(2, -1, -1, -1)
    text = base.encode(["a man", "a man"], 32)
    sigma, guidance = torch.tensor([0.3, 0.3]), torch.tensor([2.0, 2.0])
    same = base(x_t, sigma, guidance, text)
    torch.testing.assert_close(same[0], same[1], atol=1e-5, rtol=1e-4)
    other = torch.tensor([1.0, 2.0])
    for changed in (
        base(x_t, sigma * other, guidance, text),
        base(x_t, sigma, guidance * other, text),
        base(x_t, sigma, guidance, base.encode(["a man", "a woman"], 32)),
    ):
        torch.testing.assert_close(changed[0], same[0], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(changed[1], same[1], atol=1e-4)


def test_the_models_own_settings(base: Base) -> None:
    config = base.transformer.config
    assert config.guidance_embeds
    assert config.in_channels == 4 * 16
    assert sum(config.axes_dims_rope) == config.attention_head_dim
    mu = calculate_shift(64, 256, 4096, 0.5, 1.15)  # 128 px: 8 x 8 tokens
    assert math.exp(mu) == pytest.approx(SHIFT, rel=0.01)
    assert sum(share for _, share in T5_LENGTHS) == pytest.approx(1)


# --- what it is trained on ---


@pytest.fixture(scope="module")
def crowd() -> People:
    """Men with even positions, women with odd ones."""
    few = sample_people(TRAIN[:2])
    pair = stack_people([with_attribute(few, "male", torch.tensor([1.0, 0.0]))] * 4)
    return with_attribute(pair, "beard", 0.0)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    """Latents that say which position they are."""
    return torch.arange(8.0)[:, None, None, None].expand(-1, 16, 2, 2) / 4


def test_draws_lie_on_the_line_from_latents_to_noise(crowd: People, latents: Tensor) -> None:
    data = Captioned(latents.half(), crowd, 64, CPU)
    prompts, _, x_t, sigma, velocity = data.draw(generator())
    level = sigma[:, None, None, None]
    x_0 = x_t - level * velocity
    index = (x_0.mean(dim=(1, 2, 3)) * 4).round()
    torch.testing.assert_close(x_0, (index / 4)[:, None, None, None].expand_as(x_0), atol=1e-5, rtol=0)
    assert set(index.tolist()) == set(range(8))
    noise = x_t + (1 - level) * velocity
    assert abs(noise.mean().item()) < 0.06  # 4096 standard normal numbers
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    words = [prompt.replace(",", "").split() for prompt in prompts]
    for position, prompt in zip(index.int().tolist(), words, strict=True):
        assert (
            not {"woman", "female"} & set(prompt) if position % 2 == 0 else not {"man", "male"} & set(prompt)
        )
    assert any("man" in prompt for prompt in words)
    assert any("woman" in prompt for prompt in words)


def test_draws_depend_on_the_generator_alone(crowd: People, latents: Tensor) -> None:
    data = Captioned(latents, crowd, 4, CPU)
    one, same, other = data.draw(generator(1)), data.draw(generator(1)), data.draw(generator(2))
    assert one[:2] == same[:2]
    assert all(torch.equal(a, b) for a, b in zip(one[2:], same[2:], strict=True))
    assert not torch.equal(one[2], other[2])


def test_prompts_are_dropped_and_padded_at_their_rates(crowd: People, latents: Tensor) -> None:
    data = Captioned(latents, crowd, 16, CPU)
    draws = [data.draw(generator(seed)) for seed in range(400)]
    empty = sum(prompt == "" for draw in draws for prompt in draw[0]) / (16 * 400)
    assert empty == pytest.approx(CAPTION_DROPOUT, abs=4 * (0.12 * 0.88 / 6400) ** 0.5)
    lengths = Counter(draw[1] for draw in draws)
    for length, share in T5_LENGTHS:
        assert lengths[length] / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


def test_noise_levels_follow_their_distribution() -> None:
    """Undo the shift; then four fifths are logit-normal, P(s < t) = Phi(logit t), and a fifth uniform."""
    count = 40_000
    sigma = draw_sigma(count, generator()).double()
    assert sigma.min() > 0
    assert sigma.max() < 1
    before = sigma / (SHIFT - (SHIFT - 1) * sigma)
    for t in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
        phi = 0.5 * (1 + math.erf(math.log(t / (1 - t)) / 2**0.5))
        share = 0.8 * phi + 0.2 * t
        found = (before < t).double().mean().item()
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


# --- losses, on models that can be solved by hand ---


class Linear:
    """A stand-in for Base: the velocity is a function of x_t, sigma, guidance and the number of words."""

    def __init__(self, velocity) -> None:
        self.velocity = velocity

    def encode(self, prompts: list[str], length: int) -> tuple[Tensor, Tensor]:
        words = torch.tensor([float(len(prompt.split())) for prompt in prompts])
        return words[:, None, None].expand(-1, length, 1), words[:, None]

    def __call__(self, x_t: Tensor, sigma: Tensor, guidance: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        sequence, pooled = text
        assert len(x_t) == len(sigma) == len(guidance) == len(sequence) == len(pooled)
        assert torch.equal(sequence[:, 0], pooled)
        return self.velocity(x_t, *(part[:, None, None, None] for part in (sigma, guidance, pooled[:, 0])))


def test_the_flow_loss_is_zero_for_the_true_velocity(crowd: People) -> None:
    # of latents 0 all of x_t = sigma * noise is noise, and the velocity is noise
    data = Captioned(torch.zeros(8, 16, 2, 2), crowd, 8, CPU)
    right = Linear(lambda x_t, sigma, guidance, words: x_t / sigma)
    off = Linear(lambda x_t, sigma, guidance, words: x_t / sigma + 0.5 * guidance)
    assert flow_losses(right, data)(0, generator())["flow"].item() == pytest.approx(0, abs=1e-9)
    assert flow_losses(off, data)(0, generator())["flow"].item() == pytest.approx(0.25, abs=1e-5)


def test_the_guidance_loss_is_zero_for_classifier_free_guidance(crowd: People, latents: Tensor) -> None:
    """The teacher says x_t + words, so guidance says x_t + g * words: 0 words are the empty prompt's."""
    data = Captioned(latents, crowd, 8, CPU)

    def teach(x_t: Tensor, sigma: Tensor, guidance: Tensor, words: Tensor) -> Tensor:
        assert torch.equal(guidance, torch.ones_like(guidance))
        return x_t + words

    def off(x_t: Tensor, sigma: Tensor, guidance: Tensor, words: Tensor) -> Tensor:
        assert guidance.min() >= 1
        assert guidance.max() <= 6
        assert guidance.std() > 0.5
        return x_t + guidance * words + 0.5

    teacher, student = Linear(teach), Linear(lambda x_t, sigma, guidance, words: x_t + guidance * words)
    assert guidance_losses(student, teacher, data)(0, generator())["guidance"].item() < 1e-9
    loss = guidance_losses(Linear(off), teacher, data)(0, generator())["guidance"].item()
    assert loss == pytest.approx(0.25, abs=1e-4)


def test_at_guidance_one_the_teacher_teaches_itself(
    base: Base, crowd: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Captioned(torch.randn(8, 16, 4, 4, generator=generator()), crowd, 2, CPU)
    monkeypatch.setattr(base_module, "T5_LENGTHS", ((32, 1.0),))
    losses = {}
    for scale in (1.0, 4.0):
        monkeypatch.setattr(base_module, "GUIDANCE", (scale, scale))
        losses[scale] = guidance_losses(base, base, data)(0, generator())["guidance"].item()
    assert losses[1.0] < 1e-9
    assert losses[4.0] > 1e-6


def test_an_error_at_the_eyes_counts_threefold_and_a_constant_one_as_it_is() -> None:
    wanted = torch.zeros(2, 16, 16, 16)
    assert weighted_error(wanted + 0.5, wanted).item() == pytest.approx(0.25)
    eye, corner = wanted.clone(), wanted.clone()
    eye[:, :, 6, 5], corner[:, :, 0, 0] = 1.0, 1.0
    ratio = weighted_error(eye, wanted) / weighted_error(corner, wanted)
    assert ratio.item() == pytest.approx(EYES_WEIGHT)


def test_every_face_has_its_eyes_where_errors_count() -> None:
    """By the renderer's own coordinates: 98% of all eyes' pixels, a latent being 8 x 8."""
    frame = frame_of(sample_people(HELD_OUT[:200]), 128)
    for side in (-1, 1):
        inside = ((frame.feature_x - side * 0.188) / 0.1) ** 2 + ((frame.y + 0.015) / 0.06) ** 2 < 1
        rows, columns = (slice(8 * part.start, 8 * part.stop) for part in EYES)
        assert inside[:, rows, columns].sum() > 0.98 * inside.sum()
