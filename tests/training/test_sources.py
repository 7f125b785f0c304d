"""Sources: what a run learns from, found, hashed and read."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from utils.config.runs import expand_runs
from utils.config.schema import Config
from utils.data.prompts import load_slider_prompts
from utils.errors import UserError
from utils.training.captioned import CaptionedImages
from utils.training.methods import METHODS
from utils.training.slider_prompts import SliderPrompts
from utils.training.sources import ImagePairs, Photograph, shared

ENTRY = """- target: {0}
  positive: old {0}
  unconditional: young {0}
  neutral: {0}
  action: enhance
  guidance_scale: 1.5
  resolution: 32
  batch_size: 2
"""


@pytest.fixture
def pairs(tmp_path: Path) -> ImagePairs:
    folders = tmp_path / "source", tmp_path / "target"
    for side in folders:
        side.mkdir()
        for name in "ab":
            Image.new("RGB", (32, 32), (ord(name), len(side.name), 0)).save(side / f"{name}.png")
    return ImagePairs(*folders, 32)


def test_a_fingerprint_is_of_what_the_files_hold_not_of_their_names(pairs: ImagePairs) -> None:
    whole = pairs.fingerprint()
    assert replace(pairs, count=1).fingerprint() != whole
    for side in (pairs.source_folder, pairs.target_folder):
        (side / "b.png").rename(side / "c.png")
    assert pairs.fingerprint() == whole
    Image.new("RGB", (4, 4), (1, 2, 3)).save(pairs.target_folder / "c.png")
    assert pairs.fingerprint() != whole


def test_fingerprints_are_those_of_runs_trained_before(pairs: ImagePairs, tmp_path: Path) -> None:
    """Written out: the entries' repr, or that of none and the files' bytes, sources before targets."""
    digest = sha256(b"[]")
    for side in (pairs.source_folder, pairs.target_folder):
        for name in ("a.png", "b.png"):
            digest.update((side / name).read_bytes())
    assert pairs.fingerprint() == digest.hexdigest()

    path = pairs.source_folder / "a.png"
    assert Photograph(path, 32).fingerprint() == sha256(b"[]" + path.read_bytes()).hexdigest()

    (tmp_path / "age.yaml").write_text(ENTRY.format("cat"))
    prompts = SliderPrompts(tmp_path / "age.yaml")
    entry = (
        "[SliderPrompt(target='cat', positive='old cat', unconditional='young cat', neutral='cat', "
        "action='enhance', guidance_scale=1.5, resolution=32, batch_size=2)]"
    )
    assert prompts.fingerprint() == sha256(entry.encode()).hexdigest()


def test_equal_sources_are_read_once(pairs: ImagePairs) -> None:
    both = shared({"one": pairs, "other": replace(pairs), "less": replace(pairs, count=1)})
    assert both["one"] is both["other"]
    assert both["one"].pairs is both["other"].pairs
    assert len(both["less"].pairs) == 1


def test_a_photograph_may_never_have_been_a_file(pairs: ImagePairs) -> None:
    photo = Photograph(pairs.source_folder / "a.png", 32).photo
    rendered = Photograph(Path("nowhere.png"), 32, photo)
    assert rendered.photo is photo
    assert rendered.fingerprint() == sha256(photo.pixels.numpy().tobytes()).hexdigest()


def test_a_prompt_file_says_its_runs_eta(tmp_path: Path) -> None:
    (tmp_path / "age.yaml").write_text(ENTRY.format("cat"))
    config = replace(Config(), datasets=["age"], datasets_folder=str(tmp_path), cfg_eta=4.0)
    (run,) = SliderPrompts.runs(config)
    assert run.config.cfg_eta == 1.5
    with pytest.raises(UserError, match=r"cfg_eta: expected 1.5.*found 4.0"):
        SliderPrompts.runs(config, {"cfg_eta"})
    elsewhere = SliderPrompts.of(run, tmp_path)
    assert (elsewhere.path, [*elsewhere.prompts]) == (
        tmp_path / "age.yaml",
        [text for prompt in load_slider_prompts(tmp_path / "age.yaml") for text in prompt.texts],
    )


def test_every_method_has_a_source_and_says_what_it_knows() -> None:
    assert {source.kind for source in (CaptionedImages, ImagePairs, Photograph, SliderPrompts)} == {
        method.source.kind for method in METHODS.values()
    }
    assert METHODS["train_image"].knows == {"eta", "beta"}
    assert METHODS["train_image_fm"].knows == {"eta"}
    assert METHODS["train_image_wocfg"].knows == {"beta"}
    assert METHODS["train_image_sliders"].knows == set()
    assert METHODS["train_subject"].knows == {"prior", "prior_weight"}
    assert all(method.knows <= {"eta", "beta", "prior", "prior_weight"} for method in METHODS.values())
    assert [run.name for run in ImagePairs.runs(Config())] == [run.name for run in expand_runs(Config())]


def test_pairs_are_looked_at_and_drawn(pairs: ImagePairs) -> None:
    first, *checks = pairs.look("mine")
    assert first.startswith("mine: 2 pairs, change ")
    assert all("check" in line for line in checks)
    sheet = pairs.sheet()
    assert sheet is not None
    assert sheet.height > 2 * 256  # a row a pair
    photograph = Photograph(pairs.source_folder / "a.png", 32)
    assert (photograph.look("mine"), photograph.sheet()) == ([], None)


def test_aligned_pairs_are_another_source_of_the_same_files(pairs: ImagePairs) -> None:
    aligned = replace(pairs, align="shift")
    assert aligned != pairs
    assert aligned.fingerprint() == pairs.fingerprint()
