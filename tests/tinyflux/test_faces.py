"""Shards of renders: whole, resumable, one index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinyflux import faces
from tinyflux.faces import Faces, drawing, to_pixels, to_uint8, write_shards
from tinyflux.people import sample_people
from tinyflux.render import render
from tinyflux.seeds import TRAIN


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions drawn by `draw`, in order; shards hold four images and batches three."""
    monkeypatch.setattr(faces, "SHARD", 4)
    monkeypatch.setattr(faces, "_BATCH", 3)
    return []


def draw_into(drawn: list[int]):
    """Draws images whose every pixel is their position."""

    def draw(index: Sequence[int]) -> Tensor:
        assert 0 < len(index) <= 3
        drawn.extend(index)
        return torch.tensor(index, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)

    return draw


def test_to_uint8_rounds_and_stays_in_range() -> None:
    values = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 1.2])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert to_uint8(values).dtype == torch.uint8


def test_to_pixels_spans_minus_one_to_one() -> None:
    pixels = to_pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    torch.testing.assert_close(pixels, torch.tensor([-1.0, -0.6, 1.0]))
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_pixels(every) / 2 + 0.5), every)


def test_shards_hold_every_image_in_order(tmp_path: Path, drawn: list[int]) -> None:
    paths = write_shards(tmp_path / "new", 10, draw_into(drawn))
    assert drawn == list(range(10))
    assert [len(torch.load(path, weights_only=True)) for path in paths] == [4, 4, 2]
    images = Faces(paths)
    assert len(images) == 10
    assert images[torch.tensor([9, 0, 5, 5])][:, 0, 0, 0].tolist() == [9, 0, 5, 5]
    assert images[torch.tensor([3])].shape == (1, 3, 2, 2)
    assert images[torch.tensor([3])].dtype == torch.uint8


def test_shards_that_are_there_are_left_alone(tmp_path: Path, drawn: list[int]) -> None:
    paths = write_shards(tmp_path, 10, draw_into(drawn))
    torch.save(torch.full((4, 3, 2, 2), 77, dtype=torch.uint8), paths[0])
    paths[1].unlink()
    drawn.clear()
    assert write_shards(tmp_path, 10, draw_into(drawn)) == paths
    assert drawn == [4, 5, 6, 7]
    assert Faces(paths)[torch.arange(10)][:, 0, 0, 0].tolist() == [77] * 4 + list(range(4, 10))


def test_a_shard_that_was_cut_off_is_drawn_again(tmp_path: Path, drawn: list[int]) -> None:
    def cut_off(index: Sequence[int]) -> Tensor:
        if 6 in index:
            raise KeyboardInterrupt
        return draw_into(drawn)(index)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 10, cut_off)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000.pt"]
    (tmp_path / "0000004.part").write_bytes(b"half a file")
    drawn.clear()
    paths = write_shards(tmp_path, 10, draw_into(drawn))
    assert drawn == [4, 5, 6, 7, 8, 9]
    assert Faces(paths)[torch.arange(10)][:, 0, 0, 0].tolist() == list(range(10))


def test_drawing_renders_the_people_of_the_seeds() -> None:
    draw = drawing(sample_people, TRAIN[100:], torch.device("cpu"))
    images = draw([2, 0])
    assert images.dtype == torch.uint8
    assert torch.equal(images, to_uint8(render(sample_people([102, 100]))))
    assert not torch.equal(images[0], images[1])
