"""The face network in place of onnxruntime's; the images that every network refuses."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.measure.mini_encoders import CPU, loaded, missing, photo, pil_resized, to_pil
from utils.errors import UserError
from utils.measure.encoders import FaceEmbedder, load


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"found torch.float32 \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), "found"),
        (torch.zeros(0, 3, 32, 32), "found"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 3, 32, 32), 255.0), "up to 255"),
        (torch.full((1, 3, 32, 32), torch.nan), "up to nan"),
    ],
)
def test_images_of_another_kind_are_refused(dino_folder, lpips_alex, images, message):
    with pytest.raises(ValueError, match=message):
        loaded("dinov2", dino_folder).embed(images)
    with pytest.raises(ValueError, match=message):
        lpips_alex.distance(images, images, None)
    with pytest.raises(ValueError, match=message):
        FaceEmbedder(Session()).embed(images)


class Session:
    """As much of an onnxruntime session as is used: mean and std of each channel for an identity."""

    def __init__(self, shape=("None", 3, 112, 112)):
        self.shape = list(shape)
        self.fed = []

    def get_inputs(self):
        return [types.SimpleNamespace(name="input.1", shape=self.shape)]

    def run(self, outputs, feed):
        assert outputs is None
        assert list(feed) == ["input.1"]
        (faces,) = feed.values()
        assert isinstance(faces, np.ndarray)
        self.fed.append(faces)
        return [np.concatenate([faces.mean(axis=(2, 3)), faces.std(axis=(2, 3))], axis=1)]


@pytest.mark.parametrize("shape", [("None", 3, 112, 112), (1, 3, 112, 112)])
def test_face_network_is_fed_rgb_as_it_was_trained(shape):
    session = Session(shape)
    images = torch.cat([photo(112, 112, 0), photo(112, 112, 1)])
    found = FaceEmbedder(session).embed(images)
    levels = np.stack([np.asarray(to_pil(image[None]), dtype=np.float32) for image in images])
    expected = ((levels - 127.5) / 127.5).transpose(0, 3, 1, 2)
    assert [len(faces) for faces in session.fed] == [1, 1]
    fed = np.concatenate(session.fed)
    assert fed.dtype == np.float32
    np.testing.assert_allclose(fed, expected, atol=1e-5)
    features = np.concatenate([expected.mean(axis=(2, 3)), expected.std(axis=(2, 3))], axis=1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), features, atol=1e-5)


def test_faces_are_brought_to_112_as_pillow_does():
    session = Session()
    image = photo(160, 160)
    FaceEmbedder(session).embed(image)
    expected = pil_resized(image, (112, 112), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(session.fed[0], expected.numpy(), atol=1e-5)


def test_face_network_of_another_input_and_faces_not_square_are_refused():
    with pytest.raises(ValueError, match=r"found \[1, 3, 224, 224\]"):
        FaceEmbedder(Session((1, 3, 224, 224)))
    with pytest.raises(UserError, match=r"arcface: expected square images .*, found 100 x 112"):
        FaceEmbedder(Session()).embed(torch.zeros(1, 3, 112, 100))


def test_without_onnxruntime_there_is_no_face_network(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime" in missing("arcface", tmp_path / "face.onnx")
    remedy = load("arcface", "face.onnx", CPU).remedy
    assert "pip install onnxruntime" in remedy
    assert "w600k_r50.onnx" in remedy
    assert "non-commercial" in remedy


def test_face_network_comes_from_an_onnx_file_through_onnxruntime(monkeypatch, tmp_path):
    opened = []

    class OnnxError(Exception):
        """As onnxruntime's own: derived from nothing else."""

    def open_session(path, providers):
        opened.append((path, providers))
        if not Path(path).exists():
            raise OnnxError(f"[ONNXRuntimeError] : 3 : NO_SUCHFILE : {path}")
        if Path(path).read_text() != "fine":
            raise OnnxError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf parsing failed.")
        return Session()

    module = types.SimpleNamespace(InferenceSession=open_session)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    file = tmp_path / "face.onnx"
    assert missing("arcface", file) == f"[ONNXRuntimeError] : 3 : NO_SUCHFILE : {file}"
    file.write_text("not a network")
    assert "Protobuf parsing failed" in missing("arcface", file)
    file.write_text("fine")
    assert isinstance(loaded("arcface", file), FaceEmbedder)
    assert opened[-1] == (str(file), ["CPUExecutionProvider"])
