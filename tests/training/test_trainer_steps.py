"""A step on a miniature FLUX: a plain loop's to the bit, its learning rates, passes and dtypes."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import MINI_SEQUENCE_LENGTH
from tests.mini_loras import use_adapters
from tests.training.mini_runs import learn, lines, make_run, objective_of
from utils.config.schema import Config, choices
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import load_base_model
from utils.models.velocity import PromptedVelocity
from utils.training.batches import PairBatches
from utils.training.methods import build_objective

FACTORS = {
    "constant": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "linear": [1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    "cosine": [math.cos(math.pi * step / 12) ** 2 for step in range(6)],
}


WITH_WARMUP = {
    "constant_with_warmup": [0, 0.5, 1.0, 1.0, 1.0, 1.0],
    "linear": [0, 0.5, 1.0, 0.75, 0.5, 0.25],
}


@pytest.mark.parametrize(
    ("name", "warmup"), [*((name, 0) for name in FACTORS), *((name, 2) for name in WITH_WARMUP)]
)
def test_learning_rates_are_their_factors(mini_flux_loaded, name, warmup):
    from utils.training.learned_text import LearnedText
    from utils.training.trainer import _learner

    add_adapter(mini_flux_loaded.transformer, "semantic", 2, 1)
    config = Config(lr=1e-2, train_iteration=6, lr_scheduler=name, lr_warmup_steps=warmup)
    text = LearnedText(mini_flux_loaded, config, {})
    learner = _learner(mini_flux_loaded, ["semantic"], text, torch.Generator())
    found = []
    for _ in range(6):
        found.append(learner.optimizer.param_groups[0]["lr"] / 1e-2)
        learner.step()
    assert found == pytest.approx((WITH_WARMUP if warmup else FACTORS)[name])


def test_every_lr_scheduler_is_diffusers():
    from diffusers.optimization import SchedulerType

    assert {*choices("lr_scheduler")} < {each.value for each in SchedulerType}


@pytest.mark.parametrize("lr_scheduler", sorted(FACTORS))
def test_equals_a_plain_loop_bit_for_bit(tmp_path, mini_flux, pairs, lr_scheduler):
    """The same training written out step by step, from the documented order of random draws."""
    device = torch.device("cpu")
    run = make_run(tmp_path, lr_scheduler=lr_scheduler, joint_passes=False)
    learn(run, load_base_model(str(mini_flux), device, torch.float32), pairs, objective_of(run))

    base = load_base_model(str(mini_flux), device, torch.float32)
    transformer = base.transformer
    sources = torch.cat([base.encode_images(pair.source[None]) for pair in pairs])
    targets = torch.cat([base.encode_images(pair.target[None]) for pair in pairs])
    model = PromptedVelocity(base, {"": base.encode_prompts([""], MINI_SEQUENCE_LENGTH)}, 3.5)
    sigmas = base.sigmas(28, 4, 4)
    generator = torch.Generator().manual_seed(run.seed)
    for name in ("content", "semantic"):
        seed = int(torch.randint(2**31, (), generator=generator))
        add_adapter(transformer, name, 2, 1, seed=seed)
    optimizers = [
        torch.optim.AdamW(adapter_parameters(transformer, name), lr=1e-2, fused=True)
        for name in ("content", "semantic")
    ]
    for step in range(6):
        index = torch.randint(2, (1,), generator=generator)
        sigma = sigmas[torch.randint(28, (1,), generator=generator)]
        noise = torch.randn(1, 16, 4, 4, generator=generator)
        source, target = sources[index], targets[index]
        x_t = source + sigma[:, None, None, None] * noise
        with use_adapters(transformer, {"content": 1.0}, train=["content"]):
            torch.nn.functional.mse_loss(model(x_t, sigma), noise).backward()
        with use_adapters(transformer, {"content": 1.0, "semantic": 1.0}, train=["semantic"]):
            velocity_target = noise + 4.0 * (source - target)
            torch.nn.functional.mse_loss(model(x_t, sigma), velocity_target).backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-2 * FACTORS[lr_scheduler][step]
            optimizer.step()
            optimizer.zero_grad()
    saved = load_file(run.weights_path())
    # alpha 1 of rank 2 is folded into B
    mine = {
        "transformer." + name.replace(".semantic", ""): parameter / 2 if "lora_B" in name else parameter
        for name, parameter in transformer.named_parameters()
        if ".semantic." in name
    }
    assert mine.keys() == {key for key in saved if "lora_" in key}
    assert all(torch.equal(saved[key], parameter) for key, parameter in mine.items())


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: values read off tensors, and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("joint", [True, False])
def test_no_step_waits_for_the_device(mini_flux_loaded, pairs, tmp_path, joint):
    run = make_run(tmp_path, joint_passes=joint)
    base = mini_flux_loaded
    for name in ("content", "semantic"):
        add_adapter(base.transformer, name, 2, 1)
    batches = PairBatches(base, pairs, run.config)
    model = PromptedVelocity(base, {"": base.encode_prompts([""], MINI_SEQUENCE_LENGTH)}, 3.5)
    generator = torch.Generator().manual_seed(0)
    with Reads() as reads:
        for losses in build_objective("train_image", 4.0, 1.0, joint).losses(model, batches.draw(generator)):
            sum(losses.values()).backward()
    assert reads.found == []
    with Reads() as reads:
        losses["semantic"].item()
    assert reads.found == ["_local_scalar_dense"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_passes_together_give_the_lora_of_passes_apart(tmp_path, mini_flux_loaded, pairs, checkpointing):
    weights = []
    for joint in (True, False):
        config = {"joint_passes": joint, "gradient_checkpointing": checkpointing, "lr": 1e-2}
        run = make_run(tmp_path / str(joint), **config)
        learn(run, mini_flux_loaded, pairs, objective_of(run))
        weights.append(load_file(run.weights_path()))
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_nothing(tmp_path, mini_flux_loaded, pairs):
    weights = []
    for enabled in (False, True):
        run = make_run(tmp_path / str(enabled), gradient_checkpointing=enabled)
        learn(run, mini_flux_loaded, pairs, objective_of(run))
        assert not mini_flux_loaded.transformer.gradient_checkpointing
        weights.append(load_file(run.weights_path()))
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-6, rtol=1e-5)


def test_bfloat16_base_trains_float32_adapters(tmp_path, mini_flux, pairs):
    base = load_base_model(str(mini_flux), torch.device("cpu"), torch.bfloat16)
    run = make_run(
        tmp_path, dtype="bfloat16", train_iteration=40, save_per_steps=40, log_every=20, cfg_eta=1.0
    )
    learn(run, base, pairs[:1], objective_of(run))
    first, last = lines(run)
    assert last["content"] < first["content"]
    assert {tensor.dtype for tensor in load_file(run.weights_path()).values()} == {torch.float32}
    assert {parameter.dtype for parameter in base.transformer.parameters()} == {torch.bfloat16}
