"""The measuring scripts on a perfect editor, on one that does nothing, and with or without networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import Script
from tests.measure.conftest import clip_folder, dino_folder  # noqa: F401
from tests.train.measuring import OF_IMAGES, OUT, RED, cells, means, options, written
from tinyflux.people import ATTRIBUTES
from utils.measure.encoders import ENCODERS


class Network:
    """In place of every outside network: a colour of at most 90 degrees, as a unit vector."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        colour = torch.cat([images.mean(dim=(2, 3)) / 2 + 0.5, torch.full((len(images), 1), 0.3)], dim=1)
        return torch.nn.functional.normalize(colour, dim=1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.embed(images)

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0, 0, 0]]).repeat(len(texts), 1)

    def distance(self, a: torch.Tensor, b: torch.Tensor, resolution: int | None) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    def to(self, device: torch.device) -> Network:
        return self

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.fixture
def all_there(site: Path, measure: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every outside network has weights."""
    for name in ENCODERS:
        monkeypatch.setitem(ENCODERS, name, (lambda source, device: Network(), ""))
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", lambda *args: Network())
    path = site / "config/mini.yaml"
    path.write_text(path.read_text().replace("_weights: ''", "_weights: there"))


# --- the ends of the scales ---


def test_a_perfect_editor(measure: Script) -> None:
    perfect = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=datasets/age/target")
    for name in OF_IMAGES:
        status, _, err = measure(name, *perfect, *options(name))
        assert status == 0, err
    assert means("edit_strength", "1") == {"age, moved": pytest.approx(1)}
    # of what the pairs leave alone, only the smile is read off red as well
    assert means("preservation", "1")["leak"] == pytest.approx(RED / 255 / (len(ATTRIBUTES) - 1))
    found = means("slider", "")
    assert (found["CR"], found["Spearman"]) == pytest.approx((1, 1), abs=1e-5)
    assert means("distribution", "0")["FID probe"] == pytest.approx(0, abs=1e-6)


def test_an_editor_that_does_nothing(measure: Script) -> None:
    idle = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=datasets/age/source")
    idle += ("--at", "2=datasets/age/source")
    for name in OF_IMAGES:
        status, out, err = measure(name, *idle, *options(name))
        assert status == 0, err
        if name == "preservation":
            assert [line["PSNR"] for line in cells(out)] == ["inf", "inf"]
    assert means("edit_strength", "1") == {"age, moved": 0}
    left = means("preservation", "1")
    assert left.pop("PSNR") is None
    assert left == {"pixel change": 0, "SSIM": pytest.approx(1), "probe distance": 0, "leak": 0}
    row = written("preservation")["PSNR", "1"]
    assert (row["count"], row["finite"]) == (2, 0)
    found = means("slider", "")
    assert found.pop("CSM") is found.pop("OS") is None
    assert set(found.values()) == {0}
    assert {"delta_smooth", "CR", "SP", "Spearman", "saturates"} <= found.keys()


def test_one_image_of_two_was_left_alone(measure: Script) -> None:
    Path("after").mkdir()
    for stem, side in (("0", "source"), ("1", "target")):
        shutil.copy(f"datasets/age/{side}/{stem}.png", "after")
    at = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=after")
    status, out, _ = measure("preservation", *at)
    assert status == 0
    (line,) = cells(out)
    assert (line["PSNR"], line["pixel change"]) == (
        "inf",
        f"{RED / 6 / 255:.3f} [0.000, {RED / 3 / 255:.3f}]",
    )
    row = written("preservation")["PSNR", "1"]
    assert (row["count"], row["finite"], row["mean"], row.get("low")) == (2, 1, None, None)


def test_the_pairs_in_clips_eyes(measure: Script, all_there: None) -> None:
    perfect = ("datasets=age", "judge=clip", "--at", "0=datasets/age/source", "--at", "1=datasets/age/target")
    assert measure("edit_strength", *perfect, "--text=old", "--require")[0] == 0
    found = means("edit_strength", "1")
    assert list(found) == ["CLIP direction", "CLIP score"]
    assert found["CLIP direction"] > 0.9  # of each pair with their mean
    embedded = Network().embed(torch.tensor([200, 0, 0]).view(1, 3, 1, 1) / 127.5 - 1)
    with_blue = Network().embed(torch.tensor([200, 0, 80]).view(1, 3, 1, 1) / 127.5 - 1)
    score = 50 * (embedded + with_blue)[0, 0].item()
    assert found["CLIP score"] == pytest.approx(score, abs=1e-3)
    assert measure("slider", *perfect, "--require")[0] == 0
    assert means("slider", "")["CR"] == pytest.approx(1, abs=1e-5)
    # damage is DINOv2's distance, from 0 at scale 0
    before = Network().embed(torch.tensor([[40, 0, 0], [40, 0, 80]])[:, :, None, None] / 127.5 - 1)
    damage = 1 - (before * torch.cat([embedded, with_blue])).sum(dim=1).mean().item()
    assert 0.1 < damage < 0.3  # CLIP's own limit
    assert "breaks" not in means("slider", "")
    assert measure("slider", *perfect, f"--limit={damage / 4}")[0] == 0
    assert means("slider", "")["breaks"] == pytest.approx(0.25, abs=1e-4)


def test_with_miniatures_of_the_real_networks(
    measure: Script,
    painted: Path,
    clip_folder: Path,  # noqa: F811
    dino_folder: Path,  # noqa: F811
) -> None:
    weights = (f"clip_weights={clip_folder}", f"dinov2_weights={dino_folder}", "judge=clip", "datasets=age")
    for name in OF_IMAGES:
        own = ("--text=a cat",) if name == "edit_strength" else options(name)
        status, _, err = measure(name, *weights, *own)
        assert status == 0, err
    assert set(means("edit_strength", "1")) == {"CLIP direction", "CLIP score"}
    assert -1 <= means("edit_strength", "1")["CLIP direction"] <= 1
    assert 0 <= means("edit_strength", "1")["CLIP score"] <= 100
    assert -1 <= means("preservation", "1")["DINOv2"] < 1
    assert {"Spearman", "Pearson"} <= means("slider", "").keys()
    assert written("slider")["CR", ""]["note"].startswith("lpips_alex: not available: no weights named")
    assert set(means("distribution", "1")) == {"FID DINOv2", "KID DINOv2"}


# --- what is not there ---

LACKED = {
    "edit_strength": ["clip"],
    "preservation": ["lpips_alex", "lpips_vgg", "dinov2", "arcface"],
    "slider": ["lpips_alex", "clip"],
    "distribution": ["inception", "dinov2"],
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_what_is_not_available_is_told_with_why_and_how(measure: Script, painted: Path, name: str) -> None:
    arguments = ("datasets=age", "judge=clip", *options(name))
    status, out, err = measure(name, *arguments)
    assert (status, err) == (0, "")
    assert not any("not available" in line.values() for line in cells(out))
    assert "left out, as not available: " in out
    told = [line for line in out.splitlines() if ": not available: no weights named; to have it: " in line]
    assert [line.split(":")[0] for line in told] == LACKED[name]
    absent = [row for row in written(name).values() if "mean" not in row]
    assert {row["note"] for row in absent} == set(told)

    shutil.rmtree(OUT)
    status, out, err = measure(name, *arguments, "--require")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err == f"error: {'; '.join(told)}\n"
    assert written(name)  # what could be measured is kept


def test_with_all_weights_there_nothing_is_lacking(measure: Script, all_there: None, painted: Path) -> None:
    for name in OF_IMAGES:
        for judge in ("probe", "clip"):
            status, out, err = measure(name, "datasets=age", f"judge={judge}", "--require", *options(name))
            assert (status, err) == (0, "")
            assert "not available" not in out
