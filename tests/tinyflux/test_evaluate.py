"""What the evaluation counts, on a probe that reads what it is told; and its command, in miniature."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tinyflux import evaluate, followed
from tinyflux.evaluate import (
    PLAIN,
    distribution,
    eyes_agreeing,
    pixels_of,
    probe_errors,
    reconstructions,
    sample_grid,
    unpicked_grid,
)
from tinyflux.followed import PROMPTS, UNNAMED, every_word
from tinyflux.people import COLOURS, People, sample_people
from tinyflux.people import with_attribute as with_
from tinyflux.probe import READINGS, Probe, load_probe, truth
from tinyflux.render import render
from tinyflux.seeds import DISJOINT, HELD_OUT
from utils.config.schema import Config
from utils.models.base import Base, load_base_model

CPU = torch.device("cpu")
NO_IMAGES = torch.zeros(4, 3, 128, 128)


class Told:
    """A probe that reads given values, whatever the images."""

    def __init__(self, readings: dict[str, Tensor]) -> None:
        self.readings = readings

    def read(self, images: Tensor) -> dict[str, Tensor]:
        return self.readings


@pytest.fixture
def people() -> People:
    few = sample_people(HELD_OUT[:4])
    return with_(with_(few, "sketch", torch.tensor([0.0, 0.0, 0.0, 1.0])), "pixel_art", 0.0)


def test_a_perfect_probe_makes_no_errors(people: People) -> None:
    errors = probe_errors(Told(truth(people)), people, NO_IMAGES)
    assert tuple(errors) == READINGS
    yes_no = ("glasses", "beard", "elf_ears", "lipstick", "pixel_art", "sketch", "male", "long_hair")
    assert errors == {name: 1.0 if name in yes_no else 0.0 for name in READINGS}


def test_yes_no_is_a_share_and_continuous_a_mean_difference(people: People) -> None:
    readings = {name: value.clone() for name, value in truth(people).items()}
    readings["glasses"][1] = 1 - readings["glasses"][1]
    readings["beard"] = 0.4 + 0.2 * readings["beard"]  # unsure, but right
    readings["age"] += torch.tensor([0.1, -0.1, 0.3, 0.1])
    readings["long_hair"] = 1 - readings["long_hair"]
    errors = probe_errors(Told(readings), people, NO_IMAGES)
    assert errors["glasses"] == 0.75
    assert errors["beard"] == 1
    assert errors["age"] == pytest.approx(0.15)
    assert errors["long_hair"] == 0


def test_what_a_sketch_hides_is_left_out(people: People) -> None:
    readings = {name: value.clone() for name, value in truth(people).items()}
    for name in (*COLOURS, "tilt"):
        readings[name] += torch.tensor([0.03, 0.0, 0.0, 0.8])
    errors = probe_errors(Told(readings), people, NO_IMAGES)
    assert [errors[name] for name in COLOURS] == pytest.approx([0.01] * 5)
    assert errors["tilt"] == pytest.approx(0.83 / 4)


def test_pixels_are_renders_of_everybody() -> None:
    people = sample_people(HELD_OUT[:35])  # more than a batch
    pixels = pixels_of(people)
    assert pixels.shape == (35, 3, 128, 128)
    torch.testing.assert_close(pixels, render(people) * 2 - 1, atol=1e-5, rtol=0)


# --- on the weights of the recipe in miniature ---


@pytest.fixture(scope="module")
def base(mini_recipe) -> Base:
    return load_base_model(str(mini_recipe[2]), CPU, torch.float32)


@pytest.fixture(scope="module")
def probe(mini_recipe) -> Probe:
    return load_probe(mini_recipe[2] / "probe.safetensors")


@pytest.fixture
def config() -> Config:
    return Config(resolution=128, num_inference_steps=2, max_sequence_length=32, guidance_scale=3.5)


def test_reconstructions_go_through_the_autoencoder(base: Base) -> None:
    pixels = pixels_of(sample_people(HELD_OUT[:3]))
    vae = base.part("vae")
    with torch.no_grad():
        expected = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    torch.testing.assert_close(reconstructions(base, pixels), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """Prompts and first seeds asked for; each image's mean is the number of words in its prompt."""
    asked: list[tuple[list[str], int]] = []

    def fake(base: Base, prompts: list[str], first_seed: int, config: Config) -> Tensor:
        asked.append((prompts, first_seed))
        lengths = torch.tensor([float(len(prompt.split())) for prompt in prompts])
        return (lengths / 20)[:, None, None, None].expand(-1, 3, 128, 128)

    monkeypatch.setattr(evaluate, "generate", fake)
    return asked


def test_the_distance_is_small_for_renders_and_large_for_anything_else(
    wishes, probe: Probe, config: Config
) -> None:
    samples, renders = distribution(None, probe, 24, config)
    assert 0 < renders < samples
    assert len(wishes[0][0]) == 24


def test_samples_are_drawn_in_rows(wishes, config: Config, tmp_path: Path) -> None:
    sample_grid(None, config, tmp_path / "grid.png")
    assert len(wishes[0][0]) == 7 * 6
    width, height = Image.open(tmp_path / "grid.png").size
    assert width > 6 * 128
    assert height > 7 * 128


def test_unpicked_samples_are_the_first_64_seeds(wishes, config: Config, tmp_path: Path) -> None:
    unpicked_grid(None, config, tmp_path / "grid.png")
    assert wishes == [([UNNAMED] * 64, 0)]
    width, height = Image.open(tmp_path / "grid.png").size
    assert width >= 8 * 128
    assert height > 8 * 128


def test_eyes_are_of_samples_and_of_decoded_renders(
    wishes, base: Base, monkeypatch: pytest.MonkeyPatch, config: Config
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(evaluate, "share_agreeing", lambda probe, images: seen.append(images) or len(seen))
    assert eyes_agreeing(base, None, 4, config) == (1, 2)
    assert wishes[0][0] == [*PLAIN, PLAIN[0]]
    others = pixels_of(sample_people(DISJOINT[:4]))
    torch.testing.assert_close(seen[1], reconstructions(base, others))


def test_the_command_prints_every_table(
    mini_recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_config: Callable = evaluate.load_config
    monkeypatch.setattr(
        evaluate,
        "load_config",
        lambda name, overrides, folder: load_config(
            name, ["num_inference_steps=1", "skips=0", "end_step=0"], folder
        ),
    )
    words = list(every_word())[::40]
    monkeypatch.setattr(followed, "every_word", lambda: words)
    counts = ["--faces", "3", "--samples", "1", "--frechet", "2", "--eyes", "2"]
    monkeypatch.setattr(
        sys, "argv", ["evaluate", "--weights", str(mini_recipe[2]), *counts, "--device", "cpu"]
    )
    evaluate.main()
    printed = capsys.readouterr().out
    assert "Autoencoder, 3 held-out renders: PSNR" in printed
    lines = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert set(READINGS) | set(PROMPTS) <= set(lines)
    assert all(f'"{word.prompt}"' in printed for word in words)
    assert all(lines.count(name) >= 2 for name in PROMPTS)  # how well it is read; obeyed; its words
    assert "Two eyes that agree, 2 images a set" in printed
    assert "2 images a set: samples and renders" in printed
