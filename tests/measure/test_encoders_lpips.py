"""LPIPS of random backbones against the paper's formula."""

import urllib.error
import warnings
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from PIL import Image

from tests.measure.mini_encoders import loaded, missing, photo, pil_resized
from utils.measure.encoders import ENCODERS, LpipsDistance


def lpips_by_hand(net, layers, ends, a, b):
    """The paper's equation 1, on the layers of torchvision's network that end at `ends`."""
    file = Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    a, b = (((images + 1) / 2 - mean) / std for images in (a, b))
    total = 0
    with torch.no_grad():
        for index, layer in enumerate(layers):
            a, b = layer(a), layer(b)
            if index in ends:
                weight = linear[f"lin{ends.index(index)}.model.1.weight"]  # (1, C, 1, 1)
                squares = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
                total = total + (weight * squares).sum(dim=1).mean(dim=(1, 2))
    return total


def layers_of(layers, state):
    """torchvision's layers with these weights, none of which overwrites its input."""
    layers.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    return [torch.nn.ReLU() if isinstance(layer, torch.nn.ReLU) else layer for layer in layers]


def test_lpips_alex_is_the_papers_formula(alexnet_file, lpips_alex):
    a = torch.cat([photo(64, 80, seed) for seed in range(18)])  # more than a batch
    b = a.roll(1, 0)
    assert isinstance(lpips_alex, LpipsDistance)
    found = lpips_alex.distance(a, b, None)
    layers = layers_of(torchvision.models.alexnet().features, torch.load(alexnet_file, weights_only=True))
    expected = lpips_by_hand("alex", layers, [1, 4, 7, 9, 11], a, b)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)
    assert found.min() > 1e-4
    assert lpips_alex.distance(a, a, None).tolist() == [0.0] * 18
    assert not lpips_alex.distance(a[:1].clone().requires_grad_(), b[:1], None).requires_grad


def test_lpips_vgg_is_the_papers_formula(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    state = {f"features.{key}": value for key, value in network.state_dict().items()}
    torch.save(state, tmp_path / "vgg.pth")
    a, b = photo(40, 32, 0), photo(40, 32, 1)
    found = loaded("lpips_vgg", tmp_path / "vgg.pth").distance(a, b, None)
    expected = lpips_by_hand("vgg", layers_of(network, state), [3, 8, 15, 22, 29], a, b)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


def test_lpips_resolution_is_pillows_bilinear_of_the_shorter_side(lpips_alex):
    a, b = photo(150, 200, 0), photo(150, 200, 1)
    small = [pil_resized(image, (64, 85), Image.Resampling.BILINEAR) for image in (a, b)]
    found = lpips_alex.distance(a, b, 64)
    torch.testing.assert_close(found, lpips_alex.distance(*small, None), atol=1e-7, rtol=1e-3)
    assert found.item() != pytest.approx(lpips_alex.distance(a, b, None).item(), rel=0.02)


def test_lpips_refuses_shapes_that_would_broadcast(lpips_alex):
    with pytest.raises(ValueError, match="equal shapes"):
        lpips_alex.distance(torch.zeros(2, 3, 64, 64), torch.zeros(1, 3, 64, 64), None)


def test_lpips_is_frozen_silent_and_leaves_the_random_numbers_alone(alexnet_file, capfd):
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distance = loaded("lpips_alex", alexnet_file)
    assert torch.get_rng_state().equal(state)
    assert tuple(capfd.readouterr()) == ("", "")
    assert not distance._model.training
    assert not any(parameter.requires_grad for parameter in distance._model.parameters())


def test_lpips_takes_torchvisions_file_from_the_hub_cache(alexnet_file, lpips_alex, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked = []

    def download(url, file, hash_prefix, progress):
        assert url.endswith(f"-{hash_prefix}.pth")  # what comes is checked against it
        asked.append(url)
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert missing("lpips_alex", "torchvision") == "<urlopen error no network here>"
    assert asked == ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"]
    assert asked[0] in ENCODERS["lpips_alex"][1]
    assert "no network" in missing("lpips_vgg", "torchvision")
    assert asked[1] in ENCODERS["lpips_vgg"][1]

    (tmp_path / "checkpoints/alexnet-owt-7be5be79.pth").write_bytes(alexnet_file.read_bytes())
    a, b = photo(64, 64, 0), photo(64, 64, 1)
    expected = lpips_alex.distance(a, b, None)
    assert loaded("lpips_alex", "torchvision").distance(a, b, None).equal(expected)
    assert len(asked) == 2
