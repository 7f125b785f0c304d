"""Whatever a study, an image or a LoRA file holds: no traceback, nothing written elsewhere, no code run.

Every case is counted; the last test says how many there were.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch.nn import Module

from tests.train.fuzzing import (
    CASES,
    KINDS,
    NAMES,
    OUTCOMES,
    SCALARS,
    TRICKS,
    VALUES,
    Runs,
    bomb,
    check_study,
    fuzzed,
    load,
    read,
    run,
    spoiled,
    tree,
)
from utils.lora.files import adapter_loras, save_lora, save_reference, write_lora
from utils.models.adapters import add_adapter, remove_adapter

# --- studies ---

STUDIES = st.dictionaries(NAMES, VALUES, max_size=5)
OVERRIDES = st.lists(st.tuples(NAMES, SCALARS.map(str)).map("=".join) | st.text(max_size=15), max_size=3)


@given(study=STUDIES, arguments=OVERRIDES)
@fuzzed(200)
def test_studies(site: Path, study: dict, arguments: list[str]) -> None:
    CASES["study"] += 1
    plain = {"base": "mini", "device": "cpu", "datasets": ["age"]}
    text = yaml.safe_dump({**plain, **study}, allow_unicode=True)
    (site / "config/fuzz.yaml").write_text(text, encoding="utf-8")
    check_study(site, arguments)


@given(
    study=st.dictionaries(
        st.sampled_from(
            ["seed", "lr", "alpha", "cfg_eta", "noise_scales", "guidance_scale", "train_start", "rank"]
        ),
        st.sampled_from([0, 1, -1, 2**63, 2**64, 10**30, 1e-300, 1e300, 3e38, 0.5]),
        max_size=4,
    )
)
@fuzzed(25)
def test_studies_that_are_trained(site: Path, study: dict) -> None:
    CASES["training"] += 1
    plain = {"base": "mini", "device": "cpu", "datasets": ["age"], "train_iteration": 1, "rank": 1}
    (site / "config/fuzz.yaml").write_text(yaml.safe_dump({**plain, **study}), encoding="utf-8")
    before = tree(site.parent)
    status, _, err = run("train_image_script", "--c=fuzz")
    assert status in (0, 1, 2)
    assert "Traceback" not in err, err
    written = {Path(path).relative_to(site.name).parts[0] for path in tree(site.parent) - before}
    assert written <= {"output"}
    OUTCOMES[f"training: {'done' if status == 0 else 'refused'}"] += 1


@given(content=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
@fuzzed(60)
def test_studies_that_are_no_yaml(site: Path, content: str) -> None:
    CASES["study file"] += 1
    (site / "config/fuzz.yaml").write_text(content, encoding="utf-8")
    status, _, err = run("train_image_script", "--c=fuzz", "--dry-run", "base=mini")
    assert status in (0, 2)
    assert "Traceback" not in err
    OUTCOMES[f"study file: {'listed' if status == 0 else 'refused'}"] += 1


@given(name=TRICKS, key=st.sampled_from(["datasets", "config_name"]))
@fuzzed(40)
def test_names_do_not_lead_out_of_the_output_folder(site: Path, name: str, key: str) -> None:
    CASES["name"] += 1
    study = {"base": "mini", key: [name] if key == "datasets" else name}
    (site / "config/fuzz.yaml").write_text(yaml.safe_dump(study))
    check_study(site, [])


# --- images ---

IMAGES = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: spoiled(KINDS[kind]))
SIDES = st.sampled_from([0, 1, 70_000, 2**31 - 1]) | st.integers(0, 2**31 - 1)


@given(data=IMAGES, suffix=st.sampled_from([".png", ".jpg", ".webp"]))
@fuzzed(160)
def test_images(tmp_path: Path, data: bytes, suffix: str) -> None:
    CASES["image"] += 1
    read(tmp_path / f"image{suffix}", data)


@given(width=SIDES, height=SIDES)
@fuzzed(30)
def test_images_that_say_they_are_huge(tmp_path: Path, width: int, height: int) -> None:
    CASES["image bomb"] += 1
    read(tmp_path / "image.png", bomb(width, height))


# --- LoRA files ---

CONTAINERS = st.sampled_from(["safetensors", "pt"])
KOHYA_STEM = "lora_unet_double_blocks_0_img_attn_qkv"


@pytest.fixture(scope="module")
def transformer(mini_flux: Path) -> Module:
    """The miniature, bare."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(mini_flux, subfolder="transformer")


@pytest.fixture(scope="module")
def good(transformer: Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same LoRA in both containers."""
    folder = tmp_path_factory.mktemp("good")
    add_adapter(transformer, "edit", rank=2, alpha=2)
    save_lora(transformer, "edit", folder / "safetensors", {})
    save_reference(transformer, "edit", folder / "pt")
    write_lora(folder / "kohya", adapter_loras(transformer, "edit"), "kohya", {})
    remove_adapter(transformer, "edit")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(draws=st.data(), kind=CONTAINERS)
@fuzzed(160)
def test_lora_files(tmp_path: Path, transformer: Module, good: dict, draws: st.DataObject, kind: str) -> None:
    CASES["LoRA"] += 1
    load(transformer, tmp_path / "lora.bin", draws.draw(spoiled(good[kind])))


LORA_KEYS = st.text(max_size=30) | st.sampled_from(["transformer.x.lora_A.weight", "../../x", "/etc/passwd"])
TENSORS = st.sampled_from(
    [torch.ones(0), torch.ones(2, 2), torch.full((2, 2), math.nan), torch.ones(2, dtype=torch.int64)]
)


@given(values=st.dictionaries(LORA_KEYS, TENSORS, max_size=4), kind=CONTAINERS)
@fuzzed(40)
def test_lora_files_of_any_keys(tmp_path: Path, transformer: Module, values: dict, kind: str) -> None:
    CASES["LoRA keys"] += 1
    values = {key: tensor.clone() for key, tensor in values.items()}
    buffer = io.BytesIO()
    torch.save(values, buffer)
    data = save_safetensors(values) if kind == "safetensors" else buffer.getvalue()
    load(transformer, tmp_path / "lora.bin", data)


HEADER_KEYS = st.sampled_from(["lora_adapter_metadata", "kohya_parts", "base_hash"]) | st.text(max_size=8)
INNER_KEYS = st.sampled_from(["lora_alpha", "r", KOHYA_STEM]) | st.text(max_size=5)
HEADER_VALUES = st.recursive(
    st.none() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(INNER_KEYS, inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(HEADER_KEYS, HEADER_VALUES.map(json.dumps), max_size=3)


@given(header=HEADERS, kind=st.sampled_from(["safetensors", "kohya"]))
@fuzzed(80)
def test_lora_headers(tmp_path: Path, transformer: Module, good: dict, header: dict, kind: str) -> None:
    CASES["LoRA header"] += 1
    tensors = load_safetensors(good[kind])
    load(transformer, tmp_path / "lora.bin", save_safetensors(tensors, header))


@pytest.mark.parametrize("how", ["pickle", "zip", "torch", "zip bomb", "zip paths"])
def test_lora_files_that_would_do_harm(tmp_path: Path, transformer: Module, how: str) -> None:
    CASES["LoRA that runs or grows"] += 1
    ran, buffer = tmp_path / "ran", io.BytesIO()
    if how == "pickle":
        buffer.write(pickle.dumps(Runs(ran)))
    elif how == "torch":
        torch.save({"a": Runs(ran)}, buffer)
    else:
        content = pickle.dumps(Runs(ran)) if how == "zip" else bytes(300_000_000 if how == "zip bomb" else 10)
        name = "../../ran" if how == "zip paths" else "archive/data.pkl"
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, content)
            file.writestr("archive/version", b"3\n")
    load(transformer, tmp_path / "inner/lora.pt", buffer.getvalue())
    assert not ran.exists()


def test_there_were_enough_cases(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfuzzed: {sum(CASES.values())} cases: {dict(CASES)}; {dict(OUTCOMES)}")
    assert sum(CASES.values()) >= 500
