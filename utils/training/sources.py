"""Training a run on what it learns from: image pairs, one photograph, or slider prompts."""

from collections.abc import Mapping, Sequence

from utils.config.runs import RealRun, Run
from utils.data.pairs import ImagePair
from utils.data.photos import Photo
from utils.data.prompts import SliderPrompt
from utils.flow.objectives import TextSlider, build_objective
from utils.models.base import PromptEmbeds
from utils.models.flux1 import Flux
from utils.training.batches import PairBatches, TextBatches
from utils.training.trainer import TrainResult, train


def train_on_pairs(run: Run, flux: Flux, pairs: Sequence[ImagePair], embeds: PromptEmbeds) -> TrainResult:
    """Train one run on its pairs, by its method, under the embedding of the empty prompt."""
    config = run.config
    objective = build_objective(config.python_name, config.cfg_eta, run.noise_scale, config.joint_passes)
    return train(run, flux, PairBatches(flux, pairs, config), objective, embeds)


def train_on_photo(run: RealRun, flux: Flux, photo: Photo, embeds: PromptEmbeds) -> TrainResult:
    """Train one run on its photograph, under the embedding of the empty prompt."""
    objective = build_objective(
        "train_image_real", run.config.cfg_eta, run.noise_scale, run.config.joint_passes
    )
    path = run.photograph
    alone = ImagePair(path.stem, photo.pixels, photo.pixels, path, path)
    return train(run, flux, PairBatches(flux, [alone], run.config), objective, embeds)


def train_on_prompts(
    run: Run, flux: Flux, prompts: Sequence[SliderPrompt], embeds: Mapping[str, PromptEmbeds]
) -> TrainResult:
    """Train one run on its prompts, each time under the target prompt of the entry drawn.

    Args:
        run: names, paths, settings.
        flux: the base model.
        prompts: the entries of the run's prompt file.
        embeds: of all their texts.
    """
    batches = TextBatches(flux, prompts, embeds, run.config)
    return train(run, flux, batches, TextSlider(), embeds[prompts[0].target])
