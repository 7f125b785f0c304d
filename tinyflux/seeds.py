"""Which seeds draw people for what. The ranges are disjoint, so nobody is trained on and tested on."""

TRAIN = range(0, 1_000_000)
"""The base model, its VAE and its probe."""
HELD_OUT = range(2_000_000, 3_000_000)
"""Evaluation of all three."""
DATASETS = range(3_000_000, 4_000_000)
"""The before/after pairs in train/datasets/."""
REAL = range(4_000_000, 5_000_000)
"""Portraits that stand for photographs, in train/datasets/real_person/."""
DISJOINT = range(5_000_000, 6_000_000)
"""A second set like HELD_OUT, for what two sets of renders differ by chance alone."""
SUBJECTS = range(6_000_000, 7_000_000)
"""People and pictures of the captioned datasets in train/datasets/."""
