"""base=flux2_klein_4b through the scripts, on a miniature: trained, loaded by the stock pipeline, sampled."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import TRAIN, Script
from tests.mini_flux2 import SEQUENCE_LENGTH, save_mini_flux2
from utils.errors import UserError
from utils.lora.__main__ import main as lora_tools
from utils.lora.files import read_lora, read_metadata
from utils.lora.loading import load_lora
from utils.models.base import Base, load_base_model
from utils.models.velocity import Velocity

SETTINGS = (
    *("--c=mini", "base=flux2_klein_4b", "pretrained_model_name_or_path=flux2", "datasets=age"),
    *("resolution=32", "dtype=float32", f"max_sequence_length={SEQUENCE_LENGTH}", "rank=2", "lr=0.1"),
    *("num_inference_steps=4", "skips=1", "base_note="),
)


@pytest.fixture(autouse=True)
def flux2(site: Path) -> None:
    """The shipped configs of the base, and a miniature of it."""
    for path in (TRAIN / "config/base").glob("flux2_*.yaml"):
        shutil.copy(path, site / "config/base")
    save_mini_flux2(site / "flux2")


def trained(script: Script, *overrides: str) -> Path:
    status, _, err = script("train_image_script", *SETTINGS, *overrides)
    assert status == 0, err
    (lora,) = Path("output/models").rglob("*2epoch.safetensors")
    return lora


@torch.no_grad()
def ours(base: Base, latents: torch.Tensor, steps: int = 3) -> torch.Tensor:
    model = Velocity(base, base.encode_prompts(["a cat"], SEQUENCE_LENGTH), 4.0).scaled({"edit": 1.0})
    for sigma, sigma_next in itertools.pairwise(base.sigmas(steps, *latents.shape[-2:])):
        latents = latents + (sigma_next - sigma) * model(latents, sigma[None])
    return (base.decode_latents(latents) + 1) / 2


def stock(path: Path | None, latents: torch.Tensor) -> torch.Tensor:
    from diffusers import Flux2KleinPipeline

    pipeline = Flux2KleinPipeline.from_pretrained("flux2")
    pipeline.set_progress_bar_config(disable=True)
    if path is not None:
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
    sizes = {"height": 32, "width": 32, "num_inference_steps": 3, "max_sequence_length": SEQUENCE_LENGTH}
    return pipeline(prompt="a cat", guidance_scale=4.0, latents=latents, output_type="pt", **sizes).images


def test_trained_loaded_by_stock_and_sampled(script: Script, site: Path) -> None:
    assert script("train_image_script", *SETTINGS, "--dry-run")[0] == 0
    lora = trained(script)
    header = read_metadata(lora)
    assert header["ss_base_model_version"] == "flux2"
    assert "from diffusers import Flux2KleinPipeline" in (lora.parent / "README.md").read_text()
    linears = {name.split(".lora_")[0].removesuffix(".alpha") for name in load_file(lora)}
    assert len({".".join(name.split(".")[:3]) for name in linears}) == 2 + 3

    # Our image is the stock pipeline's, from the file as trained and in the original code's names.
    base = load_base_model("flux2", torch.device("cpu"), torch.float32)
    load_lora(base.transformer, lora, "edit")
    latents = torch.randn(1, 128, 2, 2, generator=torch.Generator().manual_seed(0))
    image = ours(base, latents)
    torch.testing.assert_close(stock(lora, latents), image, atol=1e-5, rtol=0)
    assert (stock(None, latents) - image).abs().max() > 1e-3
    assert lora_tools(["convert", str(lora), "kohya.safetensors", "--to", "kohya"]) == 0
    torch.testing.assert_close(stock(site / "kohya.safetensors", latents), image, atol=1e-5, rtol=0)
    back = read_lora(site / "kohya.safetensors").loras
    assert {f"transformer.{name}" for name in back} == linears

    # The sweep.
    status, _, err = script("gen_image_script", *SETTINGS)
    assert status == 0, err
    images = [path.read_bytes() for path in sorted(Path("output/eval").rglob("6666/*.png"))]
    assert len(set(images)) == 3
    with Image.open(next(Path("output/eval").rglob("6666/*.png"))) as picture:
        assert picture.size == (32, 32)

    # A photograph, without an inversion that is trained.
    photograph = ("python_name=train_image_real", "inversion=flowedit", f"semantic_lora_path={lora}")
    status, _, err = script("gen_image_real_script", *SETTINGS, *photograph)
    assert status == 0, err


def test_a_lora_of_another_family_is_one_line_that_names_both(script: Script, mini_flux: Path) -> None:
    lora = trained(script)
    flux1 = load_base_model(str(mini_flux), torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match="expected a LoRA of FluxPipeline, found one of Flux2KleinPipeline"):
        load_lora(flux1.transformer, lora, "edit")


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train_image_real_script", ["python_name=train_image_real", "batch_size=2"]),
        (
            "train_image_script",
            ["python_name=train_image_sliders", "gradient_checkpointing=1", "calibrate=1"],
        ),
        ("train_subject_script", ["python_name=train_subject", "datasets=dog", "cache_folder=cache"]),
        ("train_slider_text_script", ["python_name=slider_text", "datasets=fat"]),
    ],
)
def test_other_methods_train(
    script: Script, site: Path, monkeypatch: pytest.MonkeyPatch, command: str, overrides: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(TRAIN.parent / "slider_text"))
    (site / "datasets/dog").mkdir()
    shutil.copy(site / "datasets/age/source/0.png", site / "datasets/dog")
    (site / "datasets/dog/0.txt").write_text("a dog")
    fields = ("target: a cat", "positive: a fat cat", "unconditional: a cat", "neutral: a cat")
    more = ("action: enhance", "guidance_scale: 4", "resolution: 32", "batch_size: 1")
    (site / "datasets/fat.yaml").write_text("- " + "\n  ".join([*fields, *more]) + "\n")
    status, _, err = script(command, *SETTINGS, *overrides)
    assert status == 0, err
    assert list(Path("output/models").rglob("*2epoch.safetensors"))
