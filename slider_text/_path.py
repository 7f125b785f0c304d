"""Importing this makes `utils` and the modules of train/ importable from the scripts of this folder."""

import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_REPOSITORY))
sys.path.append(str(_REPOSITORY / "train"))
