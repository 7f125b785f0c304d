"""One run's images: its LoRA alone, or several together, from step index `skip` on, at every slider scale."""

from utils.generation.gallery import generate_run

__all__ = ["generate_run"]
