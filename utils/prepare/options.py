"""What is asked of a preparation, and the rows of what can do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from utils.errors import UserError, nearest
from utils.hub import NOT_THERE, UNFIT, Unavailable, reason

T = TypeVar("T")

AGAIN = ("images", "captions", "tags", "edited")
"""What may be made anew though it is there; "edited": words that somebody wrote or changed, too."""


@dataclass(frozen=True)
class Options:
    """A folder of photographs, the dataset that becomes of it, and how.

    Attributes:
        folder: of the sources, which are only read.
        name: of the dataset, a folder in `datasets`.
        datasets: where datasets lie.
        crop: a row of `CROPPERS`; "": the whole image.
        margin: around what is cropped to, on each side, in its longer side; None: the cropper's own.
        background: a row of `REMOVERS`; "": it stays.
        background_weights: the file of what removes it, if it needs one.
        fill: the colour that takes the background's place.
        largest: pixels of the longer side; larger images are scaled down.
        smallest: pixels of the shorter side; smaller images are left out.
        captioner: a row of `CAPTIONERS`; "": no captions are made.
        captioner_weights: a folder or hub id; "": the row's own.
        prompt: what a captioner is asked; "": the row's own.
        tagger: a row of `TAGGERS`; "": no tags are made.
        tagger_weights: a folder or hub id; "": the row's own.
        threshold: probability from which on a tag is taken.
        character_threshold: the same for names of characters.
        first: tags that go in front, where they are found.
        never: tags that are left out.
        replace: words -> what takes their place in captions and tags.
        again: out of `AGAIN`.
        device: of captioners.
    """

    folder: Path
    name: str
    datasets: Path = Path("datasets")
    crop: str = ""
    margin: float | None = None
    background: str = ""
    background_weights: str = ""
    fill: str = "white"
    largest: int = 1536
    smallest: int = 64
    captioner: str = ""
    captioner_weights: str = ""
    prompt: str = ""
    tagger: str = ""
    tagger_weights: str = ""
    threshold: float = 0.35
    character_threshold: float = 0.85
    first: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    again: tuple[str, ...] = ()
    device: str = "auto"

    @property
    def target(self) -> Path:
        """The dataset's folder."""
        return self.datasets / self.name

    @property
    def image_settings(self) -> str:
        """What images are made by, in words."""
        crop = f"crop={self.crop} margin={self.margin or 0:g} " if self.crop else ""
        background = f"background={self.background} fill={self.fill} " if self.background else ""
        return f"{crop}{background}largest={self.largest}"

    @property
    def text_settings(self) -> str:
        """What captions are made by, in words."""
        return _in_words(
            captioner=self.captioner,
            weights=self.captioner_weights,
            prompt=self.prompt,
            replace=_pairs(self.replace),
        )

    @property
    def tags_settings(self) -> str:
        """What tags are made by, in words."""
        return _in_words(
            tagger=self.tagger,
            weights=self.tagger_weights,
            threshold=f"{self.threshold:g}",
            character_threshold=f"{self.character_threshold:g}",
            first=",".join(self.first),
            never=",".join(self.never),
            replace=_pairs(self.replace),
        )


def _in_words(**settings: str) -> str:
    """Those that are given."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value)


def _pairs(replace: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{old}={new}" for old, new in replace)


@dataclass(frozen=True)
class Tool(Generic[T]):
    """One way to crop, to cut out, to caption or to tag.

    Attributes:
        says: what it is, in a few words.
        load: (where its weights are, the options) -> what does it; raises what `utils.hub` catches.
        modules: the packages it needs that are an extra, of `[prepare]`.
        weights: where its weights are unless others are named; "": it has or needs none, or can name none.
        setting: what may be named as its weights; "": nothing.
    """

    says: str
    load: Callable[[str, Options], T]
    modules: tuple[str, ...] = ()
    weights: str = ""
    setting: str = ""


def tool_of(option: str, tools: Mapping[str, Tool[T]], name: str) -> Tool[T]:
    """The row of a registry, its packages there; raises `UserError` for an unknown name and missing ones."""
    if name not in tools:
        raise UserError(f"--{option}: expected one of {', '.join(tools)}, found {name}{nearest(name, tools)}")
    tool = tools[name]
    if missing := [module for module in tool.modules if find_spec(module) is None]:
        raise UserError(
            f"--{option}={name}: expected the package {missing[0].replace('_', '-')}, found none; "
            "pip install -e '.[prepare]' installs it"
        )
    return tool


def load_tool(option: str, tools: Mapping[str, Tool[T]], name: str, weights: str, options: Options) -> T:
    """What a row does its work with.

    Args:
        option: whose value `name` is.
        tools: the registry.
        name: of the row.
        weights: as named by the option `option`-weights; "": the row's own.
        options: of the preparation.

    Raises:
        UserError: unknown name, missing packages, or weights that can't be had: why, and how to have them.
    """
    import torch  # for its own error of memory, which is none of missing weights

    tool = tool_of(option, tools, name)
    if weights and not tool.setting:
        raise UserError(f"--{option}-weights: expected none, as {name} takes no others, found {weights}")
    source = weights or tool.weights
    remedy = f"--{option}-weights={tool.setting}" if tool.setting else "pip install -e '.[prepare]'"
    if tool.setting and not source:
        raise UserError(str(Unavailable(name, "no weights named", remedy)))
    try:
        return tool.load(source, options)
    except torch.OutOfMemoryError:
        raise
    except (*NOT_THERE, *UNFIT) as error:
        raise UserError(str(Unavailable(name, reason(error), remedy))) from error
