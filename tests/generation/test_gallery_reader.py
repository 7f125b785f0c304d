"""utils/generation/gallery_reader.py: generated images read back, and folders of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.generation.gallery_reader import read_folders, read_tree


def paint(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two seeds, skip 14 at scales -0.5, 0 and 1; what else generation writes lies about."""
    for seed in (8, 9):
        for index, scale in enumerate(("-0.50", "0.00", "1.00")):
            paint(tmp_path / f"{seed}/skip14_scale{scale}.png", 10 * seed + index)
        paint(tmp_path / f"{seed}.png", 0)
    (tmp_path / "8/prompt.txt").write_text("a cat")
    return tmp_path


def test_a_tree_is_read_by_scale_in_order(tree: Path) -> None:
    series = read_tree(tree, 14)
    assert (series.names, series.scales) == (["8", "9"], [-0.5, 0.0, 1.0])
    assert series.images[0.0].shape == (2, 3, 4, 4)
    expected = torch.tensor([81, 91]) / 127.5 - 1
    assert torch.allclose(series.images[0.0][:, 0, 0, 0], expected, atol=1e-6)


def test_one_skip_is_chosen(tree: Path) -> None:
    for scale in ("0.00", "1.00"):
        paint(tree / f"8/skip4_scale{scale}.png", 200)
    assert read_tree(tree, 14, ["9"], [0.0, 1.0]).names == ["9"]
    assert read_tree(tree, 14, ["9"], [0.0, 1.0]).scales == [0.0, 1.0]
    assert read_tree(tree, 4).names == ["8"]
    with pytest.raises(UserError, match=r"expected images of skip 5, found skips \[4, 14\]"):
        read_tree(tree, 5)


def test_what_is_no_complete_tree(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected images that gen_image_script\.py wrote, found no such"):
        read_tree(tmp_path / "no", 14)
    (tree / "9/skip14_scale1.00.png").unlink()
    with pytest.raises(UserError, match="expected every image at every scale, found no 9 at 1"):
        read_tree(tree, 14)
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "empty/8/skip14_scale0.40_1.00.png", 0)
    with pytest.raises(UserError, match="of one LoRA, found none"):
        read_tree(tmp_path / "empty", 8)


def test_folders_of_another_tool_pair_up_by_stem(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 20)):
        paint(tmp_path / f"before/{name}.png", value)
        paint(tmp_path / f"after/{name}.bmp", value + 100)
    series = read_folders({1.0: tmp_path / "after", 0.0: tmp_path / "before"})
    assert (series.names, series.scales) == (["a", "b"], [0.0, 1.0])
    change = (series.images[1.0] - series.images[0.0]) * 127.5
    assert torch.allclose(change, torch.full_like(change, 100), atol=1e-3)
    with pytest.raises(UserError, match="expected images at scale 0 and others"):
        read_folders({1.0: tmp_path / "after", 2.0: tmp_path / "after"})
    paint(tmp_path / "after/c.png", 0)
    with pytest.raises(UserError, match="found no c at 0"):
        read_folders({0.0: tmp_path / "before", 1.0: tmp_path / "after"})
    paint(tmp_path / "before/c.png", 0, (4, 6))
    with pytest.raises(UserError, match="expected images of one size"):
        read_folders({0.0: tmp_path / "before", 1.0: tmp_path / "after"})
