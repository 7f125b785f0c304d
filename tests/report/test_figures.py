"""utils/report/figures.py: what is drawn, where it lands, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from utils.data.pixels import to_images
from utils.report.figures import (
    COLOURS,
    GAP,
    Grid,
    Plot,
    Series,
    draw_grid,
    draw_plot,
    load_font,
    plot_bytes,
    save_gif,
    save_plot,
    wrap_text,
)


def tile(colour: str, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, colour)


def bounds(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that are exactly `colour`."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_pixels_become_images_exactly() -> None:
    pixels = torch.tensor([-1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 2, 2).expand(2, 3, 2, 2)
    first, second = to_images(pixels)
    assert first.mode == "RGB"
    assert np.asarray(first)[..., 0].tolist() == [[0, 128], [255, 255]]
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("pixels", [torch.zeros(3, 4, 4), torch.full((1, 3, 2, 2), float("nan"))])
def test_pixels_of_another_shape_or_not_finite_are_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        to_images(pixels)


def test_a_grid_puts_every_image_in_its_own_cell() -> None:
    grid = Grid(rows=[[tile("red"), tile("lime")], [tile("blue"), None]])
    picture = draw_grid(grid, tile=64)
    red, lime, blue = (bounds(picture, c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert red[2] - red[0] == red[3] - red[1] == 64
    assert lime[0] > red[2]
    assert (lime[1], lime[3]) == (red[1], red[3])
    assert blue[1] > red[3]
    assert (blue[0], blue[2]) == (red[0], red[2])


def test_images_keep_their_aspect() -> None:
    left, top, right, bottom = bounds(draw_grid(Grid([[tile("red", (32, 16))]]), tile=64), (255, 0, 0))
    assert (right - left, bottom - top) == (64, 32)


def test_cells_are_as_wide_and_high_as_the_images_need() -> None:
    rows = [[tile("red", (16, 32)), tile("lime", (16, 32))], [None, tile("blue", (8, 16))]]
    picture = draw_grid(Grid(rows), tile=64)
    red, lime, blue = (bounds(picture, c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert (red[2] - red[0], red[3] - red[1]) == (blue[2] - blue[0], blue[3] - blue[1]) == (32, 64)
    assert lime[0] - red[2] == blue[1] - lime[3] == GAP
    mixed = draw_grid(Grid([[tile("red", (32, 16)), tile("lime", (16, 32))]]), tile=64)
    red, lime = (bounds(mixed, c) for c in ((255, 0, 0), (0, 255, 0)))
    assert (red[2] - red[0], red[3] - red[1]) == (64, 32)
    assert (lime[2] - lime[0], lime[3] - lime[1]) == (32, 64)


def test_labels_and_captions_make_room_for_themselves() -> None:
    bare = Grid([[tile("red"), tile("lime")]])
    labelled = Grid(bare.rows, ["0", "1"], ["seed 7 " * 9], "slider scale", "A title " * 9, "A caption " * 40)
    small, large = draw_grid(bare, 64), draw_grid(labelled, 64)
    assert large.width > small.width
    assert large.height > small.height + 100
    frame = ImageChops.difference(large, Image.new("RGB", large.size, "white")).getbbox()
    assert frame is not None
    assert min(frame[0], frame[1], large.width - frame[2], large.height - frame[3]) >= 30  # nothing cut off


@pytest.mark.parametrize(
    ("rows", "labels"),
    [([], []), ([[]], []), ([[tile("red")], []], []), ([[tile("red"), tile("red")]], ["only one"])],
)
def test_ragged_grids_and_wrong_labels_are_refused(rows: list, labels: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Grid(rows, labels)


def test_text_is_wrapped_at_spaces_and_inside_words_too_wide() -> None:
    font = load_font(20)
    text = "a few words and output/models/image/glasses/glasses_vtrain_image_4.0eta"
    lines = wrap_text(text, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert lines[0].startswith("a few words")
    assert wrap_text("", font, 200) == []


def example_plot(lines: int = 2) -> Plot:
    series = [Series(f"edit {i}", [0, 0.5, 1], [0, i, 1], [0, 0, 0], [1, 2, 3]) for i in range(lines)]
    return Plot(series, "slider scale", "reading", "Readings")


def test_a_plot_draws_every_line_with_its_name() -> None:
    axes = draw_plot(example_plot()).axes[0]
    assert [line.get_label() for line in axes.lines] == ["edit 0", "edit 1"]
    assert axes.get_xlabel() == "slider scale"
    assert len(axes.collections) == 2  # the bands


def test_no_two_of_ten_lines_look_alike() -> None:
    lines = draw_plot(example_plot(10)).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10 > len(COLOURS)


def test_a_plot_is_the_same_file_every_time(tmp_path: Path) -> None:
    assert plot_bytes(example_plot(), "svg") == plot_bytes(example_plot(), "svg")
    assert plot_bytes(example_plot(), "svg") != plot_bytes(example_plot(), "svg", dark=True)
    save_plot(example_plot(), tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").format == "PNG"


@pytest.mark.parametrize("y", [[], [0]])
def test_lines_with_missing_points_are_refused(y: list[float]) -> None:
    with pytest.raises(ValueError, match="alike in length"):
        Series("edit", [0, 1], y)


def test_a_gif_runs_forth_and_back_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "slider.gif"
    save_gif([tile("red"), tile("lime"), tile("blue")], path, milliseconds=80)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (4, 0, 80)
        middle = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            middle.append(gif.convert("RGB").getpixel((8, 8)))
    assert middle == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 0)]


def test_a_gif_of_one_frame_or_of_unequal_frames_is_refused(tmp_path: Path) -> None:
    for frames in ([tile("red")], [tile("red"), tile("red", (8, 8))]):
        with pytest.raises(ValueError, match="at least two frames of one size"):
            save_gif(frames, tmp_path / "slider.gif")
