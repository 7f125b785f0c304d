"""Each outside network, in miniature and random, against an independent computation; each way to lack one."""

import sys
import types
import urllib.error
import warnings
from pathlib import Path

import huggingface_hub.constants
import lpips
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from torchmetrics.functional.multimodal.clip_score import _clip_score_update
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

from utils.errors import UserError
from utils.measure import encoders
from utils.measure.encoders import (
    ENCODERS,
    ClipEmbedder,
    DinoEmbedder,
    FaceEmbedder,
    LpipsDistance,
    Unavailable,
    cosine,
    direction_similarity,
    load,
    text_score,
)

CPU = torch.device("cpu")
TEXTS = ["an old cat", "a cat", "glasses, a beard and a hill"]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def photo(height, width, seed=0):
    """(1, 3, H, W) in [-1, 1], on 8-bit levels, smooth as photographs are, with one hard edge."""
    coarse = torch.rand(1, 3, 5, 5, generator=rng(seed))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    image[..., : height // 2, : width // 3] = 1 - image[..., : height // 2, : width // 3]
    return (image * 255).round() / 127.5 - 1


def to_pil(image):
    return Image.fromarray(((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def pil_resized(image, size, resample):
    """Resize float channels by Pillow, which does not round them: (1, 3, h, w) for size (h, w)."""
    channels = [Image.fromarray(channel.numpy()).resize(size[::-1], resample) for channel in image[0]]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))[None]


def random_(kind, config):
    """A model whose random weights are large enough to set images and texts far apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = kind(config)
        for name, parameter in model.named_parameters():
            parameter.data += torch.randn(parameter.shape) * (0.1 if "norm" in name else 0.4)
    return model


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz,"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **sizes,
    )
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    random_(CLIPModel, config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24).save_pretrained(folder)
    size, crop = {"shortest_edge": 32}, {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=crop, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    random_(Dinov2Model, Dinov2Config(image_size=42, patch_size=14, **sizes)).save_pretrained(folder)
    size, crop = {"shortest_edge": 32}, {"height": 28, "width": 28}
    BitImageProcessor(size=size, crop_size=crop, image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    """The convolutions of a random AlexNet, as torchvision names them."""
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = torchvision.models.alexnet().state_dict()
    torch.save({key: value for key, value in state.items() if key.startswith("features")}, file)
    return file


@pytest.fixture(scope="module")
def lpips_alex(alexnet_file):
    return loaded("lpips_alex", alexnet_file)


def loaded(name, source):
    found = load(name, str(source), CPU)
    assert not isinstance(found, Unavailable), str(found)
    return found


def missing(name, source):
    """The reason, after checking what every `Unavailable` is to hold."""
    found = load(name, str(source), CPU)
    assert isinstance(found, Unavailable)
    assert found.name == name
    assert found.remedy == f"set {name}_weights to {ENCODERS[name][1]}"
    assert str(found) == f"{name}: not available: {found.reason}; to have it: {found.remedy}"
    assert "\n" not in str(found)
    return found.reason


# CLIP and DINOv2

EMBEDDERS = pytest.mark.parametrize("name", ["clip", "dinov2"])
SHAPES = pytest.mark.parametrize(("height", "width"), [(100, 75), (47, 91), (32, 32), (20, 20)])


@pytest.fixture
def folders(clip_folder, dino_folder):
    return {"clip": clip_folder, "dinov2": dino_folder}


def features_of(name, folder, pixels):
    """Unit features of preprocessed pixels, by the parts of the models."""
    with torch.no_grad():
        if name == "clip":
            model = CLIPModel.from_pretrained(folder)
            features = model.visual_projection(model.vision_model(pixels).pooler_output)
        else:
            model = Dinov2Model.from_pretrained(folder)
            hidden = model.encoder(model.embeddings(pixels)).last_hidden_state
            features = model.layernorm(hidden)[:, 0]
    return features / features.square().sum(dim=1, keepdim=True).sqrt()


@EMBEDDERS
@SHAPES
def test_embedding_is_the_models_own_of_unrounded_pixels(folders, name, height, width):
    images = photo(height, width)
    shorter, crop = {"clip": (32, 32), "dinov2": (32, 28)}[name]
    mean, std = {
        "clip": ([0.4, 0.5, 0.6], [0.26862954, 0.26130258, 0.27577711]),
        "dinov2": ([0.48145466, 0.4578275, 0.40821073], [0.2, 0.3, 0.4]),
    }[name]
    size = [int(shorter * side / min(height, width)) for side in (height, width)]
    pixels = pil_resized((images + 1) / 2, size, Image.Resampling.BICUBIC).clamp(0, 1)
    top, left = (size[0] - crop) // 2, (size[1] - crop) // 2
    pixels = pixels[..., top : top + crop, left : left + crop]
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    found = loaded(name, folders[name]).embed(images)
    assert found.dtype == torch.float32
    assert found.norm(dim=1).tolist() == pytest.approx([1])
    torch.testing.assert_close(found, features_of(name, folders[name], pixels), atol=2e-5, rtol=0)


@EMBEDDERS
@SHAPES
def test_preprocessing_is_the_processors_but_for_its_rounding(folders, name, height, width):
    images = photo(height, width, seed=1)
    kind = {"clip": CLIPImageProcessor, "dinov2": BitImageProcessor}[name]
    processor = kind.from_pretrained(folders[name])
    expected = processor(to_pil(images), return_tensors="pt").pixel_values
    embedder = loaded(name, folders[name])
    pixels = embedder._pixels(images)
    levels = (pixels - expected).abs() * torch.tensor(processor.image_std).view(3, 1, 1) * 255
    assert levels.max() <= 1.5  # of 255: it rounds twice, once a direction
    assert levels.mean() <= 0.5
    assert cosine(embedder.embed(images), features_of(name, folders[name], expected)).item() > 0.9995
    other = photo(height, width, seed=2)
    assert cosine(embedder.embed(other), features_of(name, folders[name], expected)).item() < 0.995


def test_clip_reads_the_processor_configs_of_old(clip_folder, tmp_path):
    folder = copied(clip_folder, tmp_path)
    (folder / "preprocessor_config.json").write_text(
        '{"crop_size": 32, "do_center_crop": true, "do_normalize": true, "do_resize": true, "size": 32, '
        '"feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.4, 0.5, 0.6], '
        '"image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3}'
    )
    images = photo(50, 40)
    assert loaded("clip", folder).embed(images).equal(loaded("clip", clip_folder).embed(images))


def test_text_embeddings_are_those_of_each_text_alone(clip_folder):
    model = CLIPModel.from_pretrained(clip_folder)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    with torch.no_grad():
        alone = [
            model.text_projection(model.text_model(**tokenizer(text, return_tensors="pt")).pooler_output)
            for text in TEXTS
        ]
    expected = torch.cat([features / features.norm() for features in alone])
    found = loaded("clip", clip_folder).embed_text(TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert cosine(found[:1], found[1:2]).item() < 0.999


def test_a_text_that_clip_cannot_read_whole_is_cut_and_said_so(clip_folder, caplog):
    clip = loaded("clip", clip_folder)
    whole = "abc " * 7  # a letter a token: 21, and the start and the end
    found = clip.embed_text([whole + "abc " * 13, "a cat"])
    assert [record.getMessage()[:29] for record in caplog.records] == ["text cut from 62 to 24 tokens"]
    caplog.clear()
    # of the eighth word the first letter alone, not as a word's end
    ids = [0, *CLIPTokenizer.from_pretrained(clip_folder)(whole).input_ids[1:-1], 2, 1]
    model = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        expected = model.get_text_features(torch.tensor([ids])).pooler_output
    torch.testing.assert_close(found[:1], normalize(expected, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1:], clip.embed_text(["a cat"]), atol=1e-5, rtol=0)
    assert caplog.records == []


@EMBEDDERS
def test_many_images_come_out_as_each_alone_in_their_order(folders, name):
    images = torch.cat([photo(32, 40, seed) for seed in range(18)])  # more than a batch
    embedder = loaded(name, folders[name])
    alone = torch.cat([embedder.embed(image[None]) for image in images])
    torch.testing.assert_close(embedder.embed(images), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(embedder.embed(images[:2].bfloat16()), alone[:2], atol=5e-2, rtol=0)


@EMBEDDERS
def test_embedders_are_frozen_and_leave_graph_and_random_numbers_alone(folders, name):
    state = torch.get_rng_state()
    embedder = loaded(name, folders[name])
    assert torch.get_rng_state().equal(state)
    assert isinstance(embedder, {"clip": ClipEmbedder, "dinov2": DinoEmbedder}[name])
    assert not embedder._model.training
    assert not any(parameter.requires_grad for parameter in embedder._model.parameters())
    assert not embedder.embed(photo(32, 32).requires_grad_()).requires_grad


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


# LPIPS


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


# ArcFace


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
    with pytest.raises(ValueError, match="square"):
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


# what is not there


def copied(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


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


def test_the_processors_own_settings_are_followed(clip_folder, tmp_path):
    folder = copied(clip_folder, tmp_path)
    CLIPImageProcessor.from_pretrained(folder, resample=2, image_std=[1, 1, 1]).save_pretrained(folder)
    images = photo(64, 64)
    expected = pil_resized((images + 1) / 2, (32, 32), Image.Resampling.BILINEAR)
    expected -= torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    torch.testing.assert_close(loaded("clip", folder)._pixels(images), expected, atol=1e-5, rtol=0)


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

    real = encoders.snapshot_download

    def download(source, *, allow_patterns, local_files_only=False):
        asked.append(allow_patterns)
        if not local_files_only:
            if not (tmp_path / "downloaded").exists():
                raise NoConnectionError("Connection reset by peer")
            return str(tmp_path / "downloaded")
        return real(source, allow_patterns=allow_patterns, local_files_only=True)

    monkeypatch.setattr(encoders.HfApi, "model_info", model_info)
    monkeypatch.setattr(encoders, "snapshot_download", download)
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


# functions of embeddings


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
