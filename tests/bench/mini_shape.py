"""A FLUX of miniature shape."""

from __future__ import annotations

from bench.bases import Shape

MINI_SHAPE = Shape(
    **{"double_blocks": 2, "single_blocks": 2, "heads": 2, "head_size": 16, "axes": (4, 6, 6)},
    **{"t5": 24, "t5_hidden": 32, "t5_layers": 2, "t5_heads": 2},
    **{"clip": 20, "clip_hidden": 24, "clip_layers": 2, "clip_heads": 2},
    **{"vae": (4, 4, 8, 8), "vae_layers": 1, "vae_groups": 2},
)
