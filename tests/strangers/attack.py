"""Text and numbers that are meant to do harm, or might as well be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from tests.strangers import case
from utils.arguments import Parser
from utils.config.load import parse_overrides
from utils.config.schema import Config
from utils.config.yaml_bounds import MOST_BYTES, MOST_DEPTH, MOST_NODES
from utils.config.yaml_files import load_yaml
from utils.errors import UserError, run_cli
from utils.jobs.amounts import BaseShape, check_amounts, least_bytes, least_operations
from utils.machine import REPOSITORY

SMALL = str(REPOSITORY / "tinyflux/weights")
DEV = BaseShape(width=3072, blocks=57, text_heads=64, channels=128, pixels=16)


def refused(work: Callable[[], object], *says: str) -> None:
    """`work` ends in one line that says all of this."""
    with pytest.raises(UserError) as caught:
        work()
    message = str(caught.value)
    assert [each for each in says if each not in message] == [], message
    assert len(message) < 1000


HOSTILE = {
    "tags": ("rank: !!int x", "a: !!bool x", "a: !!timestamp 1", "a: !!python/object/apply:os.system [ls]"),
    "tags of nothing": (
        "a: !",
        "a: !<tag:yaml.org,2002:int> 1",
        "%TAG ! tag:yaml.org,2002:python/\n--- !x 1",
    ),
    "aliases": ("a: &a [*a]", "a: &a 1\nb: *a", "a: *nothing"),
    "deep": ("[" * 10**6, "{a: " * 10**5, "- " * 10**5, "? " * 10**5, "[" * (MOST_DEPTH + 1)),
    "long": ("-" * 10**7, "a: " + "x" * MOST_BYTES, "[" + "a," * MOST_NODES + "]", "a" * (MOST_BYTES + 1)),
    "unprintable": ("a: \0", "\0", "a: \x1b[31m", '"\\', "a: \ud800"),
}


@case("tags, aliases, depth, length and control characters in a YAML are one line")
def hostile_yaml(folder: Path) -> None:
    for texts in HOSTILE.values():
        for text in texts:
            (folder / "a.yaml").write_bytes(text.encode(errors="surrogatepass"))
            refused(lambda: load_yaml(folder / "a.yaml"), "a.yaml: expected YAML, found ")


@case("the same as values on the command line are one line")
def hostile_values(folder: Path) -> None:
    for texts in HOSTILE.values():
        for text in texts[:4]:
            _, faults = parse_overrides([f"noise_scales={text}"])
            assert all(len(fault) < 1000 for fault in faults), text[:50]


@case("YAML that is as deep and long as may be is read")
def large_yaml(folder: Path) -> None:
    path = folder / "a.yaml"
    path.write_text("[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1))
    assert load_yaml(path) is not None
    path.write_text("\ufeff" + "- a photo of a cat\n" * 5000)  # with a byte order mark, as from Windows
    assert load_yaml(path) == ["a photo of a cat"] * 5000


@case("numbers that no machine or day has room for are refused by their keys, unless --yes")
def absurd_numbers(folder: Path) -> None:
    large = [
        ({"train_count": 100_000}, True, "train_count"),
        ({"noise_scales": [1.0] * 2000}, True, "noise_scales"),
        ({"scales": [1.0] * 10_000}, False, "scales"),
        ({"count_gen": 10**9}, False, "count_gen"),
        ({"lora_scales": [[1.0] * 100] * 2}, False, "scales"),
        ({"max_sequence_length": 10**9}, True, "max_sequence_length"),
        ({"resolution": 8192, "batch_size": 64}, True, "resolution"),
        ({"batch_size": 4096, "resolution": 2048}, True, "batch_size"),
        ({"num_inference_steps": 10**12}, True, "num_inference_steps"),
    ]
    for values, training, key in large:
        check = partial(check_amounts, Config(device="cpu", **values), SMALL, training)
        refused(check, key, "--yes goes on all the same")
    check_amounts(Config(device="cuda", batch_size=4096), SMALL, True)  # a GPU says so itself


@case("no config of the repository is too much, nor FLUX.1-dev on a machine of 64 GB")
def meant_numbers(folder: Path) -> None:
    for training in (True, False):
        check_amounts(Config(device="cpu", resolution=512), SMALL, training)
        own = Config(resolution=1024, dtype="bfloat16", batch_size_gen=1)
        assert max(least_bytes(own, DEV, training).values()) < 64e9
        assert least_operations(own, DEV, training) < 1.8e15
    assert least_bytes(Config(rank=8192), DEV, True)["rank"] > 64e9


@case("a name too long for the file system is one line, by whatever command")
def long_name(folder: Path) -> None:
    stderr = StringIO()
    with redirect_stderr(stderr), pytest.raises(SystemExit, match="2"):
        run_cli(lambda: (folder / ("x" * 300)).mkdir())
    assert stderr.getvalue().startswith("error: ")
    assert "File name too long" in stderr.getvalue()


@case("a full disk is one line, by whatever command")
def full_disk(folder: Path) -> None:
    if not Path("/dev/full").exists():
        return
    stderr = StringIO()
    with redirect_stderr(stderr), pytest.raises(SystemExit, match="2"):
        run_cli(lambda: _write("/dev/full"))
    assert stderr.getvalue().endswith("expected room to write, found: No space left on device\n")
    assert len(stderr.getvalue().splitlines()) == 1


def _write(path: str) -> None:
    with open(path, "w") as file:
        file.write("x")
        file.flush()


@case("an option whose value is -- has none")
def dashes(folder: Path) -> None:
    for option in ("--c", "--out"):
        parser = Parser()
        parser.add_argument(option)
        with pytest.raises(SystemExit) as left:
            parser.parse_args([f"{option}=--"])
        assert left.value.code == 2
        assert parser.parse_args([f"{option}=-"]) == parser.parse_args([option, "-"])
