"""What a step draws from pairs of several sizes: of one size, all pairs as likely, on all processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from utils.config.schema import Config
from utils.data.pairs import ImagePair
from utils.flow.passes import PairBatch
from utils.models.base import Base
from utils.training import batches
from utils.training.batches import PairBatches, draw_bucket

CONFIG = Config(num_inference_steps=10, start_step=2, end_step=7, batch_size=4)
SIZES = ((16, 16), (32, 16), (16, 16), (16, 48), (16, 16))
"""(height, width)"""


class Flat(Base):
    """A base of pixels at half the size, whose noise levels move with it; it predicts nothing."""

    text_parts, image_parts = (), ()

    def __init__(self) -> None:
        super().__init__("", torch.device("cpu"), torch.float32)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Half the size."""
        return functional.avg_pool2d(pixels, 2)

    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """Straight down from 1, bent by the size."""
        return torch.linspace(1, 0, num_inference_steps + 1) ** (100 / (height * width))

    decode_latents = encode_prompts = load = shape_of_latents = velocity = None  # type: ignore[assignment]


def pairs_of(*sizes: tuple[int, int]) -> list[ImagePair]:
    """Pairs whose source shows its number."""
    return [
        ImagePair(f"p{n}", torch.full((3, *size), n / 10), torch.zeros(3, *size), Path("a"), Path("b"))
        for n, size in enumerate(sizes)
    ]


def drawn(source: PairBatches, seed: int = 0, steps: int = 200) -> list[PairBatch]:
    generator = torch.Generator().manual_seed(seed)
    return [source.draw(generator) for _ in range(steps)]


def numbers(batch: PairBatch) -> list[int]:
    return [round(10 * value) for value in batch.source.mean(dim=(1, 2, 3)).tolist()]


def test_a_step_is_of_one_size_with_its_own_noise_levels() -> None:
    base = Flat()
    for batch in drawn(PairBatches(base, pairs_of(*SIZES), CONFIG)):
        assert batch.source.shape == batch.target.shape == batch.noise.shape
        assert batch.source.shape[0] == 4
        height, width = batch.source.shape[2:]
        assert {SIZES[number] for number in numbers(batch)} == {(2 * height, 2 * width)}
        levels = base.sigmas(10, height, width)[2:8]
        assert torch.isin(batch.sigma, levels).all()
    assert not torch.equal(base.sigmas(10, 8, 8), base.sigmas(10, 16, 8))


def test_every_pair_is_as_likely_as_any_other() -> None:
    batch_list = drawn(PairBatches(Flat(), pairs_of(*SIZES), CONFIG), steps=2000)
    counts = Counter(number for batch in batch_list for number in numbers(batch))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    for count in counts.values():
        assert count == pytest.approx(1600, rel=0.15)


def test_pairs_of_one_size_are_drawn_as_before_there_were_others() -> None:
    """Written out: which pairs, which steps, which noise, and nothing else of the generator."""
    source, generator = PairBatches(Flat(), pairs_of((16, 16), (16, 16)), CONFIG), torch.Generator()
    generator.manual_seed(5)
    index, step = (torch.randint(count, (4,), generator=generator) for count in (2, 6))
    noise = torch.randn(4, 3, 8, 8, generator=generator)
    (batch,) = drawn(source, seed=5, steps=1)
    assert numbers(batch) == index.tolist()
    assert torch.equal(batch.sigma, Flat().sigmas(10, 8, 8)[2:8][step])
    assert torch.equal(batch.noise, noise)


def test_processes_share_what_one_draws_of_as_many_times_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pairs_of(*SIZES)
    alone = drawn(PairBatches(Flat(), pairs, CONFIG), steps=20)
    source = PairBatches(Flat(), pairs, replace(CONFIG, batch_size=2))
    monkeypatch.setattr(batches, "process_count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(batches, "share", lambda size, first=2 * rank: slice(first, first + size))
        shares.append(drawn(source, steps=20))
    for whole, *parts in zip(alone, *shares, strict=True):
        for name in ("source", "target", "sigma", "noise"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_bucket_alone_takes_nothing_from_the_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_bucket([7], generator) == 0
    assert torch.equal(generator.get_state(), before)
    found = Counter(draw_bucket([1, 0, 3], generator) for _ in range(400))
    assert set(found) == {0, 2}
    assert found[2] == pytest.approx(300, rel=0.15)
