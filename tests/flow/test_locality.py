"""What holds an edited image to the unedited one: exact cases, and the formula written out by hand."""

from __future__ import annotations

import numpy as np
import torch

from utils.flow.locality import Locality


def by_hand(unedited: np.ndarray, edited: np.ndarray, low: float, high: float) -> np.ndarray:
    difference = edited - unedited
    change = np.abs(difference).mean(axis=0)
    rows, columns = change.shape
    blurred = np.array(
        [
            [change[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(columns)]
            for i in range(rows)
        ]
    )
    ramp = np.clip((blurred / np.quantile(blurred, 0.98) - low) / (high - low), 0, 1)
    return unedited + (3 * ramp**2 - 2 * ramp**3) * difference


def test_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    unedited = torch.randn(3, 4, 8, 8, generator=generator)
    edited = unedited + torch.rand(3, 1, 8, 8, generator=generator) ** 4
    found = Locality(0.2, 0.5)(unedited, edited)
    for one, other, held in zip(unedited, edited, found, strict=True):
        np.testing.assert_allclose(held.numpy(), by_hand(one.numpy(), other.numpy(), 0.2, 0.5), atol=1e-5)


def test_an_edit_of_a_part_stays_and_what_is_little_beside_it_goes() -> None:
    unedited = torch.zeros(1, 2, 16, 16)
    edited = unedited + 0.05
    edited[:, :, 4:8, 4:8] = 1
    held = Locality()(unedited, edited)
    assert torch.equal(held[:, :, 5:7, 5:7], edited[:, :, 5:7, 5:7])
    assert not held[:, :, 10:].any()


def test_nothing_is_done_to_an_unedited_image_and_scale_0_is_approached() -> None:
    unedited = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(Locality()(unedited, unedited.clone()), unedited)
    change = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    for scale in (1e-1, 1e-3, 1e-6):
        assert (
            Locality()(unedited, unedited + scale * change) - unedited
        ).abs().max() <= scale * change.abs().max()
