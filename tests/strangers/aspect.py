"""Pictures that are not square: pairs of any aspect ratio are learned, photographs edited whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.strangers import case
from tests.strangers.pictures import COLOUR, said
from utils.config.load import read_settings
from utils.config.runs import expand_real_runs, expand_runs
from utils.config.schema import Config
from utils.data.buckets import Buckets
from utils.data.pair_checks import in_words, look_at
from utils.data.pair_sheet import pair_sheet
from utils.data.pairs import load_pairs
from utils.jobs.amounts import BaseShape, least_bytes
from utils.jobs.prepare import check_fits
from utils.measure.instruments import Instruments, Probe
from utils.measure.judges import build_judge, judge_of
from utils.models.families import FAMILIES
from utils.training.sources import ImagePairs, Photograph

TALL, WIDE, SQUARE = (90, 160), (150, 100), (64, 64)
SMALL = {"pretrained_model_name_or_path": "tinyflux/weights", "resolution": 128}


def picture(path: Path, size: tuple[int, int], marked: bool = False) -> None:
    """One colour; `marked`: with a dark spot in its upper half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, COLOUR)
    if marked:
        image.paste((20, 20, 20), (size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2))
    image.save(path)


def dataset(folder: Path, **sizes: tuple[int, int]) -> Config:
    """Pairs of given sizes by their stems, as a config of the small FLUX names them."""
    for stem, size in sizes.items():
        picture(folder / "mine" / "source" / f"{stem}.png", size)
        picture(folder / "mine" / "target" / f"{stem}.png", size, marked=True)
    return read_settings({"": {**SMALL, "datasets_folder": str(folder), "datasets": ["mine"]}})


def views(images: torch.Tensor) -> list[torch.Tensor]:
    """What a base might see: the colours of every eighth position."""
    return [images[:, :, ::8, ::8].flatten(2).transpose(1, 2)]


@case("a 9:16, a 3:2 and a square pair are learned at sizes of their own, in multiples of the base's")
def any_ratio(folder: Path) -> None:
    (run,) = expand_runs(dataset(folder, tall=TALL, wide=WIDE, square=SQUARE))
    sizes = {pair.stem: tuple(pair.source.shape[:0:-1]) for pair in ImagePairs.of(run).pairs}
    assert sizes == {"tall": (96, 176), "wide": (160, 112), "square": (128, 128)}


@case("pairs of several sizes are looked at, drawn as a sheet, and judged")
def looked_at(folder: Path) -> None:
    (run,) = expand_runs(dataset(folder, tall=TALL, wide=WIDE, square=SQUARE))
    pairs = ImagePairs.of(run).pairs
    first, *checks = in_words("mine", *look_at(pairs))
    assert first.startswith("mine: 3 pairs")
    assert "cosine" not in first  # there is none between images of different sizes
    assert checks == []
    assert pair_sheet(pairs).width > 3 * 256
    judge = build_judge(replace(run.config, judge="pairs"), Instruments(views=views), pairs)
    images = torch.rand(2, 3, 96, 192)
    assert judge.strength(images, images.clone()).tolist() == [0, 0]


@case("a pair of unequal sizes is refused, whatever their ratios")
def unequal(folder: Path) -> None:
    picture(folder / "source" / "a.png", WIDE)
    picture(folder / "target" / "a.png", (300, 200))
    words = said(load_pairs, folder / "source", folder / "target", 128)
    assert "expected the size of its source, 150 x 100, found 300 x 200 (or resize=" in words


@case("center_crop and stretch make squares of everything, as before")
def squares(folder: Path) -> None:
    config = dataset(folder, tall=TALL, wide=WIDE)
    for rule in ("center_crop", "stretch"):
        (run,) = expand_runs(replace(config, resize=rule))
        assert all(pair.source.shape == (3, 128, 128) for pair in ImagePairs.of(run).pairs)


@case("a 3:2 photograph is edited whole: a change of everything reaches all four sides")
def whole(folder: Path) -> None:
    picture(folder / "mine" / "source" / "a.png", (1500, 1000))
    config = read_settings({"": {**SMALL, "datasets_folder": str(folder), "datasets": ["mine"]}})
    (run,) = expand_real_runs(config)
    photo = Photograph.of(run).photo
    assert tuple(photo.pixels.shape) == (3, 112, 160)
    flat = torch.zeros(photo.pixels.shape)
    edited = np.asarray(photo.with_change(flat, flat + 20 / 127.5)).astype(int)
    assert edited.shape == (1000, 1500, 3)
    assert (edited - np.array(COLOUR) == 20).all()


@case("a strip that no size takes is one line that names it, as a pair, a photograph and in a bucket")
def strip(folder: Path) -> None:
    picture(folder / "mine" / "source" / "a.png", (4000, 4))
    picture(folder / "mine" / "target" / "a.png", (4000, 4))
    config = read_settings({"": {**SMALL, "datasets_folder": str(folder), "datasets": ["mine"]}})
    (run,), (photograph,) = expand_runs(config), expand_real_runs(config)
    path = folder / "mine" / "source" / "a.png"
    words = [
        said(ImagePairs.of(run).read),
        said(Photograph.of(photograph).read),
        said(Buckets((512, 512)).of, 4000, 4, path),
    ]
    assert all(line.startswith(f"{path}: expected an aspect ratio that a size takes") for line in words)
    assert all(line.endswith("found 4000 x 4; crop it first") for line in words)


@case("what width and height ask of the machine is counted under their names, what training asks is not")
def amounts(folder: Path) -> None:
    small, shape = (
        Config(width=64, height=64),
        BaseShape(width=64, blocks=2, text_heads=1, channels=8, pixels=16),
    )
    large = replace(small, width=6400)
    for config in (small, large):
        assert least_bytes(config, shape, training=True) == least_bytes(Config(), shape, training=True)
        assert "resolution" not in least_bytes(config, shape, training=False)
    keys = "width, height"
    few, many = (least_bytes(config, shape, training=False)[keys] for config in (small, large))
    assert many == 100 * few


@case("a width that is no multiple of the base's is refused by its name")
def no_multiple(folder: Path) -> None:
    words = said(check_fits, replace(Config(), width=100), FAMILIES["flux1"])
    assert words == "width: expected a multiple of 16, found 100"


@case("pairs and images of a size that the probe does not read are judged by the pairs, or said in a line")
def probed(folder: Path) -> None:
    probe = Probe(lambda images: {"age": images.mean(dim=(1, 2, 3))}, views, "age", resolution=128)  # type: ignore[arg-type, return-value]
    config = replace(dataset(folder, square=SQUARE), judge="probe")
    (square,) = ImagePairs.of(expand_runs(config)[0]).pairs
    assert judge_of(config, probe, [square]) == "probe"
    assert judge_of(replace(config, width=192), probe, [square]) == "pairs"
    (wide,) = ImagePairs.of(expand_runs(dataset(folder / "other", wide=WIDE))[0]).pairs
    assert judge_of(config, probe, [square, wide]) == "pairs"
    assert said(probe.check_size, 192, 128) == (
        "judge probe: expected images of 128 x 128, found 192 x 128; judge=pairs takes any size"
    )
