"""Results whose code, LoRA, settings or neighbours have changed: none is taken for the present one's."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.strangers import case
from utils import code_hash
from utils.code_hash import changed_files, figures_code, images_code, training_code
from utils.config.runs import RealRun, Run, expand_runs
from utils.config.schema import Config
from utils.errors import UserError
from utils.generation.made_with import claim_images, doubts
from utils.generation.prompts_and_seeds import check_loras
from utils.hashes import lora_hash
from utils.training.claims import claimed, is_trained, note_saved, trained_otherwise

OBJECTIVES = "utils/flow/objectives.py"


@contextmanager
def library(folder: Path, file: str = OBJECTIVES, old: str = "", new: str = "") -> Iterator[None]:
    """Inside, the library is a copy in which one text stands for another."""
    here, there = code_hash._FOLDER, folder / "library"
    if not there.exists():
        shutil.copytree(here / "utils", there / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    text = (here / file).read_text(encoding="utf-8")
    assert old in text
    (there / file).write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_hash, "_FOLDER", there)
        _forget()
        yield
    (there / file).write_text(text, encoding="utf-8")
    _forget()


def _forget() -> None:
    for cached in (code_hash._reached, code_hash._module):
        cached.cache_clear()


def make_run(folder: Path, **changes: object) -> Run:
    """A run in a folder, of few settings."""
    own = {"datasets": ["age"], "output_folder": f"{folder}/out", "output_folder_gen": f"{folder}/gen"}
    return expand_runs(replace(Config(**own), **changes))[0]


def write_lora(path: Path, value: float = 1.0) -> Path:
    """A file that can be read as a LoRA's, without torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"transformer.x.lora_A.weight": np.full((2, 3), value, np.float32)}, path)
    return path


def train(run: Run, inputs: str = "a") -> bool:
    """What a training leaves behind, if there is anything to do; whether there was."""
    with claimed(run, inputs) as todo:
        if todo:
            write_lora(run.weights_path())
            with zipfile.ZipFile(run.reference_path(), "w") as archive:
                archive.writestr("data.pkl", "weights")
            note_saved(run, run.config.train_iteration)
            run.record_path.write_text("{}")
        return todo


def retrain(run: Run) -> None:
    """Another LoRA in place of the one before, saved as one is."""
    write_lora(run.weights_path(), 2.0)
    note_saved(run, run.config.train_iteration)


def draw(run: Run, scale: float = 0.0) -> Path:
    """An image of a run, as generation writes it, nothing drawn."""
    claim_images(run)
    path = run.image_path(1, run.config.skips[0], scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    return path


# --- code ---


@case("a loss five times as heavy is other code, to the methods that have it")
def heavier(folder: Path) -> None:
    before = {method: training_code(method, None) for method in ("train_image", "train_image_sliders")}
    old = 'Pass("semantic", _SEMANTIC_ON_CONTENT, x_t, batch.sigma, velocity_target),'
    with library(folder, old=old, new=old.replace("),", ", weight=5.0),")):
        assert changed_files(before["train_image"], training_code("train_image", None)) == [OBJECTIVES]
        assert training_code("train_image_sliders", None) == before["train_image_sliders"]


@case("the schedule, the adapters, the trainer, the data and a method's row are of a training's code")
def deciding(folder: Path) -> None:
    before = training_code("train_image", None)
    for file, old, new in (
        ("utils/flow/schedules.py", "self.beta", "2 * self.beta"),
        ("utils/models/lora_layer.py", "alpha", "alpha_"),
        ("utils/training/trainer.py", "lr=config.lr", "lr=2 * config.lr"),
        ("utils/training/batches.py", "generator", "generator_"),
        ("utils/data/pixels.py", "127.5", "128.0"),
        ("utils/models/flux1.py", "shift_factor", "shift_factor_"),
        ("utils/training/methods.py", "ContentPreserving(beta), eta),", "ContentPreserving(beta), -eta),"),
    ):
        with library(folder, file, old, new):
            assert changed_files(before, training_code("train_image", None)) == [file]


@case("comments, docstrings, messages, hints, layout and a new method are no other code")
def undecided(folder: Path) -> None:
    before = training_code("train_image", None), images_code(), figures_code()
    added = (
        '\n# a comment\nclass Added(PairObjective):\n    """New."""\n    eta: float\n',
        "\n\n\ndef unused() -> int:\n    return 5\n",
    )
    for file, old, new in (
        *((OBJECTIVES, "", text) for text in added),
        (OBJECTIVES, "PairEdit: a content adapter", "The content adapter"),
        (OBJECTIVES, "velocity_target),", "velocity_target  # the edit\n            ),"),
        ("utils/flow/sampling.py", "expected at least", "wanted at least"),
        ("utils/training/log.py", "a smaller lr may help", "try another lr"),
        (
            "utils/training/methods.py",
            '    "train_image_wocontent"',
            '    "new": None,\n    "train_image_wocontent"',
        ),
    ):
        with library(folder, file, old, new):
            assert (training_code("train_image", None), images_code(), figures_code()) == before, (file, new)


@case("sampling is of images' and figures' code, not of a training's")
def sampling(folder: Path) -> None:
    before = training_code("train_image", None), images_code(), figures_code()
    file = "utils/flow/sampling.py"
    with library(folder, file, "+ (", "- ("):
        now = training_code("train_image", None), images_code(), figures_code()
    assert [changed_files(*both) for both in zip(before, now, strict=True)] == [[], [file], [file]]


@case("what code hashes begin with and stop at is there")
def names(folder: Path) -> None:
    roots = (code_hash._TRAINING, code_hash._IMAGES, code_hash._PHOTOGRAPHS, code_hash._FIGURES)
    for name in (*code_hash._DECIDE_NOTHING, *(name for several in roots for name in several)):
        module, _, definition = name.rpartition(".")
        path = code_hash._FOLDER.joinpath(*name.split("."))
        is_room = path.is_dir() or path.with_suffix(".py").is_file()
        assert is_room or code_hash._nodes(code_hash._module(module), definition), name


@case("a training by other code is moved aside and told, or kept by other_code")
def other_code(folder: Path) -> None:
    run = make_run(folder)
    assert train(run)
    with library(folder, old="self.eta", new="2 * self.eta"), pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        kept = make_run(folder, other_code=True)
        assert not train(kept)
        assert train(run)
        assert "by other code (" in said[0]
        assert "kept as other_code says" in said[0]
        assert "which other_code=1 would keep; moved to" in said[1]


@case("a training from before hashes were kept is kept, told once, and noticed from then on")
def unknown(folder: Path) -> None:
    run = make_run(folder)
    assert train(run)
    for path in (run.code_path, run.saved_path, run.reference_path()):
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        assert not train(run)
        assert not train(run)
        assert ["hashes" in line for line in said] == [True, False]
    write_lora(run.weights_path(), 2.0)
    assert not is_trained(run, "a")


# --- a LoRA that is not what was saved ---


@case("a finished LoRA that is empty, cut, flipped or another's is set aside")
def damaged(folder: Path) -> None:
    for number, damage in enumerate((b"", 20, 200, -1)):
        for file in ("weights_path", "reference_path"):
            run = make_run(folder / f"{number}{file}")
            assert train(run)
            path = getattr(run, file)()
            content = bytearray(path.read_bytes())
            if isinstance(damage, bytes):
                path.write_bytes(damage)
            elif damage > 0:
                path.write_bytes(content[: min(damage, len(content) - 1)])
            else:
                content[damage] ^= 1
                path.write_bytes(content)
            assert not is_trained(run, "a"), (damage, file)
            assert train(run)
            assert run.folder.with_name(f"{run.name}_old1").is_dir()


@case("a calibrated LoRA is the same LoRA; every key that says how to read one counts")
def header(folder: Path) -> None:
    from utils.hashes import READING
    from utils.lora.files import update_metadata
    from utils.lora.formats import FORMATS

    path = write_lora(folder / "a.safetensors")
    before = lora_hash(path)
    update_metadata(path, {"calibration": "{}"})
    assert lora_hash(path) == before
    assert set(READING) == {key for layout in FORMATS.values() for key in layout.header}
    for key in READING:
        update_metadata(path, {key: "{}"})
        assert lora_hash(path) != before


@case("a changed LoRA makes no images of its run until it is named")
def changed(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    path = write_lora(run.weights_path(), 2.0)
    with pytest.raises(UserError, match="expected the LoRA as training saved it, found it changed"):
        draw(run)
    draw(make_run(folder / "b", use_trained_lora_path=True, trained_lora_path=[str(path)]))


# --- images ---


@case("images of an earlier LoRA are moved aside before the new one's join them")
def images(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    first = draw(run, 0.5)
    assert draw(run, 1.0).parent == first.parent
    assert first.exists()
    retrain(run)
    draw(run, 1.0)
    assert not first.exists()
    aside = run.seeds_folder.with_name(f"{run.seeds_folder.name}_old1")
    assert (aside / "1" / first.name).exists()


@case("so are images of other settings, prompts or code, or of what was not kept")
def image_settings(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    for changes in ({"guidance_scale": 2.0}, {"prompt": ["image of a person!"]}, {"resolution": 256}):
        first = draw(run)
        draw(make_run(folder, **changes), 1.0)
        assert not first.exists(), changes
    first = draw(run)
    with library(folder, "utils/flow/sampling.py", "+ (", "- ("):
        draw(make_run(folder, other_code=True), 1.0)
        assert first.exists()
        draw(run, 1.0)
        assert not first.exists()
    for damage in ("", "{", "[]", '{"loras": 1}'):
        first = draw(run)
        (run.seeds_folder / "made_with.json").write_text(damage)
        draw(run, 1.0)
        assert not first.exists()


@case("images of another LoRA are not measured as the run's, nor of unknown origin without a word")
def measured(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    draw(run)
    assert doubts(run) == []
    assert "made with guidance_scale 3.5, now 2" in doubts(make_run(folder, guidance_scale=2.0))[0]
    retrain(run)
    with pytest.raises(UserError, match=r"found images of another LoRA; .* --images"):
        doubts(run)
    (run.seeds_folder / "made_with.json").unlink()
    assert "it was not kept what LoRA made them" in doubts(run)[0]


@case("a LoRA that was trained at another lr is told before it is used")
def another_lr(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    assert trained_otherwise(run) == ""
    assert trained_otherwise(make_run(folder, guidance_scale=1.0, count_gen=9)) == ""
    assert "trained with lr 0.002, now 0.01" in trained_otherwise(make_run(folder, lr=0.01))


@case("two LoRA files of one name have a folder each, however their paths are spelled")
def one_name(folder: Path) -> None:
    def seeds_folder(path: str) -> Path:
        return make_run(folder, use_trained_lora_path=True, trained_lora_path=[path]).seeds_folder

    def edits_folder(path: str) -> Path:
        run = make_run(folder, semantic_lora_path=path)
        return RealRun(run.config, run.dataset, run.noise_scale, run.version, Path("a.png")).seeds_folder

    with chdir(folder):
        for of in (seeds_folder, edits_folder):
            assert of("a/run/x.safetensors") != of("b/run/x.safetensors")
            spelled = ("a/run/x.pt", "./a/run/x.pt", "a/../a/run/x.pt", f"{folder}/a/run/x.pt")
            assert len({of(path) for path in spelled}) == 1


@case("where no LoRA is, it is said where one lies that was moved aside")
def moved_aside(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    train(make_run(folder, train_iteration=1))
    with pytest.raises(
        UserError, match=r"found none; of other trainings there are .*_old1/.*500epoch"
    ) as caught:
        check_loras([run], "python train")
    assert "; train it with: python train" in str(caught.value)


# --- a study ---


@case("a part of a study leaves the whole one's report alone; another's figures move it aside")
def reports(folder: Path) -> None:
    from tests.study.known_cells import cell
    from utils.study.places import make_room, report_folder

    a, b = (cell(label, made_with={"lr": 1}) for label in "ab")

    def report(planned: list, results: list, text: str) -> Path:
        where = report_folder(folder, [one.cell for one in planned])
        make_room(where, results)
        for name in ("report.html", "results.csv", "curves_age.png"):
            (where / name).write_text(text)
        return where

    assert report([a, b], [a], "stopped") == folder
    assert report([a, b], [a, b], "whole") == folder
    part = report([a], [a], "part")
    assert part.parent == folder
    assert (folder / "results.csv").read_text() == "whole"
    assert report([a], [a], "again") == part
    assert not (folder / "report_old1").exists()
    changed = replace(a, made_with={"lr": 2})
    assert report([a, b], [changed, b], "other") == folder
    assert {path.name for path in (folder / "report_old1").iterdir()} >= {"report.html", "cells.json"}
    assert (folder / "report_old1/curves_age.png").read_text() == "whole"
    (folder / "cells.json").unlink()  # as reports were before
    assert report([a], [a], "part") == folder
    assert (folder / "report_old2/results.csv").read_text() == "other"


@case("a cell's figures by other code or of another LoRA are made anew; older ones are kept, told once")
def cells(folder: Path) -> None:
    from tests.study.known_cells import cell, plan
    from utils.study.cells import done, made_with
    from utils.study.plan import Cell

    class Source:
        def fingerprint(self) -> str:
            return "a"

    run, of_plan = make_run(folder), plan()
    train(run)
    own = Cell(run, Source(), "mine")  # type: ignore[arg-type]
    said: list[str] = []

    def is_done(**changes: object) -> bool:
        said.clear()
        return done(replace(own, run=make_run(folder, **changes)), of_plan, said.append)

    assert not is_done()
    for code in ({}, [], {"training": 1, "figures": 2}):
        cell(made_with=made_with(own, of_plan, "a") | {"code": code}).save(own.result_path)
        assert not is_done()
    cell(made_with=made_with(own, of_plan, "a")).save(own.result_path)
    assert is_done()
    assert said == []
    for file in ("utils/measure/metrics.py", "utils/training/trainer.py"):
        with library(folder, file, "return ", "return 5 * "):
            assert not is_done()
            assert file in said[0]
            assert is_done(other_code=True)
            assert "kept as other_code says" in said[0]

    before = json.loads(own.result_path.read_text())
    for key in ("code", "lora"):
        del before["made_with"][key]
    own.result_path.write_text(json.dumps(before))
    assert is_done()
    assert "before hashes of code" in said[0]
    assert is_done()
    assert said == []
    write_lora(run.weights_path(), 2.0)
    assert not is_done()
    assert said == ["of another LoRA than is there now: made anew"]
