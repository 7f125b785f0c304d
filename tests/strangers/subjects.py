"""Subjects as people bring them: words that do not fit, captions half there, keys at odds with each other."""

from __future__ import annotations

from pathlib import Path

from tests.strangers import case
from tests.strangers.captions import picture, refused_by
from utils.config.load import read_settings
from utils.config.runs import Run
from utils.training.captioned import CaptionedImages

SMALL = {"pretrained_model_name_or_path": "tinyflux/weights", "resolution": 128, "max_sequence_length": 32}


def run_on(folder: Path, name: str = "mine", **changes: object) -> Run:
    """The run on a dataset in the folder."""
    settings = {"python_name": "train_subject", "datasets_folder": str(folder), "datasets": [name]}
    (run,) = CaptionedImages.runs(read_settings({"": SMALL | settings | {"trigger": "ohwx"} | changes}))
    return run


def source_on(folder: Path, name: str = "mine", **changes: object) -> CaptionedImages:
    return CaptionedImages.of(run_on(folder, name, **changes))


def captions(source: CaptionedImages) -> set[str]:
    return {sample.caption for step in source.plan for sample in step.samples}


@case("a class word is a word of the captions: man is in no woman, Man is one")
def class_word(folder: Path) -> None:
    picture(folder / "mine" / "a.png", "a photo of ohwx woman", (128, 128))
    line = refused_by(source_on(folder, class_word="man").read)
    assert line == f"class_word: expected a word of the captions, found 'man' in none of {folder / 'mine'}"
    picture(folder / "mine" / "b.png", "Man on a hill", (128, 128))
    source_on(folder, class_word="man").read()


@case("images without any caption are trigger and class word; where some have one, the rest lack theirs")
def captions_half_there(folder: Path) -> None:
    for stem in "ab":
        picture(folder / "mine" / f"{stem}.png", size=(128, 128))
    assert captions(source_on(folder, class_word="dog")) == {"ohwx dog"}
    (folder / "mine" / "a.txt").write_text("a dog")
    line = refused_by(lambda: run_on(folder, class_word="dog"))
    assert line.endswith("found none for 1 image: b.png")


@case("a trigger stands once in each caption, in place of [trigger] or before it")
def trigger(folder: Path) -> None:
    picture(folder / "mine" / "a.png", "a photo of [trigger] person", (128, 128))
    picture(folder / "mine" / "b.png", "ohwx, smiling", (128, 128))
    picture(folder / "mine" / "c.png", "on a hill", (128, 128))
    source = source_on(folder)
    assert captions(source) == {"a photo of ohwx person", "ohwx, smiling", "ohwx, on a hill"}
    assert {source.class_caption(caption) for caption in captions(source)} == {
        "a photo of person",
        "smiling",
        "on a hill",
    }


@case("a misspelt key of a TOML is told by the dataset's name, before any model")
def misspelt(folder: Path) -> None:
    picture(folder / "images" / "a.png", "ohwx", (128, 128))
    (folder / "mine.toml").write_text(
        f"[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = '{folder}/images'\nnum_repeat = 2\n"
    )
    line = refused_by(lambda: run_on(folder))
    assert (
        "mine.toml: [[datasets]] 1, subset 1: unknown key 'num_repeat' (did you mean 'num_repeats'?)" in line
    )


@case("a TOML's sizes that the base does not take are told with the TOML's name")
def sizes(folder: Path) -> None:
    from utils.models.families import FAMILIES

    picture(folder / "images" / "a.png", "ohwx", (128, 128))
    text = f"[[datasets]]\nresolution = 100\n[[datasets.subsets]]\nimage_dir = '{folder}/images'\n"
    (folder / "mine.toml").write_text(text)
    line = refused_by(lambda: source_on(folder).check_fits(FAMILIES["flux1"]))
    assert f"{folder / 'mine.toml'}: resolution or bucket: expected a multiple of 16" in line


@case("keys of a subject that contradict each other are told without its images")
def contradictions(folder: Path) -> None:
    for settings, line in (
        ({"prior": "base"}, "trigger: expected the word for the subject, since prior is base; found none"),
        (
            {"optimizer": "prodigy"},
            "lr: expected 0.1 or more, 1 as a rule, since prodigy finds the rate itself",
        ),
        ({"timesteps": "sigmoid"}, "timesteps: expected one of steps, uniform, logit_normal, shifted"),
        ({"prior": "image"}, "prior: expected one of none, images, base"),
        ({"lr_warmup_steps": 500}, "lr_warmup_steps: expected fewer than 500"),
    ):
        assert line in refused_by(lambda settings=settings: read_settings({"": settings}))
    read_settings({"": {"lr_warmup_steps": 500, "train_epochs": 10}})  # how many steps, the images say


@case("steps of a training are counted by images, repeats and batches, its saves too")
def epochs(folder: Path) -> None:
    for number in range(5):
        picture(folder / "mine" / f"{number}.png", "ohwx", (128, 128) if number else (128, 256))
    config = run_on(folder, batch_size=2, train_epochs=10, save_per_epochs=3).config
    assert (config.train_iteration, config.save_per_steps) == (
        30,
        9,
    )  # 4 squares in 2 steps, 1 tall in another
    assert run_on(folder, batch_size=2).config.train_iteration == 500
