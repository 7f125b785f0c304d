"""Text sliders, a baseline: one adapter learns the direction between two prompts, without any image.

Rectified flow, on the base model's own half-made images (Concept Sliders, arXiv 2311.12092).
"""

from collections.abc import Mapping, Sequence

from utils.config.runs import Run
from utils.data.prompts import SliderPrompt
from utils.flow.objectives import TextSlider
from utils.models.flux1 import Flux, PromptEmbeds
from utils.training.batches import TextBatches
from utils.training.trainer import TrainResult, train


def train_run(
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
