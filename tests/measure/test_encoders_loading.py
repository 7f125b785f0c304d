"""Each way to lack a network: no weights, other weights, no hub; and the hub's cache."""

import types

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model

from tests.measure.mini_encoders import CPU, EMBEDDERS, copied, loaded, missing, photo
from utils import hub as hub_module
from utils.errors import UserError
from utils.measure.encoders import ENCODERS, load

# what is not there


@pytest.mark.parametrize("name", ENCODERS)
def test_no_weights_named(name):
    assert missing(name, "") == "no weights named"


def test_an_unknown_network_is_the_users_fault():
    with pytest.raises(UserError, match=r"clip, dinov2, .*found 'dinov3' \(did you mean 'dinov2'\?\)"):
        load("dinov3", "somewhere", CPU)


@EMBEDDERS
def test_a_folder_that_lacks_a_file(folders, name, tmp_path):
    folder = copied(folders[name], tmp_path)
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json" in missing(name, folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in missing(name, folder)
    (folder / "config.json").unlink()
    assert str(folder) in missing(name, folder)


def test_a_configuration_of_another_kind_of_network(folders, tmp_path):
    folder = copied(folders["clip"], tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"patch_size": 8', '"patch_size": [7, 3]'))
    assert "expected the files of a CLIPModel, found others: " in missing("clip", folder)


@EMBEDDERS
def test_a_file_of_weights_that_is_none(folders, name, tmp_path):
    folder = copied(folders[name], tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    for content in (b"", b"<html>not found</html>", weights[: len(weights) // 2]):
        (folder / "model.safetensors").write_bytes(content)
        assert missing(name, folder)


@EMBEDDERS
def test_weights_that_lack_some_are_refused_not_filled_at_random(folders, name, tmp_path):
    folder = copied(folders[name], tmp_path)
    state = load_file(folder / "model.safetensors")
    lost = next(key for key in state if "patch_embedding" in key)
    del state[lost]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert missing(name, folder).endswith(f"found no {lost}")
    other = folders["dinov2" if name == "clip" else "clip"]
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    kind = "CLIPModel" if name == "clip" else "Dinov2Model"
    assert f"expected the weights of a {kind}" in missing(name, folder)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_backbone_file_that_is_none(tmp_path, content):
    file = tmp_path / "alexnet.pth"
    assert str(file) in missing("lpips_alex", file)
    file.write_bytes(content)
    assert missing("lpips_alex", file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda state: {**state, "features.0.weight": torch.zeros(2, 2)},
            "size mismatch for slice1.0.weight",
        ),
        (
            lambda state: {key: state[key] for key in state if key != "features.3.bias"},
            "torchvision's alexnet",
        ),
        (lambda state: torch.zeros(3), "expected the state dict of torchvision's alexnet"),
    ],
)
def test_a_backbone_that_is_another(tmp_path, alexnet_file, change, reason):
    file = tmp_path / "alexnet.pth"
    torch.save(change(torch.load(alexnet_file, weights_only=True)), file)
    assert reason in missing("lpips_alex", file)


def test_memory_that_runs_out_is_not_called_missing_weights(monkeypatch):
    def load_much(source, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(ENCODERS, "clip", (load_much, "a folder"))
    with pytest.raises(torch.OutOfMemoryError):
        load("clip", "somewhere", CPU)


# the hub


class NoConnectionError(Exception):
    """As those of the hub's HTTP client: no OSError."""


def hub(monkeypatch, tmp_path, files):
    """A hub that holds `files` (None: out of reach) and a cache in tmp_path; gives the list of downloads."""
    asked = []

    def model_info(self, source, timeout):
        assert timeout <= 30
        if files is None:
            raise NoConnectionError("[Errno -2] Name or service not known")
        return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=file) for file in files])

    real = hub_module.snapshot_download

    def download(source, *, allow_patterns, local_files_only=False):
        asked.append(allow_patterns)
        if not local_files_only:
            if not (tmp_path / "downloaded").exists():
                raise NoConnectionError("Connection reset by peer")
            return str(tmp_path / "downloaded")
        return real(source, allow_patterns=allow_patterns, local_files_only=True)

    monkeypatch.setattr(hub_module.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub_module, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return asked


@EMBEDDERS
def test_a_hub_out_of_reach_is_told_with_its_reason(monkeypatch, tmp_path, name):
    hub(monkeypatch, tmp_path, None)
    assert missing(name, "someone/mini") == (
        "no folder someone/mini, not in the hub's cache, hub: [Errno -2] Name or service not known"
    )


def test_a_hub_that_breaks_off_is_told_with_its_reason(monkeypatch, tmp_path):
    asked = hub(monkeypatch, tmp_path, ["model.safetensors"])
    assert missing("dinov2", "someone/mini").endswith("hub: Connection reset by peer")
    assert len(asked) == 2  # the hub, then its cache


def test_a_name_that_is_neither_folder_nor_hub_id(tmp_path):
    reason = missing("clip", tmp_path / "nowhere/at/all")
    assert reason.startswith(f"no folder {tmp_path / 'nowhere/at/all'}")
    assert "Repo id" in reason


def test_the_hubs_cache_serves_without_a_network(monkeypatch, tmp_path, dino_folder):
    hub(monkeypatch, tmp_path, None)
    repository = tmp_path / "cache/models--someone--mini"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots"
    snapshot.mkdir()
    copied(dino_folder, snapshot).rename(snapshot / ("0" * 40))
    images = photo(40, 40)
    expected = loaded("dinov2", dino_folder).embed(images)
    assert loaded("dinov2", "someone/mini").embed(images).equal(expected)


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"], "model*.safetensors"),
        (["pytorch_model.bin", "tf_model.h5"], "pytorch_model*.bin"),
    ],
)
def test_one_kind_of_weights_is_downloaded(monkeypatch, tmp_path, dino_folder, files, weights):
    asked = hub(monkeypatch, tmp_path, files)
    folder = copied(dino_folder, tmp_path).rename(tmp_path / "downloaded")
    if weights.endswith(".bin"):
        (folder / "model.safetensors").unlink()
        torch.save(Dinov2Model.from_pretrained(dino_folder).state_dict(), folder / "pytorch_model.bin")
    images = photo(40, 40)
    expected = loaded("dinov2", dino_folder).embed(images)
    assert loaded("dinov2", "someone/mini").embed(images).equal(expected)
    assert asked == [["*.json", "*.txt", weights]]
