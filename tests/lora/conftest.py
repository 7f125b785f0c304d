"""The miniature's transformer, bare and with two filled adapters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.mini_loras import fresh
from utils.models.adapters import adapter_parameters, add_adapter


@pytest.fixture
def transformer(mini_flux) -> nn.Module:
    return fresh(mini_flux)


def fill(transformer: nn.Module, name: str) -> None:
    generator = torch.Generator().manual_seed(7)
    for weight in adapter_parameters(transformer, name):
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)


@pytest.fixture
def trained(transformer) -> nn.Module:
    add_adapter(transformer, "content", 2, 1)
    add_adapter(transformer, "semantic", 3, 1.5)
    fill(transformer, "content")
    fill(transformer, "semantic")
    return transformer
