"""Image sliders, a baseline: one adapter denoises the target at scale +1 and the source at -1.

Rectified flow (Concept Sliders, arXiv 2311.12092).
"""

from utils.training.sources import train_on_pairs as train_run

__all__ = ["train_run"]
