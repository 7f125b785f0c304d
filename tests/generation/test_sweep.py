"""Images over seeds, skips and scales on a miniature FLUX: shapes, batches, what the adapter does, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from utils.config.runs import RealRun, Run, expand_runs
from utils.config.schema import Config
from utils.data.photos import Photo
from utils.data.pixels import to_images
from utils.errors import UserError
from utils.flow.sampling import sweep_forwards
from utils.generation import sweep
from utils.generation.gallery import write_images
from utils.generation.sweep import applied_lora, edit_photo, sweep_images
from utils.lora.files import save_lora
from utils.models.adapters import adapter_names, adapter_parameters, add_adapter, remove_adapter
from utils.models.base import Base, PromptEmbeds

CONFIG = Config(
    resolution=MINI_RESOLUTION,
    max_sequence_length=MINI_SEQUENCE_LENGTH,
    num_inference_steps=4,
    end_step=3,
    skips=[1, 3],
    scales=[0.0, 1.0],
    datasets=["glasses"],
)


@pytest.fixture
def lora(mini_flux_loaded: Base, tmp_path: Path) -> Path:
    """The file of an adapter that changes the velocity a good deal."""
    transformer = mini_flux_loaded.transformer
    add_adapter(transformer, "semantic", rank=2, alpha=2)
    generator = torch.Generator().manual_seed(0)
    for weight in adapter_parameters(transformer, "semantic"):
        weight.data.copy_(torch.randn(weight.shape, generator=generator))
    save_lora(transformer, "semantic", tmp_path / "lora.safetensors", {"step": "2"})
    remove_adapter(transformer, "semantic")
    return tmp_path / "lora.safetensors"


def encode(base: Base, *prompts: str) -> PromptEmbeds:
    return base.encode_prompts(prompts, MINI_SEQUENCE_LENGTH)


def test_pixels_of_every_skip_and_scale(mini_flux_loaded: Base, lora: Path) -> None:
    base, counts = mini_flux_loaded, []
    with applied_lora(base.transformer, lora) as metadata:
        images = sweep_images(
            base,
            encode(base, ""),
            [1, 2, 3],
            [1, 3],
            [0.0, 1.0],
            replace(CONFIG, batch_size_gen=2),
            progress=counts.append,
        )
    assert metadata["step"] == "2"
    assert {skip: list(by_scale) for skip, by_scale in images.items()} == {1: [0.0, 1.0], 3: [0.0, 1.0]}
    assert sum(counts) == 3 * sweep_forwards(4, [1, 3], [0.0, 1.0])
    for by_scale in images.values():
        for pixels in by_scale.values():
            assert pixels.shape == (3, 3, MINI_RESOLUTION, MINI_RESOLUTION)
            assert pixels.dtype == torch.float32
            assert pixels.abs().max() <= 1
    assert torch.equal(images[1][0.0], images[3][0.0])
    early, late = ((images[skip][1.0] - images[skip][0.0]).abs().mean() for skip in (1, 3))
    assert early > late > 1e-4


def test_an_image_does_not_depend_on_its_batch(mini_flux_loaded: Base, lora: Path) -> None:
    base, prompts = mini_flux_loaded, ("a cat", "a dog", "a red hill")
    with applied_lora(base.transformer, lora):
        together = sweep_images(base, encode(base, *prompts), [1, 2, 3], [1], [0.5], CONFIG)[1][0.5]
        for index, prompt in enumerate(prompts):
            alone = sweep_images(base, encode(base, prompt), [index + 1], [1], [0.5], CONFIG)[1][0.5]
            torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().mean() > 1e-3


def test_the_lora_is_gone_afterwards_whatever_happens(mini_flux_loaded: Base, lora: Path) -> None:
    base = mini_flux_loaded
    before = sweep_images(base, encode(base, ""), [1], [0], [0.0], CONFIG)[0][0.0]
    with pytest.raises(RuntimeError), applied_lora(base.transformer, lora):
        raise RuntimeError
    assert adapter_names(base.transformer) == []
    assert torch.equal(before, sweep_images(base, encode(base, ""), [1], [0], [0.0], CONFIG)[0][0.0])
    with (
        pytest.raises(UserError, match="expected a LoRA file"),
        applied_lora(base.transformer, lora.parent / "no.pt"),
    ):
        pass


def test_what_cannot_be_generated(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    with pytest.raises(ValueError, match="at least one seed"):
        sweep_images(base, encode(base, ""), [], [0], [0.0], CONFIG)
    with pytest.raises(ValueError, match="no adapter semantic"):
        sweep_images(base, encode(base, ""), [1], [0], [0.5], CONFIG)
    with pytest.raises(ValueError, match="expected 1 prompt or 3"):
        sweep_images(base, encode(base, "a", "b"), [1, 2, 3], [0], [0.0], CONFIG)


def test_files_and_grids(mini_flux_loaded: Base, lora: Path, tmp_path: Path) -> None:
    base, prompts = mini_flux_loaded, ["a cat", "a dog"]
    config = replace(
        CONFIG,
        output_folder_gen=str(tmp_path / "gen"),
        use_trained_lora_path=True,
        trained_lora_path=[str(lora)],
    )
    (run,) = expand_runs(config)
    embeds = {prompt: encode(base, prompt) for prompt in prompts}
    with applied_lora(base.transformer, run.lora_paths[0]):
        grids = write_images(run, base, [8, 9], prompts, embeds)
        alone = sweep_images(base, embeds["a dog"], [9], [3], [1.0], CONFIG)[3][1.0]
    assert grids == [run.grid_path(8), run.grid_path(9)]
    assert written(run) == {
        "8.png",
        "9.png",
        "record.json",
        *(f"{seed}/prompt.txt" for seed in (8, 9)),
        *(f"{s}/skip{skip}_scale{x}.png" for s in (8, 9) for skip in (1, 3) for x in ("0.00", "1.00")),
    }
    assert (run.seed_folder(9) / "prompt.txt").read_text() == "a dog\n"
    pixels = torch.tensor(list(Image.open(run.image_path(9, 3, 1.0)).convert("RGB").tobytes()))
    expected = ((alone[0].permute(1, 2, 0).flatten() + 1) * 127.5).round()
    assert (pixels - expected).abs().max() <= 1
    grid = Image.open(grids[0])
    assert grid.width > 2 * 256
    assert grid.height > 2 * 256


def written(run: Run) -> set[str]:
    return {str(path.relative_to(run.seeds_folder)) for path in run.seeds_folder.rglob("*") if path.is_file()}


def test_a_photograph_is_held_to_its_reconstruction(
    mini_flux_loaded: Base, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, decoded = mini_flux_loaded, []
    monkeypatch.setattr(sweep, "Locality", lambda: lambda unedited, edited: torch.lerp(unedited, edited, 0.5))
    monkeypatch.setattr(base, "decode_latents", lambda latents: decoded.append(latents) or latents)
    pixels = torch.linspace(-1, 1, 3 * MINI_RESOLUTION**2).reshape(3, MINI_RESOLUTION, MINI_RESOLUTION)
    photo = Photo(to_images(pixels[None])[0], pixels, (0, 0, MINI_RESOLUTION, MINI_RESOLUTION))

    def latents(locality: bool) -> list[torch.Tensor]:
        decoded.clear()
        config = replace(CONFIG, inversion="flowedit", skips=[1], locality=locality)
        edit_photo(RealRun(config, "real", 1.0, 1), base, photo, 0, encode(base, ""))
        return list(decoded)

    with applied_lora(base.transformer, lora):
        free, held = latents(locality=False), latents(locality=True)
    assert torch.equal(held[0], free[0])
    torch.testing.assert_close(held[1], (free[0] + free[1]) / 2)
    assert not torch.allclose(held[1], free[1])
