"""PairEdit on the rectified flow in place of the content-preserving schedule.

Content and semantic adapters; the semantic target is velocity + eta * direction (arXiv 2506.07992, ablation).
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
        "train_image_fm", run.config.cfg_eta, run.noise_scale, run.config.joint_passes
    )
    return train(run, flux, PairBatches(flux, pairs, run.config), objective, embeds)
