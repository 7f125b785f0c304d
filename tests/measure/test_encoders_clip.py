"""CLIP and DINOv2, in miniature and random, against an independent computation."""

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import BitImageProcessor, CLIPImageProcessor, CLIPModel, CLIPTokenizer, Dinov2Model

from tests.measure.mini_encoders import EMBEDDERS, copied, loaded, photo, pil_resized, to_pil
from utils.measure.encoders import ClipEmbedder, DinoEmbedder, cosine

TEXTS = ["an old cat", "a cat", "glasses, a beard and a hill"]


SHAPES = pytest.mark.parametrize(("height", "width"), [(100, 75), (47, 91), (32, 32), (20, 20)])


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


def test_the_processors_own_settings_are_followed(clip_folder, tmp_path):
    folder = copied(clip_folder, tmp_path)
    CLIPImageProcessor.from_pretrained(folder, resample=2, image_std=[1, 1, 1]).save_pretrained(folder)
    images = photo(64, 64)
    expected = pil_resized((images + 1) / 2, (32, 32), Image.Resampling.BILINEAR)
    expected -= torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    torch.testing.assert_close(loaded("clip", folder)._pixels(images), expected, atol=1e-5, rtol=0)
