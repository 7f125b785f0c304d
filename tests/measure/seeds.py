"""Random numbers of the measures' tests, the same each time."""

import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)
