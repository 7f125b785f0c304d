"""PairEdit without the guidance term: the semantic adapter learns to reconstruct the target image.

Content-preserving schedule; the semantic target is the target image's own velocity (arXiv 2506.07992,
ablation).
"""

from collections.abc import Sequence

from utils.config.runs import Run
from utils.data.pairs import ImagePair
from utils.flow.objectives import build_objective
from utils.models.flux1 import Flux, PromptEmbeds
from utils.training.batches import PairBatches
from utils.training.trainer import TrainResult, train


def train_run(run: Run, flux: Flux, pairs: Sequence[ImagePair], embeds: PromptEmbeds) -> TrainResult:
    """Train one run on its pairs, under the embedding of the empty prompt."""
    objective = build_objective(
        "train_image_wocfg", run.config.cfg_eta, run.noise_scale, run.config.joint_passes
    )
    return train(run, flux, PairBatches(flux, pairs, run.config), objective, embeds)
