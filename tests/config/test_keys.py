"""A key is one line: what depends on it, how it is listed and checked is made of that line alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from utils.config.keys import default_of
from utils.config.listing import keys_help, keys_page
from utils.config.load import read_config, save_config
from utils.config.schema import KEYS, Config, choices, coerce, depends_on, groups, made_by_plan

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINS = {
    *("pretrained_model_name_or_path", "resolution", "dtype", "quantization", "max_sequence_length"),
    *("datasets_folder", "datasets", "source_folder", "target_folder", "pair_count", "resize"),
    *("python_name", "config_name", "start_step", "end_step", "num_inference_steps", "guidance_scale"),
    *(
        "cfg_eta",
        "noise_scales",
        "train_method",
        "rank",
        "alpha",
        "lr",
        "lr_scheduler",
        "lr_warmup_steps",
        "batch_size",
    ),
    *("train_iteration", "train_start", "train_count", "seed"),
}


def test_what_a_lora_depends_on_is_said_by_the_group() -> None:
    assert depends_on("trains") == TRAINS
    assert set().union(*groups().values()) == set(KEYS)
    assert sum(map(len, groups().values())) == len(KEYS)
    # what a study's cell depends on beyond its LoRA: what it is drawn from, and what measures it
    assert depends_on("measured") - TRAINS == {
        *("prompt", "use_prompts_file", "prompts_file", "skips", "judge"),
        *(key for key in KEYS if key.endswith("_weights")),
    }
    assert depends_on("measured") >= TRAINS
    assert made_by_plan() < set(KEYS)


def test_every_default_is_a_right_value() -> None:
    for each in fields(Config):
        assert coerce(each.name, default_of(each)) == default_of(each)
        assert each.metadata["key"].about


def test_every_key_is_listed() -> None:
    shown = " ".join(keys_help().split())
    assert max(map(len, keys_help().splitlines())) <= 110
    for name in KEYS:
        assert f" {name}=" in shown
    assert (REPOSITORY / "docs/keys.md").read_text(encoding="utf-8") == keys_page()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 2**62 + 1, "expected 0 to 2^62"),
        ("cfg_eta", 2e9, "expected numbers up to 1e+09"),
        ("lr", True, "expected a number"),
        ("rank", "4.5", "expected a whole number"),
        ("compile", "maybe", "expected true or false"),
        ("launcher", "slurm", "expected one of local, ray, found 'slurm'"),
    ],
)
def test_values_outside_a_keys_line_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        coerce(key, value)
    assert message in str(caught.value)


NO_WHOLE, NO_TEXT = "expected a whole number", "expected text"
NO_FLAG = "expected true or false (or 1 or 0)"


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        *(("rank", value, 7) for value in (7, "7", "07", " 7 ")),
        *(("rank", value, NO_WHOLE) for value in (7.0, "7.0", True, None, [7], "???", b"7", float("nan"))),
        *(("lr", value, 7.0) for value in (7, 7.0, "7", "7e0")),
        *(("lr", value, "expected a number") for value in (True, None, [7.0], "${lr}", b"7")),
        *(("compile", value, True) for value in (True, 1, "1", "true")),
        *(("compile", value, NO_FLAG) for value in (1.0, "yes", "True", 2, None, [True])),
        *(("python_name", value, "7") for value in (7, "7")),
        *(("python_name", value, NO_TEXT) for value in (True, b"7", ["a"], "${", "a${b")),
        ("python_name", None, ""),
        ("python_name", "${a}", "${a}"),
        ("trained_lora_path", "", []),
        ("trained_lora_path", "a,b", ["a,b"]),
        ("lora_scales", "", []),
        ("prompt", "", [""]),
        ("prompt", None, "expected at least one prompt"),
        ("skips", [1, True], "expected a list of whole numbers"),
        ("noise_scales", [float("nan"), "a"], "expected a list of numbers"),
        ("datasets", ["a/b", True], "expected a list of texts"),
        ("noise_scales", [2e9], "expected numbers up to 1e+09"),
        ("lora_scales", [[2e9]], "expected numbers up to 1e+09"),
        ("alpha", 2e9, "expected numbers up to 1e+09"),
    ],
)
def test_a_value_is_turned_into_its_type_or_refused(key: str, value: object, found: object) -> None:
    if isinstance(found, str) and found.startswith("expected"):
        with pytest.raises(ValueError, match="expected") as caught:
            coerce(key, value)
        assert str(caught.value) == f"{found}, found {value!r}"
    else:
        assert (coerce(key, value), type(coerce(key, value))) == (found, type(found))


def test_every_text_that_is_taken_can_be_saved_and_read(tmp_path: Path) -> None:
    for text in ("${a}", "???", "a: b # c", "\\${a", "é", "null"):
        config = Config(push_to_hub=coerce("push_to_hub", text))
        save_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == config


def test_registries_have_the_names_that_a_config_may_hold() -> None:
    from utils.flow.inversion import TRAINING_FREE
    from utils.flow.inversion_lora import RULES
    from utils.models.quantization import QUANTIZATIONS

    assert {"lora", *TRAINING_FREE} == {*choices("inversion")}
    assert {*RULES} == {*choices("inversion_rule")}
    assert {*QUANTIZATIONS} == {*choices("quantization")}


ADDED = '    momentum: float = key(TRAINING, 0.5, "a toy key", ge=0, le=1)\n'
USE = """
from pathlib import Path
from utils.config.load import load_config
from utils.config.listing import keys_help, keys_page
from utils.config.load import read_config, save_config
from utils.config.schema import depends_on
from utils.errors import UserError

folder = Path("train/config")
print(*(load_config("train_image", given, folder).momentum for given in ([], ["momentum=1"])))
for wrong in ("momentum=2", "momentun=1"):
    try:
        load_config("train_image", [wrong], folder)
    except UserError as error:
        print(error)
print("momentum" in depends_on("trains"), "momentum=0.5  a toy key" in keys_help())
print("| `momentum` | `0.5` | a number, 0 to 1 | a toy key |" in keys_page())
"""


def test_a_toy_key_is_one_line(tmp_path: Path) -> None:
    """In a copy of the library with that line and nothing else added."""
    for folder in ("utils", "train/config"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    schema = tmp_path / "utils/config/schema.py"
    before, line, after = schema.read_text().partition("    rank: int = key(")
    schema.write_text(before + ADDED + line + after)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "0.5 1.0",
        "command line: momentum: expected 0 to 1, found 2",
        "command line: unknown key 'momentun' (did you mean 'momentum'?)",
        "True True",
        "True",
    ], done.stderr
