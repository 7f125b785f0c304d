"""The outside networks in miniature, with random weights."""

import pytest
import torch
import torchvision
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

from tests.measure.mini_encoders import loaded


def random_(kind, config):
    """A model whose random weights are large enough to set images and texts far apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = kind(config)
        for name, parameter in model.named_parameters():
            parameter.data += torch.randn(parameter.shape) * (0.1 if "norm" in name else 0.4)
    return model


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    random_(Dinov2Model, Dinov2Config(image_size=42, patch_size=14, **sizes)).save_pretrained(folder)
    size, crop = {"shortest_edge": 32}, {"height": 28, "width": 28}
    BitImageProcessor(size=size, crop_size=crop, image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def alexnet_file(tmp_path_factory):
    """The convolutions of a random AlexNet, as torchvision names them."""
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = torchvision.models.alexnet().state_dict()
    torch.save({key: value for key, value in state.items() if key.startswith("features")}, file)
    return file


@pytest.fixture(scope="session")
def lpips_alex(alexnet_file):
    return loaded("lpips_alex", alexnet_file)


@pytest.fixture
def folders(clip_folder, dino_folder):
    return {"clip": clip_folder, "dinov2": dino_folder}
