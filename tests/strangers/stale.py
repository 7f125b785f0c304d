"""Trainings whose code, settings or files have changed since: none is taken for the present one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mini_stale import OBJECTIVES, draw, library, make_run, train, write_lora
from tests.strangers import case
from utils import code_hash
from utils.code_hash import changed_files, figures_code, images_code, training_code
from utils.errors import UserError
from utils.hashes import lora_hash
from utils.training.claims import is_trained


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
        (
            "utils/training/trainer.py",
            "text.groups(parameters), config.lr",
            "text.groups(parameters), 2 * config.lr",
        ),
        ("utils/training/optimizers.py", "fused=True", "amsgrad=True"),
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
        ("utils/flow/subject.py", "weight=self.prior_weight", "weight=2 * self.prior_weight"),
        ("utils/training/captioned_batches.py", "own = len", "own = 2 * len"),
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
    from utils.lora.formats import OWN_HEADER

    path = write_lora(folder / "a.safetensors")
    before = lora_hash(path)
    update_metadata(path, {"calibration": "{}"})
    assert lora_hash(path) == before
    assert set(READING) == set(OWN_HEADER)
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
