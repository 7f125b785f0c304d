"""A base is one file and one row: a toy family is trained, sampled and refused as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import Script
from tests.toy_base import FAMILY, save_toy
from utils.lora.files import read_metadata
from utils.models.families import FAMILIES


@pytest.fixture(autouse=True)
def toy(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row, a toy's folder, and the config that names it."""
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    save_toy(site / "toy")
    base = (site / "config/base/mini.yaml").read_text().splitlines()[1:]
    (site / "config/base/toy.yaml").write_text("\n".join(["pretrained_model_name_or_path: toy", *base]))


@pytest.mark.parametrize("train_method", ["full", "look"])
def test_a_toy_base_is_trained_and_sampled(script: Script, train_method: str) -> None:
    study = ("--c=mini", "base=toy", "resolution=30", f"train_method={train_method}", "resize=stretch")
    status, _, err = script("train_image_script", *study, "datasets=age", "lr=0.1")
    assert status == 0, err
    (lora,) = Path("output/models").rglob("*2epoch.safetensors")
    linears = {name.split(".lora_")[0].removesuffix(".alpha") for name in load_file(lora)}
    wanted = ("look", "move") if train_method == "full" else ("look",)
    assert linears == {f"transformer.layers.{i}.{name}" for i in range(2) for name in wanted}

    header = read_metadata(lora)
    assert (header["ss_base_model_version"], header.get("ss_network_module")) == ("toy", None)
    text = (lora.parent / "README.md").read_text()
    assert "from diffusers import ToyPipeline" in text
    assert "flux" not in text.lower()

    status, _, err = script("gen_image_script", *study, "datasets=age")
    assert status == 0, err
    images = [path.read_bytes() for path in sorted(Path("output/eval").rglob("6666/*.png"))]
    assert len(set(images)) == 3
    with Image.open(next(Path("output/eval").rglob("6666/*.png"))) as image:
        assert image.size == (30, 30)


def test_what_it_cant_do_is_told_before_it_is_loaded(script: Script, loads: list) -> None:
    for override, fault in {
        "resolution=31": "resolution: expected a multiple of 2, found 31",
        "train_method=xattn": "train_method: expected one of full, look, found 'xattn'",
    }.items():
        status, _, err = script("train_image_script", "--c=mini", "base=toy", override)
        assert (status, loads) == (2, [])
        assert fault in err
