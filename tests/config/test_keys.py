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
from utils.config.schema import KEYS, Config, coerce, depends_on, groups, made_by_plan

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINS = {
    *("pretrained_model_name_or_path", "resolution", "dtype", "quantization", "max_sequence_length"),
    *("datasets_folder", "datasets", "source_folder", "target_folder", "pair_count", "resize", "align"),
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
    *("train_iteration", "train_epochs", "train_start", "train_count", "seed"),
    *("init_lora", "optimizer", "timesteps", "timestep_shift", "train_guidance", "resolutions"),
    *("weight_decay", "max_grad_norm", "ema_decay"),
    *(
        "trigger",
        "class_word",
        "new_token",
        "token_init",
        "token_lr",
        "token_until",
        "token_t5",
        "text_rank",
        "text_lr",
        "class_prompt",
        "prior",
        "prior_weight",
        "prior_folder",
        "prior_count",
    ),
    *("shuffle_caption", "keep_tokens", "caption_drop", "tag_drop", "flip"),
}


def test_what_a_lora_depends_on_is_said_by_the_group() -> None:
    assert depends_on("trains") == TRAINS
    assert set().union(*groups().values()) == set(KEYS)
    assert sum(map(len, groups().values())) == len(KEYS)
    # what a study's cell depends on beyond its LoRA: what it is drawn from, and what measures it
    assert depends_on("measured") - TRAINS == {
        *("prompt", "use_prompts_file", "prompts_file", "skips", "judge", "locality", "width", "height"),
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
        ("train_iteration", 2e9, "expected a whole number"),
        ("train_iteration", 2 * 10**9, "expected numbers up to 1e+09"),
        ("train_iteration", 0, "expected 1 or more"),
        ("lr", 2e9, "expected numbers up to 1e+09"),
        ("skips", [2 * 10**9], "expected numbers up to 1e+09"),
        ("skips", [1, float("nan")], "expected a list of whole numbers"),
        ("scales", ["a", float("nan")], "expected a list of numbers"),
        ("scales", [0, float("nan")], "expected finite numbers"),
        ("rank", "4.0", "expected a whole number"),
        ("rank", 16.0, "expected a whole number"),
        ("rank", b"16", "expected a whole number"),
        ("config_name", True, "expected text"),
        ("config_name", ["a"], "expected text"),
        ("compile", "maybe", "expected true or false"),
        ("launcher", "slurm", "expected one of local, ray, found 'slurm'"),
    ],
)
def test_values_outside_a_keys_line_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        coerce(key, value)
    assert message in str(caught.value)


@pytest.mark.parametrize("flag", ["use_random_seed", "compile"])
def test_a_flag_is_true_false_1_or_0(flag: str) -> None:
    for value in (True, 1, "1", "true"):
        assert coerce(flag, value) is True
    for value in (False, 0, "0", "false"):
        assert coerce(flag, value) is False
    for value in (7, 1.0, "yes", "True", "on", "t", "", None, [1], b"1"):
        with pytest.raises(ValueError, match="expected true or false"):
            coerce(flag, value)


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("rank", "16", 16),
        ("lr", 1, 1.0),
        ("skips", "2, 4", [2, 4]),
        ("scales", "auto", []),
        ("scales", 0.5, [0.5]),
        ("image_ids", ["0610", 61, 0.5], ["0610", "61", "0.5"]),
        ("trained_lora_path", "", []),  # as the reference's YAMLs have it
        ("trained_lora_path", "a,b", ["a,b"]),
        ("lora_scales", "", []),
        ("lora_scales", [[0, "1"], [2]], [[0.0, 1.0], [2.0]]),
        ("datasets_folder", None, ""),
        ("prompt", "", [""]),
        ("prompt", "of ${b}", ["of ${b}"]),
    ],
)
def test_what_may_be_written_otherwise(key: str, value: object, typed: object) -> None:
    found = coerce(key, value)
    assert (found, type(found)) == (typed, type(typed))
    if isinstance(found, list) and isinstance(typed, list):
        assert list(map(type, found)) == list(map(type, typed))


ADDED = '    momentum: float = key(TRAINING, 0.5, "a toy key", ge=0, le=1)\n'
USE = """
from pathlib import Path
from utils.config.load import load_config
from utils.config.listing import keys_help, keys_page
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
