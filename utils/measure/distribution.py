"""Distances between two sets of images as sets: FID and KID, on the features of whatever network there is.

Both compare distributions, so they need many images: under RELIABLE they are reported, and labelled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from utils.measure.encoders import Unavailable
from utils.measure.metrics import frechet_distance

# what a missing package, a failed download and an unfit file are met with, by torchmetrics and torch
_UNFIT = (ImportError, OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, UnpicklingError)

RELIABLE = 2048
"""Images of each set under which distances are labelled unreliable: FID's own features have as many
dimensions, and the covariance of fewer images is singular."""


def kernel_distance(features_a: Tensor, features_b: Tensor, seed: int = 0) -> float:
    """KID: squared maximum mean discrepancy under the kernel k(x, y) = (x.y / D + 1)^3, unbiased.

    Bińkowski et al. 2018, arXiv 1801.01401, by torchmetrics: mean over 100 random subsets of at most 1000.

    Args:
        features_a, features_b: (N, D) and (M, D), N, M >= 2.
        seed: of the subsets; the global random state is put back.

    Raises:
        ValueError: other shapes.
    """
    shapes = tuple(features_a.shape), tuple(features_b.shape)
    if any(len(shape) != 2 or shape[0] < 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"kernel_distance: expected (N, D) and (M, D) with N, M >= 2, found {shapes}")
    subset_size = min(1000, len(features_a), len(features_b))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save all extracted features")
        metric = KernelInceptionDistance(nn.Identity(), subset_size=subset_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well
        metric.update(features_a, real=True)
        metric.update(features_b, real=False)
        return metric.compute()[0].item()


def compare_sets(features_a: Tensor, features_b: Tensor) -> dict[str, float]:
    """FID and KID of two sets of features (N, D) and (M, D); see `frechet_distance` and `kernel_distance`."""
    return {"FID": frechet_distance(features_a, features_b), "KID": kernel_distance(features_a, features_b)}


def caution(count: int) -> str:
    """What to say of a distance of sets the smaller of which has `count` images; "" where it is enough."""
    return "" if count >= RELIABLE else f"unreliable: {count} images, fewer than {RELIABLE}"


def load_inception(weights: str, device: torch.device) -> Callable[[Tensor], Tensor] | Unavailable:
    """FID's own network: images (B, 3, H, W) in [-1, 1] -> features (B, 2048), as torch-fidelity has it.

    Args:
        weights: its file, or "torch-fidelity" to have it fetched; "" goes without.
        device: where it runs.
    """
    remedy = "pip install torch-fidelity, and set the key inception_weights to its file or to torch-fidelity"
    if not weights:
        return Unavailable("inception", "no weights named", remedy)
    path = None if weights == "torch-fidelity" else weights
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network: Any = NoTrainInceptionV3("inception-v3-compat", ["2048"], path).to(device)
    except torch.OutOfMemoryError:  # a RuntimeError, but the weights are there
        raise
    except _UNFIT as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        return Unavailable("inception", reason.strip(), remedy)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        bytes_ = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return torch.cat([network(batch.to(device)).cpu() for batch in bytes_.split(16)])

    return features
