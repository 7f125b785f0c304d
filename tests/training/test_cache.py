"""Cached latents and embeddings: the same tensors, another entry for what makes others, safe to delete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import MINI_SEQUENCE_LENGTH
from tests.toy_base import Toy
from utils.models.base import Base, PromptEmbeds, load_base_model
from utils.training.cache import Cache, cached_latents, cached_prompts, part_hash

PROMPTS = ["a photo of a cat", "", "a photo of a cat"]


@pytest.fixture
def pixels() -> Tensor:
    values = torch.randint(256, (3, 32, 48), generator=torch.Generator().manual_seed(0))
    return values / 127.5 - 1


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def equal(one: PromptEmbeds, other: PromptEmbeds) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.tensors.items()
    )


def encoded(base: Base, folder: Path | None) -> Mapping[str, PromptEmbeds]:
    return cached_prompts(base, PROMPTS, MINI_SEQUENCE_LENGTH, Cache(folder))


def never(*_: object) -> Tensor:
    raise AssertionError("expected it from the cache, found it encoded again")


def test_the_same_tensors_with_and_without_and_each_made_once(
    mini_flux_loaded: Base, tmp_path: Path, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = mini_flux_loaded, tmp_path / "cache"
    plain = base.encode_images(pixels[None])[0]
    embeds = encoded(base, None)
    assert torch.equal(cached_latents(base, pixels, Cache(None)), plain)
    assert not folder.exists()
    for _ in range(2):
        assert torch.equal(cached_latents(base, pixels, Cache(folder)), plain)
        of_folder = encoded(base, folder)
        assert [*of_folder] == [*embeds] == PROMPTS[:2]
        assert len(of_folder) == 2
        assert all(equal(of_folder[prompt], embeds[prompt]) for prompt in embeds)
        assert len(entries(folder)) == 3
        monkeypatch.setattr(base, "encode_images", never)
        monkeypatch.setattr(base, "encode_prompts", never)


def test_another_image_size_encoder_or_length_is_another_entry(
    mini_flux: Path, mini_flux_loaded: Base, tmp_path: Path, pixels: Tensor
) -> None:
    base, cache = mini_flux_loaded, Cache(tmp_path)
    changed = pixels.clone()
    changed[0, 0, 0] = -changed[0, 0, 0]
    others = [pixels, changed, pixels.reshape(3, 48, 32), pixels[:, :, :32]]
    for number, image in enumerate(others, 1):
        cached_latents(base, image, cache)
        assert len(entries(tmp_path)) == number
    seen = len(others)

    def another(change) -> None:
        """One encoder is another: every image and prompt that asks it is encoded anew."""
        nonlocal seen
        fresh = load_base_model(str(mini_flux), torch.device("cpu"), torch.float32)
        change(fresh)
        cached_latents(fresh, pixels, cache)
        cached_prompts(fresh, ["a cat"], MINI_SEQUENCE_LENGTH, cache)
        assert len(entries(tmp_path)) > seen
        seen = len(entries(tmp_path))

    another(lambda fresh: None)  # the prompt's first time
    another(lambda fresh: next(fresh.part("vae").parameters()).data.mul_(2))
    another(lambda fresh: fresh.part("vae").register_to_config(scaling_factor=0.5))
    another(lambda fresh: next(fresh.part("text_encoder_2").parameters()).data.mul_(2))
    cached_prompts(base, ["a cat"], MINI_SEQUENCE_LENGTH - 1, cache)
    assert len(entries(tmp_path)) == seen + 1
    assert part_hash(base.part("vae")) == part_hash(
        load_base_model(str(mini_flux), torch.device("cpu"), torch.float32).part("vae")
    )


def test_computing_in_another_type_is_another_encoder(mini_flux: Path) -> None:
    """Weights that bfloat16 holds are the same in float32, what is computed with them is not."""
    base = load_base_model(str(mini_flux), torch.device("cpu"), torch.bfloat16)
    hashed = part_hash(base.part("vae"))
    wider = load_base_model(str(mini_flux), torch.device("cpu"), torch.bfloat16)
    wider.part("vae").float()
    assert part_hash(wider.part("vae")) != hashed


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_a_damaged_entry_is_made_anew(
    mini_flux_loaded: Base, tmp_path: Path, pixels: Tensor, damage: bytes | None
) -> None:
    expected = cached_latents(mini_flux_loaded, pixels, Cache(tmp_path)).clone()
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(whole[:-1] if damage is None else damage)
    assert torch.equal(cached_latents(mini_flux_loaded, pixels, Cache(tmp_path)), expected)
    assert entry.read_bytes() == whole


def test_the_folder_may_be_deleted_while_its_embeddings_are_in_use(
    mini_flux_loaded: Base, tmp_path: Path
) -> None:
    base, folder = mini_flux_loaded, tmp_path / "cache"
    embeds, expected = encoded(base, folder), encoded(base, None)
    shutil.rmtree(folder)
    base.release_text_encoders()
    assert all(equal(embeds[prompt], expected[prompt]) for prompt in expected)
    assert not folder.exists()


def test_an_entry_that_another_process_makes_meanwhile_is_no_fault(tmp_path: Path) -> None:
    cache, tensors = Cache(tmp_path), {"latents": torch.arange(4.0)}
    found = cache.get(["it"], lambda: cache.get(["it"], lambda: tensors))
    assert torch.equal(found["latents"], tensors["latents"])
    assert len(entries(tmp_path)) == 1


def test_a_base_without_encoders_has_entries_of_its_own(tmp_path: Path, pixels: Tensor) -> None:
    class Other(Toy):
        """Another family without them."""

    for number, kind in enumerate((Toy, Other), 1):
        base = kind("", torch.device("cpu"), torch.float32)
        latents = cached_latents(base, pixels, Cache(tmp_path))
        assert torch.equal(latents, base.encode_images(pixels[None])[0])
        assert len(entries(tmp_path)) == number
