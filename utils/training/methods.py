"""The methods: python_name -> what it learns from and what it minimises. A new one is a class and a row here.

An objective is a class of utils/flow/objectives.py, a source one of utils/training/sources.py. Nothing heavy
is imported, so that a command knows its methods at once.

python -m utils.training.methods     prints the README's table of methods
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from utils.errors import UserError, nearest
from utils.flow.objectives import (
    Anchored,
    Bipolar,
    ContentSemantic,
    ImageSlider,
    Reconstruction,
    SemanticAlone,
    TargetReconstruction,
    TextSlider,
)
from utils.flow.passes import Objective
from utils.flow.schedules import ContentPreserving, RectifiedFlow
from utils.flow.subject import CaptionedReconstruction
from utils.training.captioned import CaptionedImages
from utils.training.slider_prompts import SliderPrompts
from utils.training.sources import ImagePairs, Photograph, Source


@dataclass(frozen=True)
class Method:
    """A way to learn an edit.

    Attributes:
        about: one sentence, for --help, model cards and the README's table.
        source: what it learns from.
        objective: what a training step minimises; its parameters, of `eta` (`cfg_eta`), `beta`
            (`noise_scales`) and settings by their keys, are those that the method knows.
    """

    about: str
    source: type[Source]
    objective: Callable[..., Objective[Any]]

    @property
    def knows(self) -> frozenset[str]:
        """Which of eta, beta and its own settings make a difference to it."""
        return frozenset(signature(self.objective).parameters)


METHODS: dict[str, Method] = {
    "train_image": Method(
        "PairEdit: content and semantic adapters, content-preserving schedule",
        ImagePairs,
        lambda eta, beta: ContentSemantic(ContentPreserving(beta), eta),
    ),
    "train_image_wocontent": Method(
        "ablation: no content adapter",
        ImagePairs,
        lambda eta, beta: SemanticAlone(ContentPreserving(beta), eta),
    ),
    "train_image_wocfg": Method(
        "ablation: no guidance term, the target image's own velocity",
        ImagePairs,
        lambda beta: TargetReconstruction(ContentPreserving(beta)),
    ),
    "train_image_fm": Method(
        "ablation: rectified flow in place of the content-preserving schedule",
        ImagePairs,
        lambda eta: ContentSemantic(RectifiedFlow(), eta),
    ),
    "train_image_sliders": Method(
        "baseline: image sliders, the target at scale +1 and the source at -1",
        ImagePairs,
        lambda: ImageSlider(RectifiedFlow()),
    ),
    "train_image_anchored": Method(
        "ours: one adapter, pushed from the base's own velocity",
        ImagePairs,
        lambda eta: Anchored(RectifiedFlow(), eta),
    ),
    "train_image_bipolar": Method(
        "ours: the same from both ends, +1 at the source and -1 at the target",
        ImagePairs,
        lambda eta: Bipolar(RectifiedFlow(), eta),
    ),
    "train_subject": Method(
        "a subject or a style, out of captioned images, on the rectified flow",
        CaptionedImages,
        lambda prior="none", prior_weight=1.0: CaptionedReconstruction(prior, prior_weight),
    ),
    "train_image_real": Method(
        "a LoRA that draws one photograph from any noise, on the rectified flow",
        Photograph,
        lambda: Reconstruction(RectifiedFlow()),
    ),
    "slider_text": Method(
        "text sliders: the base model's own direction between two prompts",
        SliderPrompts,
        lambda: TextSlider(),
    ),
}


def methods_from(*sources: type[Source]) -> dict[str, str]:
    """The methods that learn from one of `sources` (none given: all methods), python_name -> about."""
    return {name: method.about for name, method in METHODS.items() if not sources or method.source in sources}


def method_of(python_name: str) -> Method:
    """A method's row; raises `UserError`, naming those there are, for an unknown one."""
    if python_name not in METHODS:
        raise UserError(
            f"python_name: expected one of {', '.join(METHODS)}, "
            f"found {python_name}{nearest(python_name, METHODS)}"
        )
    return METHODS[python_name]


def build_objective(
    python_name: str, eta: float, beta: float, joint: bool = True, **settings: Any
) -> Objective[Any]:
    """The objective of a method.

    Args:
        python_name: a key of METHODS.
        eta: guidance direction strength, `cfg_eta`.
        beta: of the content-preserving schedule, one of `noise_scales`.
        joint: whether a step's passes go through the model together.
        settings: others that a method may know, `prior` and `prior_weight`.

    Raises:
        UserError: for an unknown method.
    """
    method = method_of(python_name)
    known = {
        name: value for name, value in {"eta": eta, "beta": beta, **settings}.items() if name in method.knows
    }
    return replace(method.objective(**known), joint=joint)


def methods_table() -> str:
    """The methods in Markdown, a row each: what it is, its source, which of eta and beta it knows."""
    lines = ["| `python_name` | what it is | learns from | knows |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        known = ", ".join(parameter for parameter in ("eta", "beta") if parameter in method.knows)
        lines.append(f"| `{name}` | {method.about} | {method.source.kind} | {known} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(methods_table())
