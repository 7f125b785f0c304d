"""New words and LoRAs on text encoders that learn: alone, together, and as stock diffusers reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from tests.conftest import MINI_RESOLUTION
from tests.training.mini_subjects import dataset, learn_subject, subject_run
from tests.training.test_checkpoints import KilledError, kill_at
from utils.config.runs import Run
from utils.errors import UserError
from utils.flow.sampling import initial_noise
from utils.generation.sweep import applied_loras, sweep_images
from utils.generation.texts import Edits, encode_under, with_files
from utils.lora.files import read_lora
from utils.lora.words import read_words
from utils.models.base import Base

WORD = {"new_token": "<new1>", "token_init": "cat", "trigger": ""}
PLAIN = [(32, 32)] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dataset(tmp_path, PLAIN)
    return tmp_path


def norms(run: Run, step: int | None = None) -> dict[str, float]:
    """How large what was learned is: of the LoRAs' changes by part, and of the word's own."""
    file = read_lora(run.weights_path(step))
    found = {
        part: sum(float((lora.weight_b @ lora.weight_a).norm()) for lora in own.values())
        for part, own in file.by_part.items()
    }
    return found | {word.word: float(next(iter(word.rows.values())).norm()) for word in file.words}


def rows(run: Run, step: int | None = None) -> torch.Tensor:
    (word,) = read_lora(run.weights_path(step)).words
    return word.rows["text_encoder"]


def test_only_the_new_row_learns_and_the_base_is_left_as_it_was(folder: Path, mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    before = {name: value.clone() for name, value in base.part("text_encoder").state_dict().items()}
    began = (
        base.part("text_encoder")
        .get_input_embeddings()
        .weight[base.part("tokenizer")("cat", add_special_tokens=False).input_ids]
        .clone()
    )
    run = subject_run(folder, base, **WORD)
    learn_subject(run, base)
    after = base.part("text_encoder").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "<new1>" not in base.part("tokenizer").get_vocab()

    # The row moved from where it began, T5 has none, and a file of its own says the same.
    assert rows(run).shape == began.shape
    assert 1e-3 < (rows(run) - began).abs().max() < 0.1
    (word,) = read_lora(run.weights_path()).words
    assert (word.word, word.spelled, list(word.rows)) == ("<new1>", "cat", ["text_encoder"])
    (own,) = read_words(run.words_path())
    assert torch.equal(own.rows["text_encoder"], word.rows["text_encoder"])


def test_the_word_learns_first_and_then_the_lora(folder: Path, mini_flux_loaded: Base) -> None:
    own = {**WORD, "text_rank": 2, "token_until": 2, "save_per_steps": 2, "train_iteration": 4}
    run = subject_run(folder, mini_flux_loaded, **own)
    learn_subject(run, mini_flux_loaded)
    assert norms(run, 2)["transformer"] == norms(run, 2)["text_encoder"] == 0
    assert norms(run, 4)["transformer"] > 0
    assert norms(run, 4)["text_encoder"] > 0
    assert torch.equal(rows(run, 2), rows(run, 4))

    # A word alone: its LoRA does nothing.
    alone = subject_run(folder, mini_flux_loaded, **own | {"token_until": 4, "config_name": "alone"})
    learn_subject(alone, mini_flux_loaded)
    assert norms(alone)["transformer"] == norms(alone)["text_encoder"] == 0
    assert not torch.equal(rows(alone, 2), rows(alone, 4))


@pytest.mark.parametrize("prior", ["none", "base"])
def test_stopped_it_goes_on_bit_for_bit(
    folder: Path, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch, prior: str
) -> None:
    own = {**WORD, "text_rank": 2, "token_until": 3, "save_per_steps": 2, "prior": prior}
    whole = subject_run(folder, mini_flux_loaded, **own, config_name="whole")
    learn_subject(whole, mini_flux_loaded)
    run = subject_run(folder, mini_flux_loaded, **own, resume=True)
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            learn_subject(run, mini_flux_loaded)
    learn_subject(run, mini_flux_loaded)
    one, other = load_file(run.weights_path()), load_file(whole.weights_path())
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_t5_learns_a_row_when_it_is_asked_for(folder: Path, mini_flux_loaded: Base) -> None:
    run = subject_run(folder, mini_flux_loaded, **WORD, token_t5=True, train_iteration=2)
    learn_subject(run, mini_flux_loaded)
    (word,) = read_lora(run.weights_path()).words
    assert set(word.rows) == {"text_encoder", "text_encoder_2"}


def test_words_that_are_none_are_told(folder: Path, mini_flux_loaded: Base) -> None:
    for token, wanted in (("a", "expected a new word, found one that"), ("two words", "expected a word")):
        run = subject_run(folder, mini_flux_loaded, **WORD | {"new_token": token})
        with pytest.raises(UserError, match=wanted):
            learn_subject(run, mini_flux_loaded)


def images_of(base: Base, run: Run, prompt: str, scales: Sequence[float]) -> dict[float, torch.Tensor]:
    length = run.config.max_sequence_length
    plain = {prompt: base.encode_prompts([prompt], length)}
    loras = run.lora_paths
    embeds = with_files(
        encode_under(base, plain, length, [Edits(loras, scales, [prompt])]), ["semantic"], loras
    )
    with applied_loras(base.transformer, loras, text_apart=True):
        return sweep_images(base, embeds[prompt], [1], [0], scales, run.config)[0]


def test_stock_diffusers_draws_what_was_learned(
    folder: Path, mini_flux_loaded: Base, mini_flux: Path
) -> None:
    """Its LoRA by load_lora_weights, its word by load_textual_inversion; T5 reads the word's init there."""
    base = mini_flux_loaded
    run = subject_run(folder, base, **WORD, text_rank=2, text_lr=0.02, token_lr=0.1)
    learn_subject(run, base)
    ours = images_of(base, run, "a photo of <new1> person", [0.0, 1.0])

    pipeline = FluxPipeline.from_pretrained(mini_flux)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(run.weights_path())
    pipeline.load_textual_inversion(run.words_path())
    noise = initial_noise([1], base.latent_shape(MINI_RESOLUTION, MINI_RESOLUTION))
    theirs = pipeline(
        prompt="a photo of <new1> person",
        prompt_2="a photo of cat person",
        height=MINI_RESOLUTION,
        width=MINI_RESOLUTION,
        num_inference_steps=run.config.num_inference_steps,
        guidance_scale=run.config.guidance_scale,
        max_sequence_length=run.config.max_sequence_length,
        latents=pipeline._pack_latents(noise, 1, *noise.shape[1:]),
        output_type="pt",
    ).images
    torch.testing.assert_close(ours[1.0], theirs * 2 - 1, atol=2e-5, rtol=0)
    assert (ours[1.0] - ours[0.0]).abs().max() > 1e-3
