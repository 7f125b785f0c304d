"""Text sliders, a baseline: one adapter learns the direction between two prompts, without any image.

Rectified flow, on the base model's own half-made images (Concept Sliders, arXiv 2311.12092).
"""

from utils.training.sources import train_on_prompts as train_run

__all__ = ["train_run"]
