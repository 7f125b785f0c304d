"""sd-scripts' dataset TOML as people write it: what is wrong is said at once, and in which table."""

from pathlib import Path

from tests.strangers import case
from tests.strangers.captions import SIZES, picture, refused_by, said, subset
from utils.data.captioned import read_captioned
from utils.data.dataset_summary import count_epoch
from utils.errors import UserError


@case("a misspelt key is refused with the right one and its place in the TOML")
def misspelt(folder: Path) -> None:
    picture(folder / "a.png", "x")
    path = subset(
        folder, f"image_dir = '{folder}'\nnum_repeat = 2\ntrain_batch_size = 2", "shuffle_captions = true"
    )
    line = said(path)
    assert f"{path}: [general]: unknown key 'shuffle_captions' (did you mean 'shuffle_caption'?)" in line
    assert f"{path}: [[datasets]] 1, subset 1: unknown key 'num_repeat' (did you mean 'num_repeats'?)" in line
    assert "unknown key 'train_batch_size' (here batch_size)" in line


@case("a key in the wrong table is refused with the right one")
def misplaced(folder: Path) -> None:
    path = subset(folder, f"image_dir = '{folder}'\nbatch_size = 2", "is_reg = true")
    line = said(path)
    assert "[general]: is_reg: expected in [[datasets.subsets]], found in [general]" in line
    assert (
        "subset 1: batch_size: expected in [general] or [[datasets]], found in [[datasets.subsets]]" in line
    )


@case("a key that would change what is learned is refused with the reason, unless it is off")
def refused(folder: Path) -> None:
    picture(folder / "a.png", "x")
    off = "color_aug = false\nrandom_crop = false\nalpha_mask = false\ntoken_warmup_step = 0"
    read_captioned(subset(folder, f"image_dir = '{folder}'\n{off}", "network_multiplier = 1.0"), SIZES)
    on = "color_aug = true\nface_crop_aug_range = [1.0, 3.0]"
    line = said(subset(folder, f"image_dir = '{folder}'\n{on}", "validation_split = 0.1"))
    assert "color_aug: expected false, found true: images are encoded once" in line
    assert "face_crop_aug_range: expected none, found [1.0, 3.0]: images are encoded once" in line
    assert "validation_split: expected 0, found 0.1: no images are held out" in line


@case("what is no TOML is refused with its line, and with how paths of Windows are written")
def no_toml(folder: Path) -> None:
    path = subset(folder, r'image_dir = "C:\users\me"')
    line = said(path)
    assert "expected TOML, found " in line
    assert "line 5" in line
    assert line.endswith("a path with \\ stands between '")


@case("a TOML without datasets, subsets, resolution or folder is refused, all at once")
def lacking(folder: Path) -> None:
    path = folder / "d.toml"
    path.write_text("[generell]\n")
    line = said(path)
    assert "found 'generell' (did you mean 'general'?)" in line
    assert "expected [[datasets]], found none" in line
    path.write_text("[[datasets]]\n[[datasets]]\n[[datasets.subsets]]\n")
    line = said(path, defaults={})
    assert "[[datasets]] 1: expected [[datasets.subsets]], found none" in line
    assert "[[datasets]] 2: expected a resolution, found none" in line
    assert "[[datasets]] 2, subset 1: expected image_dir or metadata_file, found neither" in line
    path = subset(folder, f"image_dir = '{folder}'", "resolution = '512'")
    assert "resolution: expected 1 to 8192, or [width, height] of these, found '512'" in said(
        path, defaults={}
    )
    assert "expected a resolution" not in said(path, defaults={})


@case("a folder that is nowhere is refused with where it was looked for")
def nowhere(folder: Path) -> None:
    line = said(subset(folder, "image_dir = 'images'"))
    assert f"image_dir: expected images in {Path.cwd()} or in {folder.resolve()}, found none" in line


# --- what fits together ---


@case("[trigger] without a trigger word is refused, and in captions of regularization images")
def trigger(folder: Path) -> None:
    picture(folder / "one" / "a.png", "a photo of [trigger]")
    assert "expected a trigger word for [trigger]" in said(folder / "one")
    read_captioned(folder / "one", SIZES, "ohwx")
    picture(folder / "two" / "b.png", "a man")
    text = f"image_dir = '{folder}/one'\n[[datasets.subsets]]\nimage_dir = '{folder}/two'\nis_reg = true"
    line = said(subset(folder, text, "caption_prefix = '[trigger],'"), "ohwx")
    assert "subset 2: expected regularization images without [trigger]" in line


@case("regularization images alone are refused")
def class_alone(folder: Path) -> None:
    picture(folder / "a.png", "a man")
    line = said(subset(folder, f"image_dir = '{folder}'\nis_reg = true"))
    assert "expected images to learn, found regularization images alone" in line


@case("images that can't be read and those that no bucket takes are refused in one line")
def unfit(folder: Path) -> None:
    picture(folder / "good.png", "x")
    picture(folder / "wide.png", "x", (640, 8))
    (folder / "torn.png").write_bytes(b"\x89PNG")
    (folder / "torn.txt").write_text("x")

    def of(width: int, height: int, where: object) -> tuple[int, int]:
        if width > 4 * height:
            raise UserError(f"{where}: too wide")
        return 8, 8

    line = refused_by(lambda: count_epoch(read_captioned(folder, SIZES), lambda _: of))
    assert "torn.png: expected a readable image" in line
    assert "wide.png: too wide" in line
