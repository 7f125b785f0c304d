"""Captions by transformers' own classes, in miniature; tags by a small network in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prepare.mini_captioners import SAVED
from tests.prepare.mini_onnx import save_pooling
from utils import hub
from utils.errors import UserError
from utils.prepare.captioners import CAPTIONERS, captioned
from utils.prepare.options import Options, load_tool
from utils.prepare.taggers import TAGGERS

OPTIONS = Options(Path("photographs"), "mine", device="cpu")
RED = Image.new("RGB", (100, 60), "red")
Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", SAVED)
def test_a_captioner_says_something_in_one_line_and_the_same_again(
    captioner_folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("utils.prepare.captioners.LONGEST", 6)
    captioner = load_tool("captioner", CAPTIONERS, name, str(captioner_folder(name)), OPTIONS)
    first = captioned(RED, captioner)
    assert first == captioned(RED, captioner)
    assert first.strip()
    assert "<" not in first
    assert len(first) <= 60


def test_a_blip_caption_begins_as_asked(captioner_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.prepare.captioners.LONGEST", 6)
    options = Options(Path("photographs"), "mine", device="cpu", prompt="a photo of")
    captioner = load_tool("captioner", CAPTIONERS, "blip", str(captioner_folder("blip")), options)
    assert captioned(RED, captioner).startswith("a photo of")


def test_a_fixed_caption_is_the_prompt_and_there_must_be_one() -> None:
    options = Options(Path("photographs"), "mine", prompt="a photo of [trigger]")
    assert load_tool("captioner", CAPTIONERS, "fixed", "", options)(RED) == "a photo of [trigger]"
    with pytest.raises(UserError, match="expected the caption as --prompt, found none"):
        load_tool("captioner", CAPTIONERS, "fixed", "", OPTIONS)


def test_a_task_that_florence_does_not_know_is_refused_before_it_is_loaded() -> None:
    options = Options(Path("photographs"), "mine", prompt="<CAPTIONS>")
    with pytest.raises(UserError, match=r"found <CAPTIONS> \(did you mean '<CAPTION>'\?\)"):
        load_tool("captioner", CAPTIONERS, "florence", "nowhere", options)


def test_another_captioners_folder_is_refused_with_what_to_give(captioner_folder: Folder) -> None:
    with pytest.raises(
        UserError, match=r"florence: not available: .*; to have it: --captioner-weights=FOLDER"
    ):
        load_tool("captioner", CAPTIONERS, "florence", str(captioner_folder("blip")), OPTIONS)


@pytest.mark.parametrize("name", ["florence", "wd14"])
def test_a_hub_out_of_reach_is_told_with_why_and_what_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    def out_of_reach(*args: object, **settings: object) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr(hub.HfApi, "model_info", out_of_reach)
    monkeypatch.setattr(hub, "snapshot_download", out_of_reach)
    option, tools = ("tagger", TAGGERS) if name == "wd14" else ("captioner", CAPTIONERS)
    with pytest.raises(UserError) as error:
        load_tool(option, tools, name, "", OPTIONS)  # type: ignore[type-var]
    assert f"{name}: not available: no folder {tools[name].weights}, not in the hub's cache" in str(
        error.value
    )
    assert f"hub: Name or service not known; to have it: --{option}-weights=FOLDER" in str(error.value)


def test_tags_are_those_sure_enough_for_their_category_the_surest_first(wd14_folder: Path) -> None:
    tagger = load_tool("tagger", TAGGERS, "wd14", str(wd14_folder), OPTIONS)
    assert tagger(Image.new("RGB", (40, 40), "red")) == ["red hair"]
    assert tagger(Image.new("RGB", (40, 40), (100, 200, 0))) == ["green hair", "red hair"]
    assert tagger(Image.new("RGB", (40, 20), "black")) == ["red hair", "green hair", "blue hair"]  # on white
    lower = Options(Path("photographs"), "mine", threshold=0.9, character_threshold=0.4)
    assert load_tool("tagger", TAGGERS, "wd14", str(wd14_folder), lower)(RED)[0] == "red hair"


def test_a_tagger_that_gives_logits_is_refused(wd14_folder: Path) -> None:
    save_pooling(wd14_folder / "model.onnx", np.full((3, 5), 0.01))
    with pytest.raises(UserError, match=r"expected probabilities from model.onnx, found 4.59 to 4.59"):
        load_tool("tagger", TAGGERS, "wd14", str(wd14_folder), OPTIONS)(RED)


def test_a_tagger_without_a_file_or_with_another_table_is_refused(wd14_folder: Path) -> None:
    def refused() -> str:
        with pytest.raises(UserError) as error:
            load_tool("tagger", TAGGERS, "wd14", str(wd14_folder), OPTIONS)
        return str(error.value)

    table = wd14_folder / "selected_tags.csv"
    text = table.read_text()
    table.write_text("\n".join(text.splitlines()[:-1]))
    assert "expected 4 tags, as selected_tags.csv has, found 5" in refused()
    table.write_text(text.replace("category", "kind"))
    assert "expected columns name and category, found tag_id, name, kind, count" in refused()
    table.unlink()
    assert f"no selected_tags.csv in {wd14_folder}" in refused()
