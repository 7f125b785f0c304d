"""Importing this makes `utils` importable from scripts that are run in this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
