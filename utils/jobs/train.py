"""The workshops that train: what their runs share is loaded once, the base above all; see `launch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.runs import RealRun, Run
from utils.data.prompts import SliderPrompt
from utils.jobs.prepare import Study, claiming, load_base

if TYPE_CHECKING:
    from utils.data.pairs import ImagePair
    from utils.data.photos import Photo


def pairs_workshop(
    study: Study, pairs: Mapping[str, Sequence[ImagePair]], inputs: Mapping[str, str], runs: Sequence[Run]
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs`, on its dataset's pairs; `inputs` as of `claiming`."""
    flux, embeds = load_base(study, [""])
    from utils.training.sources import train_on_pairs

    def train_one(run: Run) -> None:
        train_on_pairs(run, flux, pairs[run.dataset], embeds[""])

    return claiming(train_one, inputs)


def photos_workshop(
    study: Study, photos: Mapping[str, Photo], inputs: Mapping[str, str], runs: Sequence[RealRun]
) -> Callable[[RealRun], Path]:
    """Load the base; gives what trains any of `runs`, on its photograph; `inputs` as of `claiming`."""
    flux, embeds = load_base(study, [""])
    from utils.training.sources import train_on_photo

    def train_one(run: RealRun) -> None:
        train_on_photo(run, flux, photos[run.name], embeds[""])

    return claiming(train_one, inputs)


def prompts_workshop(
    study: Study,
    prompts: Mapping[str, Sequence[SliderPrompt]],
    inputs: Mapping[str, str],
    runs: Sequence[Run],
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs`, on its dataset's prompts; `inputs` as of `claiming`."""
    texts = [text for run in runs for prompt in prompts[run.dataset] for text in prompt.texts]
    flux, embeds = load_base(study, texts)
    from utils.training.sources import train_on_prompts

    def train_one(run: Run) -> None:
        train_on_prompts(run, flux, prompts[run.dataset], embeds)

    return claiming(train_one, inputs)
