"""Importing this makes `utils`, `tinyflux` and train/ itself importable from the scripts of this folder."""

import sys
from pathlib import Path

_TRAIN = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TRAIN.parent), str(_TRAIN)]
