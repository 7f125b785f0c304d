"""LoRAs that act on text encoders, too: against stock FluxPipeline, at a slider's scales, in the commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH, Script
from tests.mini_loras import block_loras, text_loras
from utils.config.schema import Config, SliderScale
from utils.data.pixels import to_images
from utils.errors import UserError
from utils.flow.sampling import initial_noise
from utils.generation.sweep import applied_loras, semantic_names, sweep_images
from utils.generation.texts import Edits, encode_under, new_words_in, with_files, without_new_words
from utils.lora.files import write_lora
from utils.lora.linear import LinearLora
from utils.lora.words import NewWord, write_words
from utils.models.adapters import adapter_names
from utils.models.base import Base, PromptEmbeds

CONFIG = Config(
    resolution=MINI_RESOLUTION,
    max_sequence_length=MINI_SEQUENCE_LENGTH,
    num_inference_steps=4,
    end_step=3,
    skips=[0],
    datasets=["glasses"],
)
PROMPT, CLIP, T5 = "a cat on the hill", "text_encoder", "text_encoder_2"


def double_blocks(base: Base) -> dict[str, LinearLora]:
    """On what stock diffusers reads of a miniature in kohya's layout, too."""
    loras = block_loras(base.transformer, ".attn.").items()
    return {name: lora for name, lora in loras if name.startswith("transformer_blocks")}


@pytest.fixture
def lora(mini_flux_loaded: Base, tmp_path: Path) -> Path:
    """The file of a LoRA on the transformer and on CLIP, both of which it changes a good deal."""
    loras = {**double_blocks(mini_flux_loaded), **text_loras(mini_flux_loaded, CLIP)}
    write_lora(tmp_path / "subject.safetensors", loras, "kohya", {})
    return tmp_path / "subject.safetensors"


def encoded(base: Base, loras: Sequence[Path], scales: Sequence[SliderScale], prompt: str) -> PromptEmbeds:
    """A prompt as `load_base` and `generate_run` have it."""
    plain = {prompt: base.encode_prompts([prompt], MINI_SEQUENCE_LENGTH)}
    under = encode_under(base, plain, MINI_SEQUENCE_LENGTH, [Edits(loras, scales, [prompt])])
    return with_files(under, semantic_names(len(loras)), loras)[prompt]


def swept(
    base: Base, loras: Sequence[Path], scales: Sequence[SliderScale], prompt: str = PROMPT, skip: int = 0
) -> dict[SliderScale, Tensor]:
    """Images of one seed at each scale."""
    embeds = encoded(base, loras, scales, prompt)
    with applied_loras(base.transformer, loras, text_apart=True):
        return sweep_images(base, embeds, [1], [skip], scales, CONFIG)[skip]


def stock(
    base: Base,
    mini_flux: Path,
    loras: Sequence[Path],
    scales: Sequence[tuple[float, ...]],
    words: Path | None = None,
    **prompts: str,
) -> list[Tensor]:
    """The images of FluxPipeline by the same noise, at scales of one number a LoRA."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(mini_flux)
    pipeline.set_progress_bar_config(disable=True)
    names = [f"lora_{number}" for number in range(len(loras))]
    for name, path in zip(names, loras, strict=True):
        pipeline.load_lora_weights(path, adapter_name=name)
    if words:
        pipeline.load_textual_inversion(words)
    noise = initial_noise([1], base.latent_shape(MINI_RESOLUTION, MINI_RESOLUTION))
    images = []
    for own in scales:
        pipeline.set_adapters(names, list(own))
        image = pipeline(
            **(prompts or {"prompt": PROMPT}),
            height=MINI_RESOLUTION,
            width=MINI_RESOLUTION,
            num_inference_steps=4,
            guidance_scale=CONFIG.guidance_scale,
            max_sequence_length=MINI_SEQUENCE_LENGTH,
            latents=pipeline._pack_latents(noise, 1, *noise.shape[1:]),
            output_type="pt",
        ).images
        images.append(image * 2 - 1)
    return images


def assert_same_image(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


def test_stock_diffusers_gives_the_same_image(mini_flux_loaded: Base, mini_flux: Path, lora: Path) -> None:
    images = swept(mini_flux_loaded, [lora], [0.0, 0.7, -1.0])
    theirs = stock(mini_flux_loaded, mini_flux, [lora], [(0.7,), (-1.0,)])
    for scale, image in zip((0.7, -1.0), theirs, strict=True):
        assert_same_image(images[scale], image)
    assert (images[0.7] - images[0.0]).abs().max() > 1e-3


def test_both_parts_act_and_scale_0_is_the_bases_own(
    mini_flux_loaded: Base, lora: Path, tmp_path: Path
) -> None:
    base = mini_flux_loaded
    write_lora(tmp_path / "half.safetensors", double_blocks(base), "kohya", {})
    whole, half = (swept(base, [path], [0.0, 1.0]) for path in (lora, tmp_path / "half.safetensors"))
    assert torch.equal(whole[0.0], half[0.0])
    alone = sweep_images(base, base.encode_prompts([PROMPT], MINI_SEQUENCE_LENGTH), [1], [0], [0.0], CONFIG)
    assert torch.equal(swept(base, [lora], [0.0])[0.0], alone[0][0.0])
    assert (whole[1.0] - half[1.0]).abs().max() > 1e-3
    assert adapter_names(base.part(CLIP)) == []


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # of stock diffusers
def test_several_act_together_with_one_on_text_alone(
    mini_flux_loaded: Base, mini_flux: Path, lora: Path, tmp_path: Path
) -> None:
    base = mini_flux_loaded
    other = tmp_path / "text.safetensors"
    write_lora(other, text_loras(base, CLIP, alphas=(2.0,)), "diffusers", {})
    images = swept(base, [lora, other], [(0.5, 1.5), (0.0, 1.5), (0.5, 0.0)])
    several = [(0.5, 1.5), (0.5, 0.0)]
    for scales, image in zip(several, stock(base, mini_flux, [lora, other], several), strict=True):
        assert_same_image(images[scales], image)
    assert (images[0.0, 1.5] - swept(base, [lora], [0.0])[0.0]).abs().max() > 1e-4
    assert adapter_names(base.transformer) == []


def test_t5_is_encoded_anew_only_where_a_lora_is_on_it(mini_flux_loaded: Base, tmp_path: Path) -> None:
    base = mini_flux_loaded
    for parts in ((CLIP,), (T5,)):
        path = tmp_path / f"{parts[0]}.safetensors"
        write_lora(path, text_loras(base, *parts), "kohya", {})
        embeds = encoded(base, [path], [1.0], PROMPT)
        (under,) = embeds.under.values()
        assert list(under.tensors) == ["prompt_embeds" if parts == (T5,) else "pooled_prompt_embeds"]


def test_new_words_in_a_lora_and_for_stock_diffusers(
    mini_flux_loaded: Base, mini_flux: Path, tmp_path: Path
) -> None:
    base = mini_flux_loaded
    rows = torch.randn(2, 20, generator=torch.Generator().manual_seed(8))
    word = NewWord("<new1>", {CLIP: rows}, "man")
    lora = tmp_path / "subject.safetensors"
    write_lora(
        lora, {**block_loras(base.transformer), **text_loras(base, CLIP)}, "diffusers", {}, words=[word]
    )
    write_words(tmp_path / "words.safetensors", [word], {})
    said = {"prompt": "a <new1> on the hill", "prompt_2": "a man on the hill"}
    images = swept(base, [lora], [0.0, 1.0], said["prompt"])
    theirs = stock(base, mini_flux, [lora], [(0.0,), (1.0,)], tmp_path / "words.safetensors", **said)
    for scale, image in zip((0.0, 1.0), theirs, strict=True):
        assert_same_image(images[scale], image)
    assert new_words_in([Edits([lora], [1.0], [])]) == ["<new1>"]
    assert without_new_words(["a <new1>, a cat"], ["<new1>"]) == ["a , a cat"]
    with pytest.raises(UserError, match=r"expected other words than .* has, found <new1>"):
        swept(base, [lora, lora], [(1.0, 1.0)])


def test_one_that_does_not_fit_ends_its_own_run_alone(
    mini_flux_loaded: Base, lora: Path, tmp_path: Path
) -> None:
    base = mini_flux_loaded
    (name, fits), *_ = text_loras(base, CLIP).items()
    write_lora(tmp_path / "bad.safetensors", {name.replace("layers.0", "layers.9"): fits}, "kohya", {})
    (tmp_path / "damaged.safetensors").write_bytes(b"no LoRA")
    bad, damaged = ([tmp_path / f"{name}.safetensors"] for name in ("bad", "damaged"))
    edits = [Edits(paths, [1.0], [PROMPT]) for paths in (bad, damaged, [lora])]
    plain = {PROMPT: base.encode_prompts([PROMPT], MINI_SEQUENCE_LENGTH)}
    embeds = encode_under(base, plain, MINI_SEQUENCE_LENGTH, edits)
    assert with_files(embeds, ["semantic"], [lora])[PROMPT].for_parts([{"semantic": 1.0}], 1)
    with pytest.raises(UserError, match=r"layers\.9.* matches no linear of the text_encoder"):
        with_files(embeds, ["semantic"], bad)[PROMPT].for_parts([{"semantic": 1.0}], 1)
    with pytest.raises(UserError, match=r"damaged\.safetensors: expected a LoRA file"):
        with_files(embeds, ["semantic"], damaged)


def test_the_commands_apply_it(site: Path, script: Script, mini_flux_loaded: Base, lora: Path) -> None:
    """Embeddings asked for and not encoded are an error, so that of a photograph its end is proof enough."""
    own = ("datasets=age", "scales=0,1", "count_gen=1", "start_seed_gen=1", "skips=1")
    status, _, err = script(
        "gen_image_script", "--c=mini", "use_trained_lora_path=1", f"trained_lora_path={lora}", *own
    )
    assert status == 0, err
    images = swept(mini_flux_loaded, [lora], [0.0, 1.0], "a cat", skip=1)
    for scale, pixels in images.items():
        (shot,) = site.rglob(f"1/skip1_scale{scale:.2f}.png")
        assert Image.open(shot).tobytes() == to_images(pixels)[0].tobytes()

    config = (site / "config/mini.yaml").read_text().replace("train_image\n", "train_image_real\n")
    (site / "config/photo.yaml").write_text(config.replace("[age, smile]", "age") + "inversion: fireflow\n")
    status, _, err = script("gen_image_real_script", "--c=photo", f"semantic_lora_path={lora}", *own)
    assert status == 0, err
