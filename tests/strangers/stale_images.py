"""Images, figures and reports of what has changed since: none stands among the present ones."""

from __future__ import annotations

import json
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mini_stale import draw, library, make_run, retrain, train, write_lora
from tests.strangers import case
from utils.config.runs import RealRun
from utils.errors import UserError
from utils.generation.made_with import doubts
from utils.generation.prompts_and_seeds import check_loras
from utils.training.claims import trained_otherwise


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
    others = {"guidance_scale": 2.0}, {"prompt": ["image of a person!"]}, {"resolution": 256}
    for changes in (*others, {"width": 256}, {"locality": True}):
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


@case("images from before there were width, height and locality are those of their defaults")
def newer_keys(folder: Path) -> None:
    run = make_run(folder)
    train(run)
    kept = run.seeds_folder / "made_with.json"
    first = draw(run)
    content = json.loads(kept.read_text())
    for key in ("width", "height", "locality"):
        del content["settings"][key]
    kept.write_text(json.dumps(content))
    draw(run, 1.0)
    assert first.exists()
    kept.write_text(json.dumps(content))
    draw(make_run(folder, height=256), 1.0)
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
        for name in ("report.html", "results.csv", "figures.csv", "curves_age.png"):
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
    for name in ("figures.csv", "curves_age.png"):
        assert (folder / "report_old1" / name).read_text() == "whole"
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
