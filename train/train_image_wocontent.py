"""PairEdit without the content adapter: the semantic adapter sees the bare base model.

Content-preserving schedule; the semantic target is velocity + eta * direction (arXiv 2506.07992, ablation).
"""

from utils.training.sources import train_on_pairs as train_run

__all__ = ["train_run"]
