"""Learn one photograph by heart, so that the base model draws it from any noise: a start for editing it.

Rectified flow on the photograph alone; the adapter is "inversion" (arXiv 2506.07992, real images).
"""

from utils.config.runs import RealRun
from utils.data.pairs import ImagePair
from utils.data.photos import Photo
from utils.flow.objectives import build_objective
from utils.models.flux1 import Flux, PromptEmbeds
from utils.training.batches import PairBatches
from utils.training.trainer import TrainResult, train


def train_run(run: RealRun, flux: Flux, photo: Photo, embeds: PromptEmbeds) -> TrainResult:
    """Train one run on its photograph, under the embedding of the empty prompt."""
    objective = build_objective(
        "train_image_real", run.config.cfg_eta, run.noise_scale, run.config.joint_passes
    )
    path = run.photograph
    alone = ImagePair(path.stem, photo.pixels, photo.pixels, path, path)
    return train(run, flux, PairBatches(flux, [alone], run.config), objective, embeds)
