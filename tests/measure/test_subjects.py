"""Measures of subjects, on networks and a probe that can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from utils.measure.encoders import Unavailable
from utils.measure.subjects import SubjectProbe, diversity, drift, followed, identity


class Colours:
    """A network that embeds an image as its mean colour, and a text as red."""

    def embed(self, images: Tensor) -> Tensor:
        return normalize(images.mean(dim=(2, 3)), dim=1)

    def embed_text(self, texts: list[str]) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(texts), 1)


def level(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3))


PROBE = SubjectProbe(
    error=lambda images, references: (level(images) - level(references).mean()).abs(),
    change=lambda images, before: (level(images) - level(before)).abs(),
    followed=lambda images, prompt: (level(images) > 0).float() if "bright" in prompt else None,
    described=lambda references: "somebody",
    features=lambda images: images.mean(dim=(2, 3)),
    name="who error",
)
MISSING = Unavailable("arcface", "no weights named", "name some")


def images(*colours: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, 3, 4, 4).contiguous()


RED, GREEN, GREY = (0.9, 0.0, 0.0), (0.0, 0.9, 0.0), (0.3, 0.3, 0.3)


def test_identity_is_the_probes_error_and_the_cosine_to_the_mean_reference() -> None:
    found = identity(images(RED, GREEN), images(RED, RED), {"arcface": MISSING, "clip": Colours()}, PROBE)
    assert list(found) == ["who error", "arcface similarity", "clip similarity"]
    torch.testing.assert_close(found["who error"], torch.tensor([0.0, 0.0]))
    assert found["arcface similarity"] is MISSING
    torch.testing.assert_close(found["clip similarity"], torch.tensor([1.0, 0.0]))


def test_followed_is_counted_where_a_prompt_asks_for_something() -> None:
    tools = {"clip": Colours()}
    found = followed(images(RED, GREEN), "bright", tools, PROBE)
    torch.testing.assert_close(found["prompt followed"], torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(found["CLIPScore"], torch.tensor([100.0, 0.0]))
    assert list(followed(images(RED), "anything", {}, PROBE)) == []


def test_drift_is_seed_by_seed() -> None:
    found = drift(images(RED, GREEN), images(RED, GREY), {"dinov2": Colours()}, PROBE)
    torch.testing.assert_close(found["drift of the class"], torch.tensor([0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["dinov2 drift"], torch.tensor([0.0, 1 - 3**-0.5]))


def test_diversity_is_in_units_of_the_references() -> None:
    found = diversity(images(RED, RED, GREEN), images(RED, GREEN), {}, PROBE)
    assert found["diversity"].item() == pytest.approx(2 / 3)
    assert diversity(images(RED, GREEN), images(RED, GREEN), {"clip": MISSING}, None) == {
        "clip diversity": MISSING
    }
