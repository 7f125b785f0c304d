"""The base model that both sides share: a pipeline's folder, or random weights of FLUX.1-dev's shape.

Speed does not depend on the values of the weights, so that none need be had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from utils.config.schema import Config
from utils.errors import UserError
from utils.machine import REPOSITORY, resolve_device, resolve_model_path
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import Base, PromptEmbeds, load_base_model
from utils.models.compiling import compile_blocks
from utils.models.families import FAMILIES
from utils.models.family import Family
from utils.models.flux1 import PARTS, Flux1
from utils.models.quantization import quantize

TINYFLUX = REPOSITORY / "tinyflux" / "weights"
LORA_STRENGTH = 0.02  # of a fresh LoRA's B: the images change, and stay images


@dataclass(frozen=True)
class Shape:
    """The sizes of a FLUX and its text encoders and VAE; FLUX.1-dev's unless said otherwise.

    Attributes:
        double_blocks, single_blocks, heads, head_size, axes: the transformer's; `axes` split a head's
            positions and add up to its size.
        t5, t5_hidden, t5_layers, t5_heads: T5-XXL's; `t5` is what the transformer sees of each token.
        clip, clip_hidden, clip_layers, clip_heads: CLIP-L's; `clip` is what it sees of the whole prompt.
        vae, vae_layers, vae_groups: channels of the VAE's four levels, layers each, groups of a norm.
    """

    double_blocks: int = 19
    single_blocks: int = 38
    heads: int = 24
    head_size: int = 128
    axes: tuple[int, int, int] = (16, 56, 56)
    t5: int = 4096
    t5_hidden: int = 10240
    t5_layers: int = 24
    t5_heads: int = 64
    clip: int = 768
    clip_hidden: int = 3072
    clip_layers: int = 12
    clip_heads: int = 12
    vae: tuple[int, int, int, int] = (128, 256, 512, 512)
    vae_layers: int = 2
    vae_groups: int = 32

    def build(self) -> FluxTransformer2DModel:
        """The transformer alone, as `build_transformer`."""
        return build_transformer(self)

    def base(self, transformer: FluxTransformer2DModel, dtype: torch.dtype) -> Base:
        """A base of the transformer alone, on the CPU."""
        return Flux1("shapes", torch.device("cpu"), dtype, parts={"transformer": transformer})

    def embeds(self, length: int, dtype: torch.dtype) -> PromptEmbeds:
        """Of one prompt of `length` tokens."""
        return PromptEmbeds(
            {
                "prompt_embeds": torch.zeros(1, length, self.t5, dtype=dtype),
                "pooled_prompt_embeds": torch.zeros(1, self.clip, dtype=dtype),
            }
        )


FLUX_DEV = Shape()


def load_base(config: Config, random_weights: bool, shape: Shape) -> Base:
    """The config's base model with all its parts, on its device and in its dtype.

    Args:
        config: gives the device, dtype and, for weights that are not random, the path.
        random_weights: whether to build `shape` in place of loading.
        shape: of a random base.

    Raises:
        UserError: for a device that is not there, or a model that is not complete, or not of FLUX.1.
    """
    presets = {preset: each for each in FAMILIES.values() for preset in each.presets}
    for preset in presets:
        if config.base.startswith(preset):
            _check_family(presets[preset])
    device, dtype = resolve_device(config.device), getattr(torch, config.dtype)
    torch.set_float32_matmul_precision("high")  # as the scripts do
    if not random_weights:
        path = resolve_model_path(config.pretrained_model_name_or_path)
        loaded = load_base_model(path, device, dtype, config.quantization)
        _check_family(loaded.family)
        parts = {name: loaded.part(name) for name in PARTS}
    else:
        pipeline = random_pipeline(shape, device, dtype)
        quantize(pipeline.transformer, config.quantization, device)
        parts = {name: getattr(pipeline, name) for name in PARTS}
    if config.compile:
        compile_blocks(parts["transformer"])
    return kept(parts, device, dtype)


def _check_family(family: Family) -> None:
    """Raise `UserError` for a family that the plain loop, which is FLUX.1's, can't be timed against."""
    if family is not Flux1.family:
        raise UserError(f"base: expected one of {Flux1.family.pipeline} to time, found {family.pipeline}")


@dataclass
class KeptFlux(Flux1):
    """A Flux whose parts wait on the CPU once they are let go: random ones could not be loaded again."""

    store: dict[str, Any] = field(default_factory=dict)

    def load(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: _moved(self.store[name], self.device) for name in names}

    def _release(self, *names: str) -> None:
        for name in names:
            _moved(self.store[name], torch.device("cpu"))
        super()._release(*names)


def _moved(part: Any, device: torch.device) -> Any:
    return part.to(device) if isinstance(part, torch.nn.Module) else part


def kept(parts: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> KeptFlux:
    """A Flux of these parts, all of them there."""
    return KeptFlux("given", device, dtype, parts=dict(parts), store=dict(parts))


def pipeline_of(base: Base) -> FluxPipeline:
    """The same parts as diffusers holds them, for the reference: all are there at once."""
    return FluxPipeline(**{name: base.part(name) for name in PARTS})


def add_random_lora(base: Base, name: str, config: Config, seed: int) -> None:
    """Add an adapter that changes the velocity a little, as a trained one does; inactive."""
    add_adapter(base.transformer, name, config.rank, config.alpha, config.train_method, seed)
    generator = torch.Generator().manual_seed(seed)
    for weight_b in adapter_parameters(base.transformer, name)[1::2]:
        weight_b.data.copy_(LORA_STRENGTH * torch.randn(weight_b.shape, generator=generator))


def random_pipeline(shape: Shape, device: torch.device, dtype: torch.dtype) -> FluxPipeline:
    """A frozen FLUX of `shape`, made on the device: a minute's loading takes seconds, and no CPU memory.

    Linears and convolutions start as their classes have them, so that activations stay finite. Tokenizers and
    scheduler are the small FLUX's; its scheduler is FLUX.1-dev's.
    """
    tokenizer, tokenizer_2 = (
        AutoTokenizer.from_pretrained(TINYFLUX / folder) for folder in ("tokenizer", "tokenizer_2")
    )
    tokenizer.model_max_length = 77  # CLIP's
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.device(device), default_dtype(dtype):
        torch.manual_seed(0)
        transformer, vae = build_transformer(shape), _build_vae(shape)
        clip = CLIPTextModel(_clip_config(shape, tokenizer.bos_token_id, tokenizer.eos_token_id))
        t5 = T5EncoderModel(_t5_config(shape))
    for part in (transformer, vae, clip, t5):
        part.requires_grad_(False).eval()
    return FluxPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(TINYFLUX / "scheduler"),
        text_encoder=clip,
        text_encoder_2=t5,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
    )


def build_transformer(shape: Shape) -> FluxTransformer2DModel:
    """The transformer alone, on torch's default device; 11,901,408,320 parameters are FLUX.1-dev's."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=shape.double_blocks,
        num_single_layers=shape.single_blocks,
        attention_head_dim=shape.head_size,
        num_attention_heads=shape.heads,
        joint_attention_dim=shape.t5,
        pooled_projection_dim=shape.clip,
        guidance_embeds=True,
        axes_dims_rope=shape.axes,
    )


def _build_vae(shape: Shape) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=shape.vae,
        layers_per_block=shape.vae_layers,
        latent_channels=16,
        norm_num_groups=shape.vae_groups,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip_config(shape: Shape, bos_token_id: int, eos_token_id: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=shape.clip,
        intermediate_size=shape.clip_hidden,
        num_hidden_layers=shape.clip_layers,
        num_attention_heads=shape.clip_heads,
        projection_dim=shape.clip,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
    )


def _t5_config(shape: Shape) -> T5Config:
    return T5Config(
        vocab_size=32128,
        d_model=shape.t5,
        d_kv=shape.t5 // shape.t5_heads,
        d_ff=shape.t5_hidden,
        num_layers=shape.t5_layers,
        num_heads=shape.t5_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, torch makes tensors of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
