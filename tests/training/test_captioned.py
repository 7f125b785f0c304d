"""Captioned images as they are learned: batches, epochs, priors, both halves of the loss, stops, samples."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.strangers.captions import refused_by
from tests.training.mini_runs import lines
from tests.training.mini_subjects import RATIOS, dataset, learn_subject, picture, subject_run
from tests.training.test_checkpoints import KilledError, kill_at
from utils.config.runs import Run
from utils.data.pixels import load_cropped
from utils.flow.passes import CaptionedBatch
from utils.models.base import Base
from utils.training import captioned_batches, class_images
from utils.training.cache import Cache, cached_prompts
from utils.training.captioned import CaptionedImages
from utils.training.captioned_batches import CaptionedBatches


def batches_of(run: Run, base: Base) -> CaptionedBatches:
    source = CaptionedImages.of(run)
    embeds = cached_prompts(base, source.prompts, run.config.max_sequence_length, Cache.of(run.config))
    return CaptionedBatches(base, source, embeds, run.config)


def drawn(batches: CaptionedBatches, steps: int = 6, seed: int = 0) -> list[CaptionedBatch]:
    generator = torch.Generator().manual_seed(seed)
    return [batches.draw(generator, step) for step in range(1, steps + 1)]


def weights(run: Run, step: int | None = None) -> dict[str, torch.Tensor]:
    return load_file(run.weights_path(step))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- what a step draws ---


def test_a_step_is_the_plans_images_at_their_size_under_their_captions(
    tmp_path: Path, mini_flux_loaded: Base
) -> None:
    dataset(tmp_path)
    run = subject_run(tmp_path, mini_flux_loaded, flip=True, shuffle_caption=True, keep_tokens=1)
    batches = batches_of(run, mini_flux_loaded)
    plan = batches.source.plan
    assert len({step.size for step in plan}) > 1
    for step, batch in zip(plan, drawn(batches), strict=True):
        assert batch.x_0.shape == batch.noise.shape
        assert batch.sigma.shape == (2,)
        for sample, latents in zip(step.samples, batch.x_0, strict=True):
            pixels = load_cropped(sample.image.path, step.size)
            pixels = pixels.flip(2) if sample.flipped else pixels
            assert torch.equal(latents, mini_flux_loaded.encode_images(pixels[None])[0])
        assert list(batch.captions) == [sample.caption for sample in step.samples]
        assert all(caption.startswith("a photo of ohwx person, ") for caption in batch.captions)
        assert not any("ohwx" in caption for caption in batch.class_captions)
        assert batch.class_x_0 is None
    assert any(sample.flipped for step in plan for sample in step.samples)
    assert [entry["image"] for entry in batches.learned_from] == list(
        dict.fromkeys(sample.image.path.stem for step in plan for sample in step.samples)
    )


@pytest.mark.parametrize("prior", ["base", "images"])
def test_processes_share_what_one_draws_of_as_many_times_the_batch(
    tmp_path: Path, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch, prior: str
) -> None:
    dataset(tmp_path)
    own = {"prior": prior, "prior_count": 3, "timesteps": "shifted", "shuffle_caption": True}
    alone = drawn(batches_of(subject_run(tmp_path, mini_flux_loaded, batch_size=4, **own), mini_flux_loaded))
    for key, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    batches = batches_of(subject_run(tmp_path, mini_flux_loaded, batch_size=2, **own), mini_flux_loaded)
    monkeypatch.setattr(captioned_batches, "process_count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(
            captioned_batches, "share", lambda size, first=2 * rank: slice(first, first + size)
        )
        shares.append(drawn(batches))
    for whole, *parts in zip(alone, *shares, strict=True):
        for name in ("x_0", "sigma", "noise", *(["class_x_0"] if prior == "images" else [])):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        for name in ("captions", "class_captions", "class_prompts"):
            assert [text for part in parts for text in getattr(part, name)] == list(getattr(whole, name))


# --- training ---


@pytest.mark.parametrize("prior", ["none", "base", "images"])
def test_both_halves_of_the_loss_are_logged_apart(tmp_path: Path, mini_flux_loaded: Base, prior: str) -> None:
    dataset(tmp_path, RATIOS[:2])
    own = {"prior": prior, "prior_count": 2, "batch_size_gen": 2, "train_iteration": 2, "log_every": 1}
    logged = {}
    for weight in (1.0, 0.25):
        run = subject_run(tmp_path, mini_flux_loaded, **own, prior_weight=weight, config_name=f"w{weight}")
        learn_subject(run, mini_flux_loaded)
        logged[weight] = lines(run)[0]
    names = {"subject"} if prior == "none" else {"subject", "prior"}
    assert {*logged[1.0]} - {"step", "seconds"} == names
    assert logged[1.0]["subject"] == logged[0.25]["subject"]
    if prior == "images":  # of base, the first step's is 0: the adapter begins at nothing
        assert logged[0.25]["prior"] == pytest.approx(0.25 * logged[1.0]["prior"], rel=1e-6)
    if prior == "base":
        assert logged[1.0]["prior"] == 0 != lines(run)[1]["prior"]


def test_a_stopped_training_goes_on_bit_for_bit_with_and_without_cache(
    tmp_path: Path, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path)
    own = {"prior": "images", "prior_count": 2, "shuffle_caption": True, "flip": True, "tag_drop": 0.3}
    own |= {"save_per_steps": 2, "timesteps": "steps", "end_step": 2}
    whole = subject_run(tmp_path, mini_flux_loaded, **own, config_name="whole")
    learn_subject(whole, mini_flux_loaded)
    run = subject_run(tmp_path, mini_flux_loaded, **own, resume=True, cache_folder=str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            learn_subject(run, mini_flux_loaded)
    shutil.rmtree(tmp_path / "cache")
    learn_subject(run, mini_flux_loaded)
    assert all(same(weights(run, step), weights(whole, step)) for step in (2, 4, 6))


def test_pictures_are_drawn_under_each_sample_prompt(tmp_path: Path, mini_flux_loaded: Base) -> None:
    dataset(tmp_path, RATIOS[:1])
    own = {"train_iteration": 1, "sample_per_steps": 1, "count_gen": 1, "scales": [0.0, 1.0]}
    heights = []
    for number, prompts in enumerate(([], ["a cat", "a dog, on the hill"])):
        run = subject_run(
            tmp_path, mini_flux_loaded, **own, sample_prompts=prompts, config_name=f"of{number}"
        )
        source = learn_subject(run, mini_flux_loaded)
        assert source.sample_prompts == prompts or source.sample_prompts[0].startswith("a photo of ohwx")
        heights.append(Image.open(run.sample_path(1)).height)
    assert heights[1] > 1.5 * heights[0]


# --- epochs ---


def test_epochs_are_steps_by_the_images_and_saved_by_them(tmp_path: Path, mini_flux_loaded: Base) -> None:
    dataset(tmp_path, RATIOS[:3])  # a bucket each: 3 batches of 2 an epoch, filled up
    run = subject_run(tmp_path, mini_flux_loaded, train_epochs=2, save_per_epochs=1, lr_warmup_steps=5)
    assert (run.config.train_iteration, run.config.save_per_steps) == (6, 3)
    learn_subject(run, mini_flux_loaded)
    assert {path.name.rpartition("_")[2] for path in run.folder.glob("*.safetensors")} == {
        "3epoch.safetensors",
        "6epoch.safetensors",
    }
    line = refused_by(lambda: subject_run(tmp_path, mini_flux_loaded, train_epochs=2, lr_warmup_steps=6))
    assert line == "lr_warmup_steps: expected fewer than 6 (train_iteration), found 6"


def test_what_comes_after_takes_the_steps_that_were_trained(
    tmp_path: Path, mini_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two processes half as many of the dataset, which is gone by now."""
    folder = dataset(tmp_path, RATIOS[:1] * 4)
    alone = subject_run(tmp_path, mini_flux, train_epochs=4)
    with monkeypatch.context() as patch:
        for key, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
            patch.setenv(key, value)
        run = subject_run(tmp_path, mini_flux, train_epochs=4)
    assert (alone.config.train_iteration, run.config.train_iteration) == (8, 4)
    from utils.config.load import save_config

    save_config(run.config, run.config_path)
    shutil.rmtree(folder)
    config = replace(alone.config, train_iteration=500)
    (after,) = CaptionedImages.trained_runs(config)
    assert after == run
    line = refused_by(lambda: CaptionedImages.trained_runs(replace(config, train_epochs=5)))
    assert "expected a folder anna or a file anna.toml" in line


# --- images of the class ---


def test_images_of_the_class_are_generated_once_and_kept(
    tmp_path: Path, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path, RATIOS[:2])
    own = {"prior": "images", "prior_count": 3, "batch_size_gen": 2}
    batches = batches_of(subject_run(tmp_path, mini_flux_loaded, **own), mini_flux_loaded)
    made = sorted((tmp_path / "out" / "class_images").iterdir())
    assert len(made) == 3
    assert {len(each.captions) for each in batches.of_class.values()} == {3}
    assert {caption for each in batches.of_class.values() for caption in each.captions} == {
        "a photo of a person"
    }
    times = [path.stat().st_mtime_ns for path in made]
    made[1].unlink()
    batches_of(subject_run(tmp_path, mini_flux_loaded, **own), mini_flux_loaded)
    again = sorted((tmp_path / "out" / "class_images").iterdir())
    assert again == made
    assert [path.stat().st_mtime_ns == time for path, time in zip(again, times, strict=True)] == [
        True,
        False,
        True,
    ]
    # under another prompt they are others
    batches_of(subject_run(tmp_path, mini_flux_loaded, **own, class_prompt="a cat"), mini_flux_loaded)
    assert len(list((tmp_path / "out" / "class_images").iterdir())) == 6


def test_images_of_ones_own_come_first_are_left_and_count(tmp_path: Path, mini_flux_loaded: Base) -> None:
    dataset(tmp_path, RATIOS[:1])
    for stem in ("0", "1", "me"):
        picture(tmp_path / "people" / f"{stem}.png", (40, 40), seed=7)
    own = {"prior": "images", "prior_folder": str(tmp_path / "people"), "prior_count": 4}
    run = subject_run(tmp_path, mini_flux_loaded, **own)
    before = {path.name: path.read_bytes() for path in (tmp_path / "people").iterdir()}
    fingerprint = CaptionedImages.of(run).fingerprint()
    batches = batches_of(run, mini_flux_loaded)
    there = {path.name: path.read_bytes() for path in (tmp_path / "people").iterdir()}
    assert len(there) == 4
    assert before.items() <= there.items()
    assert [len(each.captions) for each in batches.of_class.values()] == [4]

    # what was generated is no other training, another image of one's own is
    assert CaptionedImages.of(run).fingerprint() == fingerprint
    picture(tmp_path / "people" / "me.png", (40, 40), seed=8)
    assert CaptionedImages.of(run).fingerprint() != fingerprint
    (tmp_path / "people" / "torn.png").write_bytes(b"\x89PNG")
    line = refused_by(CaptionedImages.of(run).read)
    assert line.startswith("prior_folder: ")
    assert "torn.png" in line


def test_images_of_the_class_in_the_dataset_make_the_prior(tmp_path: Path, mini_flux_loaded: Base) -> None:
    picture(tmp_path / "a" / "1.png", caption="ohwx person")
    picture(tmp_path / "b" / "1.png", caption="a man person", seed=1)
    picture(tmp_path / "b" / "2.png", caption="a woman", seed=2)
    subsets = "".join(
        f"[[datasets.subsets]]\nimage_dir = '{tmp_path}/{name}'\nis_reg = {reg}\nnum_repeats = {repeats}\n"
        for name, reg, repeats in (("a", "false", 4), ("b", "true", 1))
    )
    (tmp_path / "anna.toml").write_text(f"[[datasets]]\nresolution = 32\nbatch_size = 2\n{subsets}")
    run = subject_run(tmp_path, mini_flux_loaded)
    assert run.config.prior == "images"
    batches = batches_of(run, mini_flux_loaded)
    (of_class,) = batches.of_class.values()
    assert sorted(of_class.captions) == ["a man person", "a man person", "a woman", "a woman"]
    assert not (tmp_path / "out" / "class_images").exists()
    drawn_captions = {caption for batch in drawn(batches) for caption in batch.class_prompts}
    assert drawn_captions <= {"a man person", "a woman"}
    assert batches.source.steps_of_epoch == 2  # of the subject alone
    assert class_images.given_class_images(run.config) == {}
