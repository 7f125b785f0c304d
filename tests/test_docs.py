"""The texts are true: what they link to is there, and so is every file, command, config and key they name."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest

from utils.config.schema import KEYS
from utils.study.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tinyflux/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
ROOMS = ("utils", "train", "slider_text", "tinyflux", "bench", "tests")
FOLDERS = (ROOT, ROOT / "train", ROOT / "slider_text")
"""Where commands are run, and so what paths are relative to."""

FIRST_PARTS = {*ROOMS, "docs", "config", "datasets", "prompts", "eval_scripts"}
FILES = {path.name for room in ROOMS for kind in ("py", "yaml") for path in (ROOT / room).rglob(f"*.{kind}")}
FILES |= {"environment.yml", "config.yaml"}  # the latter is a run's

CONFIGS = {"--c": "config", "base": "config/base"}
"""Where the YAML lies that an argument names."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> set[str]:
    """What stands between backticks, outside of code blocks."""
    return set(re.findall(r"`([^`\n]+)`", prose(text)))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a page, in its text or shell blocks; continued lines as one."""
    yield from (shlex.split(span) for span in spans(text) if re.match(r"(python|make|accelerate) ", span))
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                yield shlex.split(command, comments=True)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_there(path: str, page: Path) -> bool:
    """Whether a path leads somewhere from where it may be read; words in capitals stand for anything."""
    pattern = re.sub(r"\b[A-Z_]{2,}\b", "*", path.rstrip("/"))
    return any(next(folder.glob(pattern), None) for folder in (page.parent, *FOLDERS))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    for target in targets:
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@every_page
def test_paths_and_keys_in_the_text_are_there(page: Path) -> None:
    for span in spans(page.read_text(encoding="utf-8")):
        if "/" in span and span.split("/")[0] in FIRST_PARTS and "output" not in span and " " not in span:
            assert is_there(span, page), span
        if re.fullmatch(r"\w+\.(py|yaml)", span):
            assert span in FILES, span
        if key := re.match(r"([a-z_]+)=\S", span):
            assert key[1] in {*KEYS, "key"}, span


@every_page
def test_commands_can_be_called(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        for word, following in pairwise(words):
            if word == "-m":
                assert importlib.util.find_spec(following), words
            if word == "make":
                assert f"\n{following}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), words
        check_arguments(words)


def check_arguments(words: list[str]) -> None:
    """Scripts, configs, bases and keys of one command; a study's plan has keys of its own."""
    known = {*KEYS, *(get_type_hints(Plan) if "study_script.py" in words else ())}
    for before, word in pairwise(["", *words]):
        if before == "--edit":  # NAME=FILE
            continue
        if word.endswith(".py"):
            assert any((folder / word).is_file() for folder in FOLDERS), words
        option, _, name = word.partition("=")
        if option in CONFIGS and not name.isupper():  # FILE is the reader's own
            assert any((folder / CONFIGS[option] / f"{name}.yaml").is_file() for folder in FOLDERS), words
        if key := re.match(r"([a-z_]+)=", word):
            assert key[1] in known, words


def test_the_readmes_results_are_those_of_the_results_page() -> None:
    def rows(page: str) -> dict[str, list[str]]:
        text = (ROOT / page).read_text(encoding="utf-8")
        of_edits = re.search(r"^\| edit .*?(?=^$)", text, flags=re.DOTALL | re.MULTILINE)
        assert of_edits
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in of_edits[0].splitlines()]
        return {first: rest for first, *rest in cells[2:]}

    full = rows("docs/results.md")
    expected = {edit: [full[edit][index] for index in (0, 4, 6, 7)] for edit in full}
    assert rows("README.md") == expected
