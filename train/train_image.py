"""PairEdit: a content adapter keeps the source image, a semantic adapter on top learns nothing but the edit.

Content-preserving schedule; the semantic target is velocity + eta * direction (arXiv 2506.07992).
"""

from utils.training.sources import train_on_pairs as train_run

__all__ = ["train_run"]
