"""PairEdit without the guidance term: the semantic adapter learns to reconstruct the target image.

Content-preserving schedule; the semantic target is the target image's own velocity (arXiv 2506.07992,
ablation).
"""

from utils.training.sources import train_on_pairs as train_run

__all__ = ["train_run"]
