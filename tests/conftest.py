"""Shared fixtures: a miniature FLUX with random weights, in the standard diffusers folder layout.

Every part has the class and topology of FLUX.1-dev (8x VAE with 16 latent channels, CLIP and T5 encoders with
tokenizers of their own, double and single transformer blocks, guidance embedding, shifted Euler scheduler);
only the widths are tiny, so that a test takes milliseconds. 32 x 32 pixels: 4 x 4 latents, 4 image tokens.
And a folder to run the scripts in, as they are run in train/.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before any Hugging Face import: a test that reaches for the network is a fault in the test.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from tinyflux.pretrain import Recipe
    from utils.data.pairs import ImagePair
    from utils.models.base import Base

MINI_RESOLUTION = 32
MINI_SEQUENCE_LENGTH = 12
WORDS = "a photo of an old young smiling man woman person with glasses beard cat dog on the red blue hill"


def _mini_transformer() -> torch.nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )


def _mini_vae() -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=MINI_RESOLUTION,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        force_upcast=True,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _mini_text_parts() -> dict[str, object]:
    """CLIP and T5 encoders of a few thousand parameters, with tokenizers that know WORDS and the letters."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    letters = list("abcdefghijklmnopqrstuvwxyz,.-'0123456789")
    clip_tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(clip_tokens)}, merges=[], model_max_length=16
    )
    clip_config = CLIPTextConfig(
        vocab_size=len(clip_tokens),
        hidden_size=20,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=20,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    t5_pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    t5_pieces += [("▁" + word, -3.0) for word in dict.fromkeys(WORDS.split())]
    t5_pieces += [(letter, -6.0) for letter in letters]
    tokenizer_2 = T5Tokenizer(vocab=t5_pieces, extra_ids=0, model_max_length=MINI_SEQUENCE_LENGTH)
    t5_config = T5Config(
        vocab_size=len(t5_pieces),
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return {
        "text_encoder": CLIPTextModel(clip_config),
        "tokenizer": tokenizer,
        "text_encoder_2": T5EncoderModel(t5_config),
        "tokenizer_2": tokenizer_2,
    }


@pytest.fixture(scope="session")
def mini_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved miniature FLUX (float32). Read only: shared by every test of the session."""
    folder = tmp_path_factory.mktemp("mini_flux")
    save_mini_flux(folder)
    return folder


def save_mini_flux(folder: Path) -> None:
    """Save the miniature FLUX, the same weights every time."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                num_train_timesteps=1000,
                shift=3.0,
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=1.15,
                base_image_seq_len=256,
                max_image_seq_len=4096,
            ),
            transformer=_mini_transformer(),
            vae=_mini_vae(),
            **_mini_text_parts(),
        )
    pipeline.save_pretrained(folder)


@pytest.fixture
def mini_flux_loaded(mini_flux: Path) -> Base:
    """The miniature FLUX loaded on the CPU, fresh for each test (adapters may be added)."""
    from utils.models.base import load_base_model

    return load_base_model(str(mini_flux), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def mini_recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recipe, Path, Path]]:
    """The small FLUX's whole recipe, two steps a stage: recipe, work folder, weights. Read only."""
    from tinyflux.fit import Schedule
    from tinyflux.pretrain import Recipe, pretrain

    two = Schedule(steps=2, lr=1e-3, warmup=1)
    counts = {"faces": 6, "portraits": 5, "independent": 4, "reconstructed": 3, "vae_crop_steps": 1}
    stages = ("vae", "base", "distill", "probe")
    recipe = Recipe(
        compile=False, **counts, **dict.fromkeys(stages, two), **{f"{stage}_batch": 2 for stage in stages}
    )
    folder = tmp_path_factory.mktemp("mini_recipe")
    with torch.random.fork_rng(devices=[]):
        pretrain(recipe, folder / "work", folder / "weights", torch.device("cpu"))
    yield recipe, folder / "work", folder / "weights"
    shutil.rmtree(folder)  # half a gigabyte of checkpoints


# --- the scripts ---

TRAIN = Path(__file__).resolve().parent.parent / "train"
Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path, mini_flux: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as train/ is, now the current one: the study `mini`, its base, two datasets of two pairs."""
    write_site(tmp_path, mini_flux)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TRAIN))
    return tmp_path


def write_site(tmp_path: Path, mini_flux: Path) -> None:
    """Write what `site` has."""
    (tmp_path / "config/base").mkdir(parents=True)
    (tmp_path / "config/base/mini.yaml").write_text(
        f"pretrained_model_name_or_path: {mini_flux}\nresolution: {MINI_RESOLUTION}\ndtype: float32\n"
        f"max_sequence_length: {MINI_SEQUENCE_LENGTH}\nrank: 2\nnum_inference_steps: 4\nskips: 1\n"
    )
    (tmp_path / "config/mini.yaml").write_text(
        "base: mini\npython_name: train_image\ndevice: cpu\ndatasets: [age, smile]\nnoise_scales: 3\n"
        "train_iteration: 2\nsave_per_steps: 1\ncalibrate: 0\nscales: 0,0.5,-1\nprompt: a cat\n"
    )
    for number, dataset in enumerate(("age", "smile")):
        for side, shade in (("source", 40), ("target", 200)):
            folder = tmp_path / "datasets" / dataset / side
            folder.mkdir(parents=True)
            for stem in "01":
                Image.new("RGB", (32, 32), (shade, 90 * number, 80 * int(stem))).save(folder / f"{stem}.png")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Base]:
    """Every base model loaded during the test."""
    import utils.models.base

    loaded: list[Base] = []
    load_base_model = utils.models.base.load_base_model

    def counted(*args: object) -> Base:
        loaded.append(load_base_model(*args))
        return loaded[-1]

    monkeypatch.setattr(utils.models.base, "load_base_model", counted)
    return loaded


@pytest.fixture
def script(site: Path, capsys: pytest.CaptureFixture[str]) -> Script:
    """Call a script as its command does; gives the exit status, stdout and stderr."""
    from utils.errors import run_cli

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        main = importlib.import_module(name).main
        with pytest.raises(SystemExit) as caught:
            run_cli(lambda: main([*arguments]))
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


def command(
    name: str, *arguments: str, cwd: Path, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with options for Python itself; never on a GPU."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TRAIN.parent),
    }
    return subprocess.run(
        [sys.executable, *python, str(TRAIN / f"{name}.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def pairs() -> list[ImagePair]:
    """Two pairs of noise at the miniature's resolution."""
    from utils.data.pairs import ImagePair

    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 2, 3, MINI_RESOLUTION, MINI_RESOLUTION, generator=generator) * 2 - 1
    return [
        ImagePair(f"p{index}", source, target, Path("a"), Path("b"))
        for index, (source, target) in enumerate(pixels)
    ]
