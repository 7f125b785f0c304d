"""The outside networks that measurements need: CLIP, DINOv2, ArcFace and LPIPS, or why one is missing.

`load` gives a network, frozen, or an `Unavailable` that says why not. Images are (B, 3, H, W), floats in
[-1, 1], ValueError is raised for others; embeddings are (B, D), float32 on the CPU, of norm 1.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate, normalize
from torchvision.models import get_model_weights

from utils.errors import UserError, nearest
from utils.hub import (
    NOT_THERE,
    UNFIT,
    Unavailable,
    from_folder,
    load_pretrained,
    model_folder,
    onnx_session,
    reason,
)

logger = logging.getLogger(__name__)

_BATCH, _BACKBONES = 16, {"alex": "alexnet", "vgg": "vgg16"}  # images a forward pass; torchvision's names


class ClipEmbedder:
    """CLIP's projected embeddings of images and texts, in the space they share (arXiv 2103.00020)."""

    def __init__(self, source: str, device: torch.device) -> None:
        """Load a folder in transformers layout, or a hub id; raises what `load` catches."""
        folder, self._model, self._pixels = _pretrained(source, "CLIPModel", "CLIPImageProcessor", device)
        self._tokenizer = from_folder("CLIPTokenizer", folder)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (B, D) of images (B, 3, H, W)."""
        return normalize(
            _in_batches(lambda x: self._model.get_image_features(self._pixels(x)).pooler_output, images),
            dim=-1,
        )

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (T, D); a text longer than the model reads (77 tokens) is cut, with a warning."""
        limit = self._model.config.text_config.max_position_embeddings
        for text in texts:
            if (length := len(self._tokenizer(text, verbose=False).input_ids)) > limit:
                logger.warning("text cut from %d to %d tokens: %s", length, limit, text)
        settings = {"padding": True, "truncation": True, "max_length": limit, "return_tensors": "pt"}
        tokens = self._tokenizer(list(texts), **settings).to(self._model.device)
        features = self._model.get_text_features(tokens.input_ids, tokens.attention_mask)
        return normalize(features.pooler_output.cpu(), dim=-1)


class DinoEmbedder:
    """DINOv2's CLS token after the last layer and its layer norm (arXiv 2304.07193)."""

    def __init__(self, source: str, device: torch.device) -> None:
        """Load a folder in transformers layout, or a hub id; raises what `load` catches."""
        _, self._model, self._pixels = _pretrained(source, "Dinov2Model", "BitImageProcessor", device)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (B, D) of images (B, 3, H, W)."""
        return normalize(self.features(images), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """(B, D) as they are, for distances of sets (Stein et al. 2023, arXiv 2306.04675)."""
        return _in_batches(lambda x: self._model(self._pixels(x)).pooler_output, images)


class FaceEmbedder:
    """Identity by an ArcFace network (arXiv 1801.07698): the cosine of two says how alike the persons are.

    Images are taken for aligned faces, as the network was trained on: they are only resized to 112 x 112
    (bilinear, antialiased), no face is looked for. One image a pass: not every file takes more.
    """

    def __init__(self, session: Any) -> None:
        """Of an onnxruntime session that reads RGB (1, 3, 112, 112); ValueError for another input."""
        inputs = session.get_inputs()[0]
        if list(inputs.shape[1:]) != [3, 112, 112]:
            raise ValueError(f"expected a network that reads (1, 3, 112, 112), found {inputs.shape}")
        self._run = lambda faces: torch.from_numpy(session.run(None, {inputs.name: faces})[0])

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (B, D) of images (B, 3, H, H); `UserError` for others."""
        if images.ndim == 4 and images.shape[2] != images.shape[3]:
            raise UserError(
                f"arcface: expected square images of aligned faces, found {images.shape[3]} x "
                f'{images.shape[2]}; arcface_weights="" goes without'
            )
        # (x - 127.5) / 127.5 of 8 bit is in [-1, 1] as well
        faces = _in_batches(lambda x: self._run(_resized(x.cpu(), 112, "bilinear").numpy()), images, 1)
        return normalize(faces, dim=-1)


class LpipsDistance:
    """LPIPS, the learned perceptual distance (arXiv 1801.03924, weights 0.1), by "alex" or "vgg".

    d(a, b) = sum_l mean_hw sum_c w_lc (y_lc(a) - y_lc(b))^2, y_l: layers of an ImageNet network, unit over c.
    """

    def __init__(self, net: str, source: str, device: torch.device) -> None:
        """Load torchvision's state-dict file, or "torchvision" = torch.hub's cache, filled if need be."""
        fetch: Any = get_model_weights(_BACKBONES[net])["IMAGENET1K_V1"].get_state_dict
        read = partial(fetch, check_hash=True) if source == "torchvision" else partial(torch.load, source)
        state = read(map_location="cpu", weights_only=True)
        import lpips  # takes seconds, so only once there is a file

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # it draws a random backbone, overwritten below, and asks for it in torchvision's deprecated way
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self._model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # its slices keep torchvision's numbers: slice2.3.weight is features.3.weight
        keys = {name: f"features.{name.partition('.')[2]}" for name in self._model.net.state_dict()}
        if not isinstance(state, Mapping) or not state.keys() >= set(keys.values()):
            raise ValueError(f"{source}: expected the state dict of torchvision's {_BACKBONES[net]}")
        self._model.net.load_state_dict({name: state[key] for name, key in keys.items()})
        self._model.requires_grad_(False).eval().to(device)
        self._device = device

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor, resolution: int | None) -> Tensor:
        """Distance of each pair of images (B, 3, H, W): (B,), float32 on the CPU, >= 0; 0 = looks the same.

        `resolution`: None = as given, 31 px or more; else the shorter side is brought to it first (bilinear,
        antialiased, as by Pillow). Concept Sliders (arXiv 2311.12092) report "alex" at 64.
        """
        if a.shape != b.shape:
            raise ValueError(f"lpips: expected two equal shapes, found {tuple(a.shape)} and {tuple(b.shape)}")
        a, b = _checked(a).float(), _checked(b).float()
        if resolution is not None:
            a, b = _resized(a, resolution, "bilinear"), _resized(b, resolution, "bilinear")
        pairs = zip(a.split(_BATCH), b.split(_BATCH), strict=True)
        return torch.cat([self._model(*(x.to(self._device) for x in pair)).flatten().cpu() for pair in pairs])


def _face_embedder(source: str, device: torch.device) -> FaceEmbedder:
    """Of an .onnx file, on the CPU whatever the device."""
    return FaceEmbedder(onnx_session(source))


Encoder = ClipEmbedder | DinoEmbedder | FaceEmbedder | LpipsDistance
_FOLDER = "a folder in transformers layout or a hub id, such as"
_FILE = "'torchvision', which downloads it, or the file https://download.pytorch.org/models"
_ONNX = "an .onnx file such as w600k_r50.onnx of insightface's buffalo_l (non-commercial licence)"
ENCODERS: dict[str, tuple[Callable[[str, torch.device], Encoder], str]] = {
    "clip": (ClipEmbedder, f"{_FOLDER} openai/clip-vit-large-patch14"),
    "dinov2": (DinoEmbedder, f"{_FOLDER} facebook/dinov2-base"),
    "lpips_alex": (partial(LpipsDistance, "alex"), f"{_FILE}/alexnet-owt-7be5be79.pth"),
    "lpips_vgg": (partial(LpipsDistance, "vgg"), f"{_FILE}/vgg16-397923af.pth"),
    "arcface": (_face_embedder, f"{_ONNX}, and pip install onnxruntime"),
}
"""What loads each network, and what the key NAME_weights is to be set to."""


def load(name: str, source: str, device: torch.device) -> Encoder | Unavailable:
    """Network `name` with weights from `source` ("" = none), or why not; UserError if not in ENCODERS."""
    if name not in ENCODERS:
        listed = f"one of {', '.join(ENCODERS)}, found '{name}'{nearest(name, ENCODERS)}"
        raise UserError(f"encoder: expected {listed}")
    encoder, setting = ENCODERS[name]
    remedy = f"set {name}_weights to {setting}"
    if not source:
        return Unavailable(name, "no weights named", remedy)
    try:
        return encoder(source, device)
    except torch.OutOfMemoryError:  # a RuntimeError, but the weights are there
        raise
    except (*NOT_THERE, *UNFIT) as error:
        return Unavailable(name, reason(error), remedy)


def direction_similarity(source: Tensor, target: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether edits go the pairs' way: cos(mean_p(E(a'_p) - E(a_p)), E(b') - E(b)), (B,) in [-1, 1].

    StyleGAN-NADA's directional similarity (arXiv 2108.00946) with image pairs for texts: `source`, `target`
    (P, D) embed the pairs a -> a', `before`, `after` (B, D) embed images without and with the edit, b -> b'.
    0 where a difference is below 1e-6: that is rounding and goes nowhere. ValueError for other shapes.
    """
    pairs = (_matched(target, source) - source).mean(dim=0, keepdim=True)
    edits = _matched(after, before) - before
    moved = (edits.norm(dim=1) >= 1e-6) & (pairs.norm() >= 1e-6)
    return cosine(edits, pairs.repeat(len(edits), 1)).where(moved, 0)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """a.b / (|a| |b|) of each pair of embeddings (B, D): (B,) in [-1, 1]; ValueError for unequal shapes."""
    return cosine_similarity(_matched(a, b), b, dim=1)


def text_score(images_embedding: Tensor, text_embedding: Tensor) -> Tensor:
    """CLIPScore (arXiv 2104.08718, scaled as by torchmetrics) of images (B, D) with one text (D,).

    100 max(cos, 0): (B,) in [0, 100]. ValueError for other shapes.
    """
    texts = text_embedding.expand(len(images_embedding), *text_embedding.shape)
    return 100 * cosine(images_embedding, texts).clamp(min=0)


class _Preprocess:
    """A transformers image processor's resize, crop, mean and std, never rounded to 8 bit on the way."""

    def __init__(self, processor: Any, device: torch.device) -> None:
        self._crops = partial(processor, do_rescale=False, do_normalize=False, return_tensors="pt")
        self._mean = torch.tensor(processor.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(processor.image_std, device=device).view(3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        crops = self._crops((images.to(self._mean.device) + 1) / 2).pixel_values
        return (crops.clamp(0, 1) - self._mean) / self._std  # cut as 8 bit cuts what bicubic overshoots


def _resized(images: Tensor, shorter: int, mode: str) -> Tensor:
    size = [shorter * side // min(images.shape[-2:]) for side in images.shape[-2:]]  # down, as torchvision
    return interpolate(images, size, mode=mode, antialias=True)


@torch.no_grad()
def _in_batches(features: Callable[[Tensor], Tensor], images: Tensor, size: int = _BATCH) -> Tensor:
    return torch.cat([features(batch.float()).float().cpu() for batch in _checked(images).split(size)])


def _checked(images: Tensor) -> Tensor:
    right = images.ndim == 4 and images.shape[1] == 3 and images.numel() > 0 and images.is_floating_point()
    if not right or not images.abs().max() <= 1.001:  # NaN is not <=
        found = f"{images.dtype} {tuple(images.shape)}" + (f" up to {images.abs().max():g}" if right else "")
        raise ValueError(f"expected images (B, 3, H, W), floats in [-1, 1], found {found}")
    return images


def _matched(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"expected two equal shapes (B, D), found {tuple(a.shape)} and {tuple(b.shape)}")
    return a


def _pretrained(source: str, name: str, processor: str, device: torch.device) -> tuple[str, Any, Any]:
    """The folder, its transformers model `name`, frozen, and what its image processor does to images."""
    folder = model_folder(source)
    model = load_pretrained(name, folder, dtype=torch.float32).to(device)
    preprocess = _Preprocess(from_folder(processor, folder), device)
    return folder, model, preprocess
