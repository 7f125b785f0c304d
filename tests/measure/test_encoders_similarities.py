"""Functions of embeddings: by hand, by definition and by torchmetrics."""

import types

import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics.functional.multimodal.clip_score import _clip_score_update

from tests.measure.seeds import rng
from utils.measure.encoders import cosine, direction_similarity, text_score


def test_direction_similarity_of_cases_by_hand():
    origin = torch.zeros(2, 3)
    source, target = origin, torch.tensor([[2.0, 0, 0], [0, 2, 0]])  # the mean goes along (1, 1, 0)
    before = torch.tensor([[0.0, 0, 1]]).repeat(5, 1)
    after = before + torch.tensor([[3.0, 3, 0], [-1, -1, 0], [0, 0, 9], [1, 0, 0], [0, 0, 0]])
    found = direction_similarity(source, target, before, after)
    assert found.tolist() == pytest.approx([1, -1, 0, 0.5**0.5, 0], abs=1e-6)
    assert direction_similarity(source, source, before, after).tolist() == [0.0] * 5


def test_direction_similarity_averages_before_it_normalises():
    source, target = torch.zeros(2, 2), torch.tensor([[3.0, 0], [0, 1]])
    found = direction_similarity(source, target, torch.zeros(1, 2), torch.tensor([[1.0, 0]]))
    assert found.item() == pytest.approx(3 / 10**0.5)


def test_rounding_has_no_direction():
    before = normalize(torch.randn(50, 512, generator=rng()), dim=1)
    after = before * (1 + 2.0**-23)
    assert (after - before).norm(dim=1).min() > 0
    source, target = before[:1], before[1:2]
    assert direction_similarity(source, target, before, after).abs().max() == 0
    moved = direction_similarity(source, target, before, before + 1e-4 * (target - source))
    assert moved.min() > 0.99


def test_cosine_against_its_definition():
    a, b = torch.randn(7, 5, generator=rng()), torch.randn(7, 5, generator=rng(1))
    expected = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()
    torch.testing.assert_close(cosine(a, b), expected)


def test_text_score_is_that_of_torchmetrics_with_each_image_cut_at_zero():
    images, text = torch.randn(20, 8, generator=rng()), torch.randn(8, generator=rng(1))
    model = types.SimpleNamespace(
        get_image_features=lambda pixels: images, get_text_features=lambda ids, mask: text.repeat(20, 1)
    )
    model.to = lambda device: model
    model.config = types.SimpleNamespace()

    def processor(**given):
        return dict.fromkeys(("pixel_values", "input_ids", "attention_mask"), torch.zeros(20, 1))

    pixels = list(torch.zeros(20, 3, 4, 4))
    expected, count = _clip_score_update(pixels, ["a cat"] * 20, model, processor)
    assert count == 20
    assert expected.min() < 0
    torch.testing.assert_close(text_score(images, text), expected.clamp(min=0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cosine(torch.zeros(2, 3), torch.zeros(1, 3)),
        lambda: cosine(torch.zeros(3), torch.zeros(3)),
        lambda: text_score(torch.zeros(2, 3), torch.zeros(4)),
        lambda: text_score(torch.zeros(2, 3), torch.zeros(1, 3)),
        lambda: direction_similarity(*(torch.zeros(n, 3) for n in (1, 2, 4, 4))),
        lambda: direction_similarity(*(torch.zeros(n, 3) for n in (2, 2, 4, 1))),
        lambda: direction_similarity(*(torch.zeros(2, d) for d in (3, 3, 4, 4))),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    with pytest.raises(ValueError, match="equal shapes"):
        call()
