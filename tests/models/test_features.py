"""What a base sees: its latents, and the tokens of a late block, on a miniature FLUX and on another base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import toy_base
from utils.models.base import Base, load_base_model
from utils.models.families import FAMILIES
from utils.models.features import SIGMA, BaseViews


def test_latents_and_the_tokens_of_a_late_block(mini_flux_loaded: Base) -> None:
    base = mini_flux_loaded
    embeds = base.encode_prompts([""], 8)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents, tokens = BaseViews(base, embeds, 3.5, batch_size=2)(images)
    torch.testing.assert_close(latents, base.encode_images(images).flatten(2).transpose(1, 2))

    # The same by hand: the last stream of the block at 0.8 of all.
    blocks = [*base.transformer.transformer_blocks, *base.transformer.single_transformer_blocks]
    heard = []
    handle = blocks[round(0.8 * (len(blocks) - 1))].register_forward_hook(
        lambda *seen: heard.append(seen[-1])
    )
    x_0 = base.encode_images(images)
    noise = torch.randn(x_0.shape[1:], generator=torch.Generator().manual_seed(0))
    base.predict_velocity((1 - SIGMA) * x_0 + SIGMA * noise, torch.full((3,), SIGMA), embeds, 3.5)
    handle.remove()
    torch.testing.assert_close(tokens, heard[0][-1], atol=1e-5, rtol=1e-5)
    assert tokens.shape[:2] == (3, 4)  # 2 x 2 tokens

    before = len(heard)
    BaseViews(base, embeds, 3.5, 8)(images)
    assert len(heard) == before
    assert not any(block._forward_hooks for block in blocks)  # nothing is left listening


def test_a_base_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", toy_base.FAMILY)
    toy_base.save_toy(tmp_path)
    base = load_base_model(str(tmp_path), torch.device("cpu"), torch.float32)
    views = BaseViews(base, base.encode_prompts([""], 8), 1.0, 8)(torch.zeros(2, 3, 8, 8))
    assert [view.shape for view in views] == [(2, 16, 3), (2, 16, 8)]
