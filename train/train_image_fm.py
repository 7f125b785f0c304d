"""PairEdit on the rectified flow in place of the content-preserving schedule.

Content and semantic adapters; the semantic target is velocity + eta * direction (arXiv 2506.07992, ablation).
"""

from utils.training.sources import train_on_pairs as train_run

__all__ = ["train_run"]
