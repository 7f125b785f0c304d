"""utils/measure/distribution.py: KID against a plain loop, and FID's network, or why it is not there."""

import importlib.util
import math
import warnings
from pickle import UnpicklingError

import pytest
import torch

from utils.measure.distribution import RELIABLE, caution, compare_sets, kernel_distance, load_inception
from utils.measure.encoders import Unavailable
from utils.measure.metrics import frechet_distance

CPU = torch.device("cpu")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(count, width=8, seed=0):
    return torch.randn(count, width, generator=rng(seed))


def slow_mmd(a, b):
    """The unbiased estimator, term by term, of two sets of equal size."""

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    a, b, n = a.tolist(), b.tolist(), len(a)
    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(x, y) for x in a for y in b)
    return within / (n * (n - 1)) - 2 * across / n**2


# kernel_distance


def test_kid_of_one_full_subset_is_the_unbiased_mmd():
    a, b = normal(12), normal(12, seed=1) + 0.3
    assert kernel_distance(a, b) == pytest.approx(slow_mmd(a, b), rel=1e-4)
    assert kernel_distance(b, a) == pytest.approx(slow_mmd(a, b), rel=1e-4)


def test_kid_by_hand():
    # D = 1: k(1, 3) = 64, k(0, 0) = 1, and 1 for each of a with each of b: (2 * 64 + 2 * 1) / 2 - 2 * 4 / 4
    a, b = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    assert kernel_distance(a, b) == pytest.approx(63)


def test_kid_of_equal_distributions_is_about_zero_and_grows_with_the_shift():
    a, b = normal(300), normal(300, seed=1)
    same, near, far = (kernel_distance(a, b + shift) for shift in (0, 0.3, 1))
    assert abs(same) < 0.05
    assert near > 2 * abs(same)
    assert far > 5 * near


def test_sets_of_unequal_size_are_compared_by_subsets_of_the_smaller():
    a, b = normal(40), normal(10, seed=1) + 1
    assert kernel_distance(a, b) == kernel_distance(a, b)
    assert kernel_distance(a, b) != kernel_distance(a, b, seed=1)
    # the mean over subsets of a estimates what all of a with all of b gives
    first = torch.stack([torch.tensor(slow_mmd(a[i : i + 10], b)) for i in range(0, 40, 10)]).mean()
    assert kernel_distance(a, b) == pytest.approx(first.item(), rel=0.15)


def test_kid_leaves_random_states_alone_and_warns_of_nothing(monkeypatch):
    def touched(seed):
        raise AssertionError("seeds the GPUs")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched)
    state = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = kernel_distance(normal(20), normal(10, seed=1))
    assert warned == []
    assert torch.get_rng_state().equal(state)
    torch.rand(1)
    assert kernel_distance(normal(20), normal(10, seed=1)) == before


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3)),
        (torch.zeros(1, 2), torch.zeros(4, 2)),
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(4, 2, 2), torch.zeros(4, 2, 2)),
    ],
)
def test_kid_refuses_what_has_no_answer(a, b):
    with pytest.raises(ValueError, match=r"kernel_distance: expected \(N, D\) and \(M, D\) with N, M >= 2"):
        kernel_distance(a, b)


def test_both_distances_of_two_sets():
    a, b = normal(20), normal(30, seed=1) + 1
    assert compare_sets(a, b) == {"FID": frechet_distance(a, b), "KID": kernel_distance(a, b)}
    itself = compare_sets(a, a)
    assert itself["FID"] == pytest.approx(0, abs=1e-6)
    assert itself["KID"] < 0  # unbiased: of a set with itself, whose diagonal counts across alone


def test_few_images_are_called_unreliable():
    assert caution(RELIABLE) == caution(10**6) == ""
    assert caution(RELIABLE - 1) == "unreliable: 2047 images, fewer than 2048"


# load_inception


class Inception:
    """Stands in for torch-fidelity's network: its features are the bytes that it is given."""

    def __init__(self, name, features, path):
        self.made_of, self.batches = (name, features, path), []

    def to(self, device):
        self.device = device
        return self

    def __call__(self, images):
        assert images.dtype == torch.uint8
        self.batches.append(images)
        return images.flatten(1).float()


def inception(monkeypatch, make=Inception):
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", make)


def test_no_weights_named():
    found = load_inception("", CPU)
    assert isinstance(found, Unavailable)
    assert str(found) == (
        "inception: not available: no weights named; to have it: pip install torch-fidelity, and set the key "
        "inception_weights to its file or to torch-fidelity"
    )


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is there")
@pytest.mark.parametrize("weights", ["torch-fidelity", "weights.pth"])
def test_without_torch_fidelity(weights):
    found = load_inception(weights, CPU)
    assert isinstance(found, Unavailable)
    assert "orch-fidelity` is installed" in found.reason
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "error",
    [
        OSError("no such file"),
        EOFError(),
        UnpicklingError("invalid load key, '<'"),
        RuntimeError("Error(s) in loading state_dict:\n  Missing key(s)"),
        TypeError("Expected state_dict to be dict-like"),
        KeyError("fc.weight"),
    ],
)
def test_files_that_are_no_weights(monkeypatch, error):
    def failing(*args):
        raise error

    inception(monkeypatch, failing)
    found = load_inception("weights.pth", CPU)
    assert isinstance(found, Unavailable)
    assert found.reason
    assert "\n" not in str(found)


def test_memory_that_runs_out_is_not_called_missing_weights(monkeypatch):
    def failing(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    inception(monkeypatch, failing)
    with pytest.raises(torch.OutOfMemoryError):
        load_inception("weights.pth", CPU)


def test_images_become_bytes_in_small_batches(monkeypatch):
    made = []
    inception(monkeypatch, lambda *args: made.append(Inception(*args)) or made[-1])
    features = load_inception("weights.pth", CPU)
    load_inception("torch-fidelity", CPU)
    assert [network.made_of for network in made] == [
        ("inception-v3-compat", ["2048"], "weights.pth"),
        ("inception-v3-compat", ["2048"], None),  # which it fetches
    ]
    bytes_ = torch.randint(256, (20, 3, 4, 4), generator=rng())
    images = bytes_ / 127.5 - 1
    images[0, 0, 0] = torch.tensor([-1.2, 1.2, -math.inf, 0.999])
    bytes_[0, 0, 0] = torch.tensor([0, 255, 0, 255])
    assert features(images).equal(bytes_.flatten(1).float())
    assert [len(batch) for batch in made[0].batches] == [16, 4]
    assert made[0].device == CPU
