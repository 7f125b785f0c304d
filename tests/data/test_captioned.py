"""Captioned datasets: sd-scripts' TOML and metadata as they are, folders of both kinds, what an epoch is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from utils.data.captioned import Captioned, CaptionedDataset, find_captioned, read_captioned
from utils.data.captions import CaptionRules, draw_caption
from utils.data.dataset_options import KNOWN, NOT_TAKEN, TAKEN, read_option
from utils.data.dataset_summary import SizeOf, count_epoch, in_words
from utils.errors import UserError

WALK_THROUGH = Path(__file__).parent / "sd_scripts"


def picture(path: Path, size: tuple[int, int] = (8, 8), caption: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def toml(folder: Path, text: str) -> Path:
    path = folder / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    return path


def captions(captioned: Captioned) -> dict[str, str]:
    return {image.path.name: image.caption for each in captioned.datasets for image in each.images}


@pytest.fixture
def walk_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(WALK_THROUGH, tmp_path, dirs_exist_ok=True)
    picture(tmp_path / "images" / "portrait_01.png", (448, 576))
    picture(tmp_path / "images" / "portrait_02.png", (900, 1200))
    picture(tmp_path / "images" / "square.jpg", (600, 600))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dataset.toml"


def sizes(dataset: CaptionedDataset) -> SizeOf:
    assert dataset.options.enable_bucket
    return lambda width, height, where: (512, 512) if width == height else (448, 576)


def test_the_walk_through_is_read_as_it_is(walk_through: Path) -> None:
    captioned = read_captioned(walk_through, {})
    (dataset,) = captioned.datasets
    (subset,) = dataset.subsets
    assert (dataset.options.size, dataset.options.batch_size) == ((512, 512), 4)
    assert (subset.rules.shuffle_caption, subset.rules.keep_tokens) == (True, 2)
    assert [image.repeats for image in subset.images] == [10, 10, 10]
    assert captioned.notes == ()

    first = subset.images[0]
    drawn = draw_caption(first.caption, first.tags, subset.rules, Random(0)).split(", ")
    assert drawn[:2] == ["ohwx woman", "a photo of a woman in a red coat"]
    assert sorted(drawn[2:]) == ["outdoors", "smiling", "snow"]
    last = subset.images[2]
    rules = CaptionRules()
    assert draw_caption(last.caption, last.tags, rules, Random(0)) == "ohwx woman, hat, looking at viewer"


def test_an_epoch_in_words(walk_through: Path) -> None:
    counts = count_epoch(read_captioned(walk_through, {}), sizes)
    assert in_words(counts, 100) == [
        f"{walk_through}: [[datasets]] 1: 3 images, 30 in an epoch, batches of 4",
        "  448 x 576: 2 images, 20 in an epoch, 5 batches",
        "  512 x 512: 1 image, 10 in an epoch, 3 batches",
        "8 steps an epoch; 100 steps are 12.5 epochs",
    ]


def test_the_walk_through_is_found_from_its_own_folder(
    walk_through: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    captioned = read_captioned(walk_through, {})
    assert len(captioned.datasets[0].images) == 3
    assert f"image_dir: images found as {walk_through.parent / 'images'}" in captioned.notes[0]


def test_nearer_values_go_before_those_further_out(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / name / "x.png", caption=name)
    path = toml(
        tmp_path,
        f"""
        [general]
        keep_tokens = 1
        caption_extension = 'txt'
        [[datasets]]
        resolution = [768, 512]
        keep_tokens = 2
        [[datasets.subsets]]
        image_dir = '{tmp_path}/a'
        [[datasets.subsets]]
        image_dir = '{tmp_path}/b'
        keep_tokens = 3
        flip_aug = true
        [[datasets]]
        [[datasets.subsets]]
        image_dir = '{tmp_path}/c'
        """,
    )
    one, other = read_captioned(path, {"resolution": 640, "batch_size": 3, "keep_tokens": 9}).datasets
    assert [subset.rules.keep_tokens for subset in (*one.subsets, *other.subsets)] == [2, 3, 1]
    assert [subset.flip_aug for subset in one.subsets] == [False, True]
    assert (one.options.size, other.options.size) == ((768, 512), (640, 640))
    assert one.options.batch_size == other.options.batch_size == 3


SD_SCRIPTS = """
    batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution
    network_multiplier validation_seed validation_split resize_interpolation
    color_aug face_crop_aug_range flip_aug num_repeats random_crop shuffle_caption keep_tokens
    keep_tokens_separator secondary_separator caption_separator enable_wildcard token_warmup_min
    token_warmup_step caption_prefix caption_suffix custom_attributes caption_dropout_every_n_epochs
    caption_dropout_rate caption_tag_dropout_rate caption_extension class_tokens cache_info
    image_dir is_reg alpha_mask metadata_file conditioning_data_dir
"""


def test_every_key_of_sd_scripts_is_taken_or_said_not_to_be() -> None:
    assert sorted(KNOWN) == sorted(SD_SCRIPTS.split())
    assert not set(TAKEN) & set(NOT_TAKEN)


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png", caption="x")
    path = toml(
        tmp_path,
        f"""
        [general]
        color_aug = false
        cache_info = true
        [[datasets]]
        resolution = 512
        min_bucket_reso = 100
        [[datasets.subsets]]
        image_dir = '{tmp_path}/a'
        [[datasets.subsets]]
        image_dir = '{tmp_path}/a'
        [[datasets.subsets]]
        image_dir = '{tmp_path}/a'
        num_repeats = 0
        """,
    )
    captioned = read_captioned(path, {})
    assert len(captioned.datasets[0].images) == 1
    said = [note.removeprefix(f"{path}: ") for note in captioned.notes]
    assert said == [
        "[general]: cache_info has no effect here: captions and sizes are read anew each time",
        "[[datasets]] 1: min_bucket_reso without effect without enable_bucket",
        f"[[datasets]] 1, subset 2: left out, as {tmp_path}/a comes before in the same dataset",
        "[[datasets]] 1, subset 3: left out, as it comes 0 times",
    ]


def test_bounds_of_buckets_become_multiples(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png", caption="x")
    path = toml(
        tmp_path,
        f"""
        [[datasets]]
        resolution = 512
        enable_bucket = true
        min_bucket_reso = 300
        max_bucket_reso = 1000
        [[datasets.subsets]]
        image_dir = '{tmp_path}/a'
        """,
    )
    captioned = read_captioned(path, {})
    options = captioned.datasets[0].options
    assert (options.min_bucket_reso, options.max_bucket_reso) == (256, 1024)
    assert "buckets from 256 to 1024" in captioned.notes[0]


def test_regularization_images_come_as_often_as_the_others(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        picture(tmp_path / "subject" / f"{name}.png", caption="x")
    for name in ("r1", "r2", "r3"):
        picture(tmp_path / "class" / f"{name}.png")
    text = f"""
        [[datasets]]
        resolution = 512
        [[datasets.subsets]]
        image_dir = '{tmp_path}/subject'
        num_repeats = REPEATS
        [[datasets.subsets]]
        image_dir = '{tmp_path}/class'
        is_reg = true
        class_tokens = 'woman'
        """
    for subject, of_class in ((1, [1, 1]), (4, [3, 3, 2])):
        captioned = read_captioned(toml(tmp_path, text.replace("REPEATS", str(subject))), {})
        images = captioned.datasets[0].images
        assert [image.repeats for image in images if image.is_reg] == of_class
        assert {image.caption for image in images if image.is_reg} == {"woman"}
        (count,) = count_epoch(captioned, lambda _: lambda *_: (8, 8))
        assert count.buckets[0].reg_draws == count.buckets[0].draws // 2 == 2 * subject


# --- folders ---


def test_a_plain_folder(tmp_path: Path) -> None:
    picture(tmp_path / "bob" / "a2.png", caption="two\n")
    picture(tmp_path / "bob" / "a10.png", caption="\ufeffone\r\nmore")
    captioned = read_captioned(find_captioned(tmp_path, "bob"), {"resolution": 64, "keep_tokens": 1})
    assert captions(captioned) == {"a2.png": "two", "a10.png": "one\nmore"}
    assert captioned.datasets[0].subsets[0].rules.keep_tokens == 1
    assert "1 caption of several lines" in captioned.notes[0]


def test_an_imagefolder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "deeper" / "b.png")
    rows = [
        {"file_name": "a.png", "text": "one", "tags": ["x", "y, z"], "more": 1},
        {"file_name": "deeper/b.png", "caption": None, "tags": "u, v"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    images = read_captioned(tmp_path, {"resolution": 64}).datasets[0].images
    assert [(image.caption, image.tags) for image in images] == [("one", ("x", "y, z")), ("", ("u, v",))]


def test_folders_with_repeats_in_their_names(tmp_path: Path) -> None:
    picture(tmp_path / "10_ohwx man" / "a.png")
    picture(tmp_path / "3_style" / "b.png", caption="own")
    picture(tmp_path / "5" / "d.png")
    picture(tmp_path / "log" / "c.png")
    captioned = read_captioned(tmp_path, {"resolution": 64, "class_tokens": "cat"})
    images = captioned.datasets[0].images
    assert [(image.repeats, image.caption) for image in images] == [(10, "ohwx man"), (3, "own"), (5, "cat")]
    assert captioned.notes[0].startswith(f"{tmp_path / 'log'}: left out")


def test_a_dataset_by_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "bob" / "a.png")
    (tmp_path / "alice.toml").touch()
    assert (
        find_captioned(tmp_path, "alice") == find_captioned(tmp_path, "alice.toml") == tmp_path / "alice.toml"
    )
    with pytest.raises(UserError, match=r"did you mean 'alice'.*there are: alice, bob"):
        find_captioned(tmp_path, "alise")
    (tmp_path / "bob.toml").touch()
    with pytest.raises(UserError, match=r"expected one dataset bob, found bob and bob\.toml"):
        find_captioned(tmp_path, "bob")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_repeats", "10", "expected a whole number, 0 to 100000, found '10'"),
        ("num_repeats", True, "expected a whole number, 0 to 100000, found True"),
        ("num_repeats", -1, "expected 0 to 100000, found -1"),
        ("shuffle_caption", 1, "expected true or false, found 1"),
        ("class_tokens", 5, "expected text, found 5"),
        ("caption_separator", "", "expected a text, not empty, found ''"),
        ("caption_dropout_rate", 1.5, "expected 0 to 1, found 1.5"),
        (
            "resolution",
            [512, 512, 512],
            "expected 1 to 8192, or [width, height] of these, found [512, 512, 512]",
        ),
        ("resolution", 512.0, "expected 1 to 8192, or [width, height] of these, found 512.0"),
        ("resolution", [0, 512], "expected 1 to 8192, or [width, height] of these, found [0, 512]"),
    ],
)
def test_values_of_another_type_or_out_of_bounds(name: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as raised:
        read_option(name, value)
    assert str(raised.value) == says
