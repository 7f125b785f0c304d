"""Each metric of images and sets against a case by hand, a closed form or another implementation."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from tests.measure.seeds import rng
from utils.measure.metrics import Interval, bootstrap_mean, frechet_distance, pixel_change, psnr, ssim

# psnr


def test_psnr_of_a_known_error():
    reference = torch.zeros(3, 3, 8, 8)
    images = reference.clone()
    images[0] += 0.2  # 20 log10(2 / 0.2)
    images[1] += 0.02
    assert psnr(images, reference).tolist() == pytest.approx([20.0, 40.0, math.inf], abs=1e-4)


def test_psnr_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# ssim


def slow_ssim(x, y):
    """Wang et al. 2004, window by window: float64 images (C, H, W) in [0, 1], mirrored at the edges."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window[:, None] * window / window.sum() ** 2
    x, y = (torch.from_numpy(np.pad(z.numpy(), ((0, 0), (5, 5), (5, 5)), "reflect")) for z in (x, y))
    values = []
    for c in range(len(x)):
        for i in range(x.shape[1] - 10):
            for j in range(x.shape[2] - 10):
                a, b = x[c, i : i + 11, j : j + 11], y[c, i : i + 11, j : j + 11]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma).square()).sum(), (window * (b - mb).square()).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                luminance = (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
                values.append((luminance * (2 * cov + 0.03**2) / (va + vb + 0.03**2)).item())
    return sum(values) / len(values)


def test_ssim_equals_a_loop_over_its_definition():
    reference = torch.rand(2, 3, 12, 14, generator=rng()) * 2 - 1
    noise = torch.tensor([0.1, 0.8]).view(2, 1, 1, 1) * torch.randn(reference.shape, generator=rng(1))
    images = (reference + noise).clamp(-1, 1)
    pairs = zip((images.double() + 1) / 2, (reference.double() + 1) / 2, strict=True)
    expected = [slow_ssim(x, y) for x, y in pairs]
    assert expected[0] > 0.9 > 0.6 > expected[1]
    assert ssim(images, reference).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(reference, images).tolist() == pytest.approx(expected, abs=1e-6)


def test_ssim_of_equal_constant_and_inverted_images():
    image = torch.rand(1, 3, 32, 32, generator=rng()) * 2 - 1
    assert ssim(image, image.clone()).item() == pytest.approx(1)
    assert ssim(-image, image).item() < 0
    # without structure the luminance alone is left; values in [0, 1]
    a, b = torch.full((1, 3, 16, 16), -0.5), torch.full((1, 3, 16, 16), 0.5)
    expected = (2 * 0.25 * 0.75 + 0.01**2) / (0.25**2 + 0.75**2 + 0.01**2)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)
    grey = torch.full((1, 3, 16, 16), 0.3)  # in float32 rounding takes 2e-4 off
    assert ssim(grey, grey.clone()).item() == 1


def test_ssim_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="ssim: expected two equal shapes"):
        ssim(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))


# pixel_change


def test_pixel_change_is_a_share_of_the_range_and_does_not_cancel():
    reference = torch.zeros(4, 3, 8, 8)
    reference[3] = -1
    images = reference.clone()
    images[1, 0] += 0.6
    images[2, :, :4], images[2, :, 4:] = 0.5, -0.5
    images[3] = 1
    assert pixel_change(images, reference).tolist() == pytest.approx([0, 0.1, 0.25, 1])


# frechet_distance


def test_frechet_of_one_dimension_is_the_closed_form():
    # (mean difference)^2 + (std difference)^2, with samples whose moments are exact.
    a = torch.tensor([[-1.0], [1.0]])
    b = 3 * a + 5
    std = math.sqrt(2)
    assert frechet_distance(a, b) == pytest.approx(25 + (3 * std - std) ** 2)


def test_frechet_equals_the_matrix_square_root_of_scipy():
    a = torch.randn(200, 6, generator=rng()) @ torch.randn(6, 6, generator=rng(1))
    b = torch.randn(150, 6, generator=rng(2)) @ torch.randn(6, 6, generator=rng(3)) + 0.5
    cov_a, cov_b = torch.cov(a.T.double()).numpy(), torch.cov(b.T.double()).numpy()
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    mean = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = mean + (cov_a + cov_b - 2 * root).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_a_set_with_itself_is_zero_even_when_singular():
    few = torch.randn(4, 16, generator=rng())  # rank 3 in 16 dimensions
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 2) == pytest.approx(16 * 4, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3), r"found \(4, 2\) and \(4, 3\)"),
        (torch.zeros(1, 2), torch.zeros(4, 2), "N, M >= 2"),
        (torch.zeros(4), torch.zeros(4), "expected"),
        (torch.full((4, 2), math.nan), torch.zeros(4, 2), "finite"),
    ],
)
def test_frechet_refuses_what_has_no_answer(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


# bootstrap


def test_bootstrap_agrees_with_the_normal_interval_and_with_scipy():
    values = torch.randn(400, generator=rng()).double() + 3
    interval = bootstrap_mean(values)
    half = 1.96 * values.std().item() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean().item())
    assert (interval.low, interval.high) == pytest.approx(
        (interval.mean - half, interval.mean + half), abs=0.015
    )
    other = scipy.stats.bootstrap((values.numpy(),), lambda x, axis: x.mean(axis), method="percentile")
    assert (interval.low, interval.high) == pytest.approx(tuple(other.confidence_interval), abs=0.015)
    assert bootstrap_mean(values) == interval


def test_bootstrap_of_equal_values_has_no_width_and_of_one_value_no_interval():
    assert bootstrap_mean(torch.full((9,), 0.25)) == Interval(0.25, 0.25, 0.25)
    one = bootstrap_mean(torch.tensor([0.25]))
    assert one.mean == 0.25
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    with pytest.raises(ValueError, match="B >= 1"):
        bootstrap_mean(torch.zeros(0))


def test_interval_formats_like_a_number():
    assert f"{Interval(0.956, 0.93, 0.98):.0%}" == "96% [93%, 98%]"
    assert f"{Interval(0.5, math.nan, math.nan):.2f}" == "0.50"
