"""Paths, names, numbers and texts as people write them in YAMLs and on command lines."""

import contextlib
import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.strangers import case
from utils.arguments import Parser, lora_option, named_path, number, path_option
from utils.bars import Bar
from utils.config.load import load_config, read_config, save_config
from utils.config.runs import expand_runs
from utils.config.schema import KEYS, Config
from utils.config.yaml_files import find_yaml, load_yaml
from utils.data.prompts import load_prompts
from utils.errors import LONGEST, UserError, run_cli
from utils.files import find_images
from utils.generation.prompts_and_seeds import check_semantic_lora, choose_prompts
from utils.jobs.prepare import check_weights, list_runs, with_loras_found
from utils.machine import REPOSITORY, resolve_device
from utils.names import find_lora, is_name

PATHS = (
    *("datasets_folder", "source_folder", "target_folder", "output_folder", "output_folder_gen"),
    *("pretrained_model_name_or_path", "semantic_lora_path", "trained_lora_path", "prompts_file"),
    *(key for key in KEYS if key.endswith("_weights")),
)
CONTROLS = ("\x1b[31m", "\x07", "a\nb", "a\x7fb", "a\x9bb", "a\u202eb", "a\u2028b", "a\u2066b", "\udcff")


def config(folder: Path, text: str = "", *overrides: str) -> Config:
    """A config of a YAML's text and the command line."""
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base/flux_dev.yaml").write_text("{}\n")
    (folder / "mine.yaml").write_text(text or "{}\n", encoding="utf-8")
    return load_config("mine", overrides, folder)


def refused(work: Callable[[], object]) -> str:
    """The one line of the `UserError` that it must raise."""
    with pytest.raises(UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextlib.contextmanager
def variables(**values: str) -> Iterator[None]:
    """These environment variables for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


# --- ~ and $NAME ---


@case("~ and $NAME are replaced in every key that is a path, in YAML and on the command line")
def expanded(folder: Path) -> None:
    with variables(HOME="/home/ada", SCRATCH="/scratch"):
        for key in PATHS:
            for text, path in (
                ("~/x", "/home/ada/x"),
                ("$SCRATCH/x", "/scratch/x"),
                ("${SCRATCH}", "/scratch"),
            ):
                for found in (config(folder, f'{key}: "{text}"'), config(folder, "", f"{key}={text}")):
                    value = getattr(found, key)
                    assert value == ([path] if isinstance(value, list) else path), key


@case("a variable that is not set, and a user that is not known, are no folder's name")
def unset(folder: Path) -> None:
    for text, says in (("$NO_SUCH_NAME/x", "$NO_SUCH_NAME is not set"), ("~nobody_here/x", "no home folder")):
        assert says in refused(lambda text=text: config(folder, "", f"output_folder={text}"))
    assert config(folder, "", "output_folder=./~x/a$5").output_folder == "./~x/a$5"


@case("~ and $NAME are replaced in options that are paths")
def expanded_options(folder: Path) -> None:
    (folder / "edit.safetensors").touch()
    with variables(HOME=str(folder)):
        assert path_option("~/x") == folder / "x"
        assert named_path("age=$HOME/x") == ("age", folder / "x")
        assert lora_option("~/edit") == folder / "edit.safetensors"


@case("a prompt keeps its $ and ~")
def prompts_keep(folder: Path) -> None:
    found = config(folder, "prompt: [$HOME $x, ~/x, '${x}']", "config_name=$a")
    assert (found.prompt, found.config_name) == (["$HOME $x", "~/x", "${x}"], "$a")
    save_config(found, folder / "saved.yaml")
    assert read_config(folder / "saved.yaml") == found


# --- text stays as written ---


@case("names that look like numbers, dates or words of YAML stay as written")
def names_stay(folder: Path) -> None:
    for text in (
        "007",
        "1_000",
        "0x1F",
        "1:30",
        "1e3",
        "2026-01-01",
        "yes",
        "No",
        "on",
        "1.50",
        ".5",
        "+1",
        "true",
    ):
        in_file = config(folder, f"datasets: [{text}]\nconfig_name: {text}\nprompt: {text}\n")
        typed = config(folder, "", f"datasets=[{text}]", f"config_name={text}", f"prompt={text}")
        assert in_file == typed
        assert (in_file.datasets, in_file.config_name, in_file.prompt) == ([text], text, [text])
        save_config(in_file, folder / "saved.yaml")
        assert read_config(folder / "saved.yaml") == in_file


@case("numbers are decimal")
def decimals(folder: Path) -> None:
    for text, value in (("010", 10), ("+7", 7), ("'16'", 16)):
        assert config(folder, f"rank: {text}").rank == value
        assert config(folder, "", f"rank={text}").rank == value
    for text in ("0o17", "0x1F", "1_000", "1:30", "1e3", "١٦", "2026-01-01"):
        assert "rank: expected a whole number, found" in refused(
            lambda text=text: config(folder, f"rank: {text}")
        )
        assert "lr: expected" in refused(lambda text=text: config(folder, "", f"lr={text}_"))
    for text in ("1_0", "0x1p3", "1:30.5", "½"):
        assert "lr: expected a number" in refused(lambda text=text: config(folder, f"lr: {text}"))
        with pytest.raises(Exception, match="expected a number"):
            number(text)
    assert config(folder, "lr: 1e-3").lr == 1e-3


@case("flags are YAML's words for true and false, without quotes")
def flags(folder: Path) -> None:
    for text in ("true", "True", "yes", "ON", "1"):
        assert config(folder, f"compile: {text}").compile
        assert not config(folder, "compile: true", f"compile={'no' if text == 'yes' else 'Off'}").compile
    assert "compile: expected true or false" in refused(lambda: config(folder, "compile: 'yes'"))


@case("prompts of a file are read as they are written")
def prompts_read(folder: Path) -> None:
    path = folder / "prompts.yaml"
    path.write_text(
        "- 1999\n- yes\n- 2026-01-01\n- 'null'\n- \"portrait: old\"\n- a photo # of mine\n- 1:30\n- a#1\n"
    )
    assert load_prompts(path) == [
        "1999",
        "yes",
        "2026-01-01",
        "null",
        "portrait: old",
        "a photo",
        "1:30",
        "a#1",
    ]


@case("a prompt that YAML would read as something else is refused with: quote it")
def prompts_refused(folder: Path) -> None:
    path = folder / "prompts.yaml"
    lines = (
        "portrait: old",
        "a #1 photo",
        "null",
        "~",
        "",
        "#1",
        "!wow a",
        "&co a",
        "*star",
        "[a] b",
        "'tis",
        "old:",
    )
    for line in (*lines, "@home", "%x", "`a`", "> a", "| a", "{a} b", '"a" b'):
        path.write_text(f"- a man\n- {line}\n")
        message = refused(lambda: load_prompts(path))
        assert "quote" in message, (line, message)
        if line in lines[:6]:
            assert "entry 2" in message
            assert "quote" in refused(lambda line=line: config(folder, f"prompt:\n- a\n- {line}\n"))


@case("anchors, aliases, tags and a key given twice are refused")
def yaml_signs(folder: Path) -> None:
    for text in (
        "a: &x 1\nb: *x",
        "a: *x",
        "a: !!int x",
        "a: !!python/name:os.system ''",
        "a: 1\na: 2",
        "? [a]\n: 1",
    ):
        (folder / "a.yaml").write_text(text)
        assert "expected YAML" in refused(lambda: load_yaml(folder / "a.yaml"))


# --- names and files ---


@case("control characters are in no name and no path, and are escaped in what is printed")
def controls(folder: Path) -> None:
    for text in CONTROLS:
        assert not is_name(f"a{text}")
        for key in ("datasets", "config_name", "output_folder", "trained_lora_path", "semantic_lora_path"):
            message = refused(lambda text=text, key=key: config(folder, "", f"{key}=a{text}"))
            assert message.isprintable(), message
    with contextlib.redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit):
        Parser(prog="x").parse_args(["--no\x1b[31m"])
    assert "\x1b" not in err.getvalue()
    assert is_name("年齢 ñ 👩‍🦰")
    (folder / "a\x1b[31m.png").touch()
    assert "without control characters, found 'a\\x1b[31m.png'" in refused(lambda: find_images(folder))


@case("a message is cut to a page")
def cut(folder: Path) -> None:
    assert len(refused(lambda: config(folder, "", *(f"{'x' * 90}{i}=1" for i in range(999))))) <= LONGEST
    assert len(refused(lambda: config(folder, "", f"rank={'9x' * 10000}"))) < 400
    for name in ("x" * 9000, "x" * 254, "x/" * 2000, "/", "..", "."):
        assert len(refused(lambda name=name: find_yaml(folder, name, "config"))) <= 1000
        assert not find_lora(Path(name[:255])).is_file()


@case("a config is found by .yml, without suffix, and by its path")
def yml(folder: Path) -> None:
    (folder / "a.yml").write_text("rank: 3\n")
    for name in ("a", "a.yml", str(folder / "a"), str(folder / "a.yml")):
        assert find_yaml(folder, name, "config") == folder / "a.yml"
    (folder / "a.yaml").write_text("rank: 4\n")
    assert "found" in refused(lambda: find_yaml(folder, "a", "config"))
    assert "did you mean 'a'" in refused(lambda: find_yaml(folder, "aa", "config"))


@case("a prompts file is found by .yml, without suffix, and by its path")
def prompts_files(folder: Path) -> None:
    os.chdir(folder)
    Path("prompts").mkdir()
    Path("prompts/cats.yml").write_text("- a cat\n")
    for name in ("cats", "cats.yml", str(folder / "prompts/cats.yml")):
        (run,) = expand_runs(config(folder, "", "use_prompts_file=1", f"prompts_file={name}"))
        assert choose_prompts(run, [1]) == ["a cat"]
        assert run.seeds_folder.name.endswith("_cats")
    (run,) = expand_runs(config(folder, "", "use_prompts_file=1", "prompts_file=cat"))
    assert "did you mean 'cats'" in refused(lambda: choose_prompts(run, [1]))


@case("each prompt of a file is used in turn")
def in_turn(folder: Path) -> None:
    os.chdir(folder)
    Path("prompts").mkdir()
    Path("prompts/p.yaml").write_text("- a\n- b\n- c\n")
    (run,) = expand_runs(config(folder, "", "use_prompts_file=1", "prompts_file=p.yaml"))
    assert choose_prompts(run, range(6666, 6671)) == ["a", "b", "c", "a", "b"]


@case("a LoRA is found without its suffix and by its run's folder, or what is there is said")
def loras(folder: Path) -> None:
    for step in (5, 10, 100):
        (folder / f"age_4.0eta_1.0ns_28inf_{step}epoch.safetensors").touch()
    last = folder / "age_4.0eta_1.0ns_28inf_100epoch.safetensors"
    assert find_lora(folder) == find_lora(last.with_suffix("")) == find_lora(last) == last
    found = with_loras_found(
        config(folder, "", f"trained_lora_path=[{folder}]", f"semantic_lora_path={folder}")
    )
    assert (found.trained_lora_path, found.semantic_lora_path) == ([str(last)], str(last))
    missing = config(
        folder, "", f"semantic_lora_path={last.with_name('age_4.0eta_1.0ns_28inf_1000epoch.pt')}"
    )
    assert "did you mean" in refused(lambda: check_semantic_lora(missing))
    other = folder / "others"
    other.mkdir()
    assert "without any" in refused(
        lambda: check_semantic_lora(config(folder, "", f"semantic_lora_path={other}"))
    )
    (other / "a.safetensors").touch()
    (other / "b.safetensors").touch()
    assert "a.safetensors, b.safetensors" in refused(
        lambda: check_semantic_lora(config(folder, "", f"semantic_lora_path={other}"))
    )


# --- the machine and the terminal ---


@case("device=mps is an Apple GPU where there is one, else the CPU with a word")
def mps(folder: Path) -> None:
    assert config(folder, "", "device=mps").device == "mps"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert resolve_device("mps") == torch.device("mps")
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        said: list[str] = []
        assert (resolve_device("mps", said.append), len(said)) == (torch.device("cpu"), 1)


@case("a dry run names what is missing")
def dry(folder: Path) -> None:
    runs = expand_runs(config(folder))
    check_weights(config(folder, "", "clip_weights=owner/ViT.v1-H"))
    missing = config(folder, "", f"arcface_weights={folder}/none.onnx")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        list_runs(runs, lambda run: {}, [lambda: check_weights(missing)] * 2)
    assert out.getvalue().count("missing: arcface_weights: expected weights, found none at") == 1


@case("progress into a file is a line at its start and one at its end; TQDM_DISABLE silences it")
def bars(folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert list(Bar(["a"] * 3, desc="age", unit="step")) == ["a"] * 3
        with Bar(total=9, initial=2, desc="smile", unit="image") as bar:
            bar.update(7)
            bar.set_postfix({"loss": "0.1"}, refresh=False)
        with variables(TQDM_DISABLE="1"):
            list(Bar(range(3), desc="nothing"))
    first, last = "age: 0 of 3 steps", "age: 3 of 3 steps in 0 s"
    assert err.getvalue().splitlines()[:2] == [first, last]
    assert err.getvalue().splitlines()[2:] == [
        "smile: 2 of 9 images",
        "smile: 9 of 9 images in 0 s, loss=0.1",
    ]


@case("output that nobody reads any more ends in silence with status 141")
def pipe(folder: Path) -> None:
    def main() -> int:
        print("x" * 10**5)
        return 0

    # argparse itself passes over what it can't print
    for work, status in (
        (main, 141),
        (lambda: Parser(prog="x", description="x" * 10**5).parse_args(["-h"]), 0),
    ):
        reader, writer = os.pipe()
        os.close(reader)
        with (
            os.fdopen(writer, "w") as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            contextlib.redirect_stdout(out),
            pytest.raises(SystemExit) as left,
        ):
            run_cli(work)
        assert (left.value.code, err.getvalue()) == (status, "")


@case("a full disk is one line that names the folder")
def full(folder: Path) -> None:
    def main() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "x.png"))

    with contextlib.redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as left:
        run_cli(main)
    assert left.value.code == 2
    assert err.getvalue() == f"error: {folder}: expected room to write, found: No space left on device\n"


@case("commands in the docs and in --help are quoted for zsh, which takes [a,b] for a pattern")
def quoted(folder: Path) -> None:
    pages = [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "tinyflux").glob("*.md"),
    ]
    scripts = [path for room in ("train", "slider_text") for path in (REPOSITORY / room).rglob("*.py")]
    for path in [*pages, *scripts]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *(?:python|accelerate|make) .*", text, re.MULTILINE):
            bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", line.partition(" # ")[0])
            assert not re.search(r"[\[\]*?]", bare), f"{path}: {line}"
