"""utils/data/pairs.py: pairing by stem, every fault in one line, and every image mode read right."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from utils.data.pairs import load_pairs
from utils.data.pixels import load_image
from utils.errors import UserError
from utils.files import find_images

COLOR = (200, 40, 90)


def save(path: Path, color: object = COLOR, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two good pairs in datasets/smile/{source,target}."""
    source, target = tmp_path / "datasets/smile/source", tmp_path / "datasets/smile/target"
    for stem in ("2", "10"):
        save(source / f"{stem}.png")
        save(target / f"{stem}.png", (0, 0, 0))
    return source, target


def in_rgb(tensor: torch.Tensor) -> list[int]:
    """Back from a uniform image in [-1, 1] to its one color in 0..255."""
    assert tensor.dtype == torch.float32
    assert tensor.flatten(1).std(dim=1).max() < 0.02
    return ((tensor.flatten(1).mean(dim=1) + 1) * 127.5).round().int().tolist()


# --- pairing ---


def test_pairs_match_by_stem_whatever_the_order_and_the_suffix(tmp_path: Path) -> None:
    # Each pair shares a red level, so pixels tell whether the right files met.
    for level, stem in enumerate(("img10", "img9", "img1")):
        save(tmp_path / "source" / f"{stem}.png", (level * 50, 0, 0))
        save(tmp_path / "target" / f"{stem}.{('BMP', 'tif', 'webp')[level]}", (level * 50, 255, 255))
    pairs = load_pairs(tmp_path / "source", tmp_path / "target", 8)
    assert [pair.stem for pair in pairs] == ["img1", "img9", "img10"]
    for pair in pairs:
        assert pair.source_path.stem == pair.target_path.stem == pair.stem
        assert abs(in_rgb(pair.source)[0] - in_rgb(pair.target)[0]) <= 3  # webp is lossy


def test_hidden_and_other_files_are_passed_over(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / ".DS_Store").write_bytes(b"x")
    (source / "._2.png").write_bytes(b"x")
    (target / "2.txt").write_text("a caption")
    assert list(find_images(source)) == list(find_images(target)) == ["2", "10"]


def test_pixels_are_resampled_to_the_resolution(folders: tuple[Path, Path]) -> None:
    pairs = load_pairs(*folders, resolution=16)
    assert pairs[0].source.shape == pairs[0].target.shape == (3, 16, 16)
    assert in_rgb(pairs[0].source) == list(COLOR)
    assert pairs[0].target.min() == pairs[0].target.max() == -1


@pytest.mark.parametrize("which", [0, 1])
def test_an_image_without_its_partner_is_named(folders: tuple[Path, Path], which: int) -> None:
    save(folders[which] / "7.png")
    with pytest.raises(UserError, match=r"7\.png, found none") as caught:
        load_pairs(*folders, 8)
    assert str(caught.value).startswith(str(folders[1 - which]))


def test_lone_images_on_both_sides_come_in_one_error(folders: tuple[Path, Path]) -> None:
    (folders[0] / "2.png").unlink()
    (folders[1] / "10.png").unlink()
    with pytest.raises(UserError) as caught:
        load_pairs(*folders, 8)
    assert "2.png" in str(caught.value)
    assert "10.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_names_the_datasets_there_are(folders: tuple[Path, Path]) -> None:
    missing = folders[0].parent.parent / "smil" / "source"
    with pytest.raises(UserError, match=r"smil/source: expected a folder.*mean 'smile'.*: smile"):
        load_pairs(missing, folders[1], 8)
    with pytest.raises(UserError, match="has no dataset with a folder 'before'"):
        load_pairs(folders[0].parent / "before", folders[1], 8)


def test_an_empty_folder(folders: tuple[Path, Path]) -> None:
    for path in folders[1].iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"target: expected images .*found none"):
        load_pairs(*folders, 8)


def test_a_stem_found_twice(folders: tuple[Path, Path]) -> None:
    save(folders[0] / "2.JPG")
    with pytest.raises(UserError, match=r"one image a stem, found 2\.JPG and 2\.png"):
        load_pairs(*folders, 8)


# --- sizes ---


def test_unequal_sizes_need_a_resize_rule(folders: tuple[Path, Path]) -> None:
    save(folders[1] / "2.png", size=(12, 12))
    with pytest.raises(
        UserError, match=r"2\.png: expected the size of its source, 8 x 8, found 12 x 12.*resize="
    ):
        load_pairs(*folders, 8)
    for rule in ("stretch", "center_crop"):
        assert load_pairs(*folders, 8, rule)[0].target.shape == (3, 8, 8)


def test_what_is_left_over_is_cropped_in_the_middle_and_not_stretched(tmp_path: Path) -> None:
    """A circle stays one, and lies in the middle; both images of a pair are cut alike."""
    image = Image.new("RGB", (300, 200), "black")
    ImageDraw.Draw(image).ellipse((110, 60, 190, 140), "white")
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
        image.save(tmp_path / side / "a.png")
    (pair,) = load_pairs(tmp_path / "source", tmp_path / "target", 128, multiple=16)
    assert torch.equal(pair.source, pair.target)
    assert pair.source.shape == (3, 112, 160)
    rows, columns = ((pair.source[0] > 0).sum(dim=dim).nonzero() for dim in (1, 0))
    assert len(rows) == pytest.approx(81 * 112 / 200, abs=1)
    assert len(columns) == pytest.approx(len(rows), abs=1)
    assert (rows[0] + rows[-1]).item() == pytest.approx(111, abs=1)
    assert (columns[0] + columns[-1]).item() == pytest.approx(159, abs=1)


def test_pairs_of_a_dataset_may_have_sizes_of_their_own(folders: tuple[Path, Path]) -> None:
    for side in folders:
        save(side / "2.png", size=(90, 160))
    sizes = [pair.source.shape for pair in load_pairs(*folders, 64, multiple=16)]
    assert sizes == [(3, 80, 48), (3, 64, 64)]


# --- files that are no images ---


def broken(path: Path, kind: str) -> Path:
    good = save(path, size=(64, 64)).read_bytes()
    contents = {
        "zero-byte": b"",
        "truncated": good[: len(good) // 2],
        "text": b"no image",
        "header": good[:20],
    }
    path.write_bytes(contents[kind])
    return path


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark on a cut TIFF
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.parametrize("kind", ["zero-byte", "truncated", "text", "header"])
def test_an_unreadable_image_is_named_in_one_line(tmp_path: Path, suffix: str, kind: str) -> None:
    path = broken(tmp_path / f"a.{suffix}", kind)
    with pytest.raises(UserError) as caught:
        load_image(path, 64)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_named_as_an_image(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "folder.png"):
        with pytest.raises(UserError, match=name):
            load_image(tmp_path / name, 8)


# --- modes ---


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    """Orientation 6 says: turn a quarter clockwise for display, so the stored left edge becomes the top."""
    stored = Image.new("RGB", (16, 16), "black")
    stored.paste((255, 255, 255), (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "turned.png", exif=exif)
    pixels = load_image(tmp_path / "turned.png", 16)
    assert (pixels[:, :8] == 1).all()
    assert (pixels[:, 8:] == -1).all()


def test_exif_orientation_counts_before_sizes_are_compared(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for folder, size, extra in (("source", (8, 16), {}), ("target", (16, 8), {"exif": exif})):
        (tmp_path / folder).mkdir()
        Image.new("RGB", size).save(tmp_path / folder / "a.png", **extra)
    (pair,) = load_pairs(tmp_path / "source", tmp_path / "target", 8)  # and not: unequal sizes
    assert pair.source.shape == pair.target.shape == (3, 11, 6)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (*COLOR, 0), [255, 255, 255]),
        ("RGBA", (*COLOR, 255), list(COLOR)),
        ("RGBA", (200, 40, 90, 51), [244, 212, 222]),  # 0.2 * color + 0.8 * white
        ("LA", (100, 0), [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 77 * 257, [77, 77, 77]),
        ("I;16", 200, [1, 1, 1]),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, color: object, expected: list[int]) -> None:
    path = save(tmp_path / "a.png", color, mode=mode)
    assert in_rgb(load_image(path, 8)) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (8, 8), 3)
    image.putpalette([0, 0, 0] * 3 + list(COLOR))
    image.save(tmp_path / "a.png", **({"transparency": 3} if transparent else {}))
    assert in_rgb(load_image(tmp_path / "a.png", 8)) == ([255] * 3 if transparent else list(COLOR))


def test_rgb_with_a_transparent_color(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", transparency=COLOR)
    assert in_rgb(load_image(tmp_path / "a.png", 8)) == [255] * 3


def test_cmyk(tmp_path: Path) -> None:
    """Ink is the complement: no cyan, all magenta, no yellow or black, prints magenta."""
    for suffix in ("jpg", "tif"):
        path = save(tmp_path / f"a.{suffix}", (0, 255, 0, 0), mode="CMYK")
        assert in_rgb(load_image(path, 8)) == pytest.approx([255, 0, 255], abs=3)


def test_jpeg_grey_and_color(tmp_path: Path) -> None:
    assert in_rgb(load_image(save(tmp_path / "a.jpg", 77, mode="L"), 8)) == pytest.approx([77] * 3, abs=2)
    assert in_rgb(load_image(save(tmp_path / "b.JPEG"), 8)) == pytest.approx(list(COLOR), abs=3)


def test_sixteen_bit_color_png(tmp_path: Path) -> None:
    """Pillow writes no such file, so the chunks are put together here as the PNG specification has them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", *(level * 257 for level in COLOR)) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * 8))
        + chunk(b"IEND", b"")
    )
    assert in_rgb(load_image(path, 8)) == list(COLOR)


def test_sixteen_bit_tiff_keeps_its_gradient(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.tiff")
    expected = torch.linspace(-1, 1, 16)
    assert torch.allclose(load_image(tmp_path / "ramp.tiff", 16)[1, 5], expected, atol=1 / 255)


def test_deeper_than_sixteen_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(tmp_path / "int.tiff")
    for name in ("float.tiff", "int.tiff"):
        with pytest.raises(UserError, match=f"{name}: expected 8 or 16 bits"):
            load_image(tmp_path / name, 8)
