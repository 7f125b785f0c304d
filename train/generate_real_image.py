"""One photograph's edits: at every slider scale and skip, square and put back into the whole."""

from utils.generation.gallery import generate_photo_run as generate_run

__all__ = ["generate_run"]
