"""Learn one photograph by heart, so that the base model draws it from any noise: a start for editing it.

Rectified flow on the photograph alone; the adapter is "inversion" (arXiv 2506.07992, real images).
"""

from utils.training.sources import train_on_photo as train_run

__all__ = ["train_run"]
