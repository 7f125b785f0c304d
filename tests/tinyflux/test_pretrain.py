"""The whole recipe in miniature: it leaves a FLUX for plain diffusers, and goes on where it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline
from safetensors.torch import load_file
from torch import Tensor

from tinyflux import pretrain as pretrain_module
from tinyflux.faces import to_pixels, to_uint8
from tinyflux.people import People, sample_independent, sample_people, take
from tinyflux.pretrain import INDEPENDENT, Pretraining, Recipe, main, pretrain
from tinyflux.probe import load_probe
from tinyflux.render import render
from tinyflux.seeds import TRAIN
from utils.data.prompts import unknown_words

CPU = torch.device("cpu")
Made = tuple[Recipe, Path, Path]


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


def averages(work: Path, stage: str, part: str = "") -> dict[str, Tensor]:
    """The moving average in a stage's checkpoint."""
    prefix = f"module.{part}"
    state = torch.load(work / f"{stage}.ckpt", weights_only=True)["average"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_plain_diffusers_generates(mini_recipe: Made) -> None:
    pipeline = FluxPipeline.from_pretrained(mini_recipe[2])
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}

    def image(prompt: str, seed: int) -> Tensor:
        return pipeline(
            prompt,
            height=128,
            width=128,
            num_inference_steps=2,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).images

    first = image("a photo of a man", 0)
    assert first.shape == (1, 3, 128, 128)
    assert first.isfinite().all()
    assert first.std() > 0
    assert torch.equal(image("a photo of a man", 0), first)
    assert not torch.equal(image("a photo of a man", 1), first)
    assert not torch.equal(image("a woman", 0), first)


def test_the_weights_are_small_enough(mini_recipe: Made) -> None:
    """The size is the architecture's, whatever the training: 24 MiB at most, with the probe."""
    files = list(mini_recipe[2].rglob("*.safetensors"))
    assert len(files) == 5
    assert 16 * 2**20 < sum(path.stat().st_size for path in files) <= 24 * 2**20
    assert all(value.dtype == torch.float16 for path in files for value in load_file(path).values())


def test_the_folder_says_which_words_it_knows(mini_recipe: Made) -> None:
    assert unknown_words(str(mini_recipe[2]), ["a GINGER woman with spectacles"]) == []
    assert unknown_words(str(mini_recipe[2]), ["a giraffe"]) == ["giraffe"]


def test_every_part_is_of_diffusers_or_transformers(mini_recipe: Made) -> None:
    index = json.loads((mini_recipe[2] / "model_index.json").read_text())
    parts = {name: value for name, value in index.items() if isinstance(value, list)}
    assert {name: kind for name, (library, kind) in parts.items() if library} == {
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": parts["tokenizer"][1],  # the kind's name differs between releases
        "tokenizer_2": parts["tokenizer_2"][1],
    }
    assert {library for library, _ in parts.values()} <= {"diffusers", "transformers", None}


def test_the_folder_holds_the_averages_of_the_last_stages(mini_recipe: Made) -> None:
    _, work, out = mini_recipe
    saved = {
        part: load_file(next((out / part).glob("*.safetensors")))
        for part in ("vae", "transformer", "text_encoder", "text_encoder_2")
    }
    vae, transformer = averages(work, "vae"), averages(work, "distill", "transformer.")
    assert all(torch.equal(value, vae[name].half()) for name, value in saved["vae"].items())
    assert all(torch.equal(value, transformer[name].half()) for name, value in saved["transformer"].items())
    probe = averages(work, "probe")
    loaded = load_probe(out / "probe.safetensors").state_dict()
    assert all(torch.equal(value, probe[name].half().float()) for name, value in loaded.items())


def test_distilling_trains_the_transformer_alone(mini_recipe: Made) -> None:
    _, work, out = mini_recipe
    for part in ("text_encoder", "text_encoder_2"):
        before, after = averages(work, "base", f"{part}."), averages(work, "distill", f"{part}.")
        assert before
        assert all(torch.equal(after[name], before[name]) for name in before)
        saved = load_file(next((out / part).glob("*.safetensors")))
        trained = [value.half() for value in before.values()]
        moved = [
            name for name, value in saved.items() if not any(torch.equal(value, other) for other in trained)
        ]
        # T5's embedding alone, whose cases are tied
        assert [name.split(".")[0] for name in moved] == (["shared"] if part == "text_encoder_2" else [])
    before, after = (averages(work, stage, "transformer.") for stage in ("base", "distill"))
    moved = [name for name in before if not torch.equal(after[name], before[name])]
    assert any("guidance_embedder" in name for name in moved)
    assert any("single_transformer_blocks" in name for name in moved)


def test_latents_are_encoded_once_and_standardised(mini_recipe: Made) -> None:
    recipe, work, out = mini_recipe
    latents = torch.load(work / "latents/0000000.pt", weights_only=True).float()
    assert latents.shape == (recipe.portraits, 16, 16, 16)
    assert latents.mean().item() == pytest.approx(0, abs=0.1)
    assert latents.std().item() == pytest.approx(1, abs=0.1)
    vae = AutoencoderKL.from_pretrained(out / "vae")
    pixels = to_pixels(to_uint8(render(sample_people(TRAIN[:2]))))
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
    # encoded in bfloat16
    expected = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert (latents[:2] - expected).square().mean() < 0.01 * expected.var()


def test_running_it_again_does_nothing_again(mini_recipe: Made, tmp_path: Path) -> None:
    recipe, work, out = mini_recipe
    before = times(work)
    assert {
        "vae.ckpt",
        "base.ckpt",
        "distill.ckpt",
        "probe.ckpt",
        "latents/0000000.pt",
        "faces/0000000.pt",
    } <= set(before)
    pretrain(recipe, work, tmp_path / "again", CPU)
    assert times(work) == before
    for path in out.rglob("*.safetensors"):
        assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_the_probes_images_go_with_their_people(mini_recipe: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renders of the world, of independent people, then the first of each through the autoencoder."""
    recipe, work, _ = mini_recipe
    given = {}

    def losses(probe, images, people: People, batch_size: int, device: torch.device):
        given.update(images=images[torch.arange(len(images))], people=people)

    monkeypatch.setattr(pretrain_module, "probe_losses", losses)
    stages = Pretraining(recipe, work, CPU)
    vae = stages.vae()
    stages.probe(vae)
    images, people = given["images"], given["people"]
    assert len(images) == len(people["age"]) == 6 + 4 + 3 + 3
    drawn = to_uint8(render(people))
    assert torch.equal(images[:10], drawn[:10])
    assert torch.equal(people["skin"][:6], sample_people(TRAIN[:6])["skin"])
    assert torch.equal(people["skin"][6:10], sample_independent(INDEPENDENT[:4])["skin"])
    with torch.no_grad():
        latents = vae.encode(to_pixels(drawn[10:])).latent_dist.mean
        decoded = to_uint8(vae.decode(latents).sample / 2 + 0.5)
    # in bfloat16 there
    difference = (images[10:].float() - decoded.float()).abs().mean(dim=(1, 2, 3))
    assert difference.max() < 2
    assert (decoded[0].float() - decoded[1].float()).abs().mean() > 2 * difference.max()
    assert all(torch.equal(take(people, slice(10, 13))[n], take(people, slice(0, 3))[n]) for n in people)


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    calls = []
    monkeypatch.setattr(pretrain_module, "pretrain", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["pretrain", "--work", "w", "--out", str(tmp_path), "--device", "cpu"])
    main()
    assert calls == [(Recipe(), Path("w"), tmp_path, CPU)]
    assert f"weights in {tmp_path}" in capsys.readouterr().out
