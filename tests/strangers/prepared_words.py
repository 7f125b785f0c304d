"""Captions and tags as they are asked for."""

from pathlib import Path

from tests.strangers import case
from utils.prepare.words import arranged, replaced, without_underscores


@case("words are replaced whole, all at once and whatever their case: man is no part of woman")
def whole_words(folder: Path) -> None:
    swap = [("man", "person"), ("woman", "man"), ("a man", "[trigger]")]
    assert replaced("A man, a woman and a Manx cat; man-made", swap) == (
        "[trigger], a man and a Manx cat; person-made"
    )
    assert replaced("c++ and c", [("c++", "C")]) == "C and c"
    assert replaced("as it is", []) == "as it is"


@case("tags come first, never or replaced as asked, each once")
def tags(folder: Path) -> None:
    found = ["1girl", "long hair", "hat", "black hat", "girl"]
    assert arranged(found, first=("girl", "smile"), never=("Hat",), replace=[("girl", "woman")]) == (
        "1girl",
        "long hair",
        "black hat",
        "woman",
    )
    assert arranged(found, first=("hat",))[:2] == ("hat", "1girl")
    assert arranged(["girl", "woman"], replace=[("girl", "woman")]) == ("woman",)
    assert arranged(["girl"], replace=[("girl", "")]) == ()


@case("underscores go from tags that are words, and stay in those that are faces")
def underscores(folder: Path) -> None:
    kept = (">_<", "^_^", "0_0", "<|>_<|>", "o_o")
    assert tuple(map(without_underscores, kept)) == kept
    assert without_underscores("looking_at_viewer") == "looking at viewer"
