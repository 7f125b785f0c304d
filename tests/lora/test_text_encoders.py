"""LoRAs on text encoders in files: in every format, from an adapter, as an adapter, beside a base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.lora.conftest import fill
from tests.mini_loras import assert_same, block_loras, change, text_loras
from utils.errors import UserError
from utils.flow.mixes import Mix
from utils.lora.base_weights import open_weights, parts_at
from utils.lora.files import read_lora, read_metadata, save_lora, write_lora
from utils.lora.loading import load_lora, load_text_loras, text_use
from utils.lora.shares import shares_of
from utils.models.adapters import adapter_names, adapter_parameters, add_adapter, linear_layers, use_mixes
from utils.models.base import Base
from utils.models.text_adapters import add_text_adapter

BOTH = ("text_encoder", "text_encoder_2")
KEYS = {
    "diffusers": (
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_A.weight",
        "text_encoder_2.encoder.block.0.layer.1.DenseReluDense.wi_0.lora_B.weight",
    ),
    "kohya": (
        "lora_te1_text_model_encoder_layers_1_self_attn_q_proj.lora_down.weight",
        "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0.lora_up.weight",
    ),
}
KEYS["reference"] = KEYS["kohya"]


@pytest.mark.parametrize("kind", list(KEYS))
def test_every_format_holds_both_text_encoders(mini_flux_loaded: Base, tmp_path: Path, kind: str) -> None:
    loras = {**block_loras(mini_flux_loaded.transformer, ".attn."), **text_loras(mini_flux_loaded, *BOTH)}
    path = tmp_path / "x.safetensors"
    write_lora(path, loras, kind, {})
    read = read_lora(path)
    assert read.format == kind
    if kind == "kohya":
        text = {name: lora for name, lora in loras.items() if name.startswith("text_encoder")}
        assert_same({name: read.loras[name] for name in text}, text)
    for name, lora in loras.items():
        torch.testing.assert_close(change(read.loras[name]), change(lora), atol=1e-7, rtol=1e-5)
    if kind != "reference":  # a .pt, which has no header
        assert set(KEYS[kind]) <= load_file(path).keys()
        assert read_metadata(path)["text_encoders"] == "text_encoder, text_encoder_2"
    assert text_use(path) == (True, False)


def test_one_alpha_is_lossless_in_diffusers_format(mini_flux_loaded: Base, tmp_path: Path) -> None:
    loras = text_loras(mini_flux_loaded, *BOTH, alphas=(2.0,))
    write_lora(tmp_path / "x", loras, "diffusers", {})
    assert_same(read_lora(tmp_path / "x").loras, loras)


def test_a_fresh_adapter_learns_and_is_saved_with_the_transformers(
    mini_flux_loaded: Base, tmp_path: Path
) -> None:
    base, length = mini_flux_loaded, 12
    clip = base.part("text_encoder")
    before = base.encode_prompts(["a cat"], length)["pooled_prompt_embeds"]
    add_adapter(base.transformer, "subject", 2, 2)
    add_text_adapter(base, "subject", rank=2, alpha=1, seed=3)
    with use_mixes(clip, [Mix({"subject": 1.0}, ("subject",))]):
        embeds = base.encode_prompts(["a cat"], length)
        assert torch.equal(embeds["pooled_prompt_embeds"], before)
        embeds["pooled_prompt_embeds"].sum().backward()
    weights = adapter_parameters(clip, "subject")
    assert len(weights) == 2 * 8
    assert all(weight.grad is not None for weight in weights)
    assert not embeds["prompt_embeds"].requires_grad
    assert not any(weight.requires_grad for weight in weights)

    # Saved together, and back on a base of its own.
    fill(base.transformer, "subject")
    fill(clip, "subject")
    save_lora(base.transformer, "subject", tmp_path / "x", {"step": "2"}, {"text_encoder": clip})
    assert read_metadata(tmp_path / "x").items() >= {"step": "2", "text_encoders": "text_encoder"}.items()
    with use_mixes(clip, [Mix({"subject": 0.5})]):
        expected = base.encode_prompts(["a cat"], length)["pooled_prompt_embeds"]
    assert load_text_loras({"text_encoder": clip}, tmp_path / "x", "back") == ["text_encoder"]
    with use_mixes(clip, [Mix({"back": 0.5})]):
        read = base.encode_prompts(["a cat"], length)["pooled_prompt_embeds"]
    torch.testing.assert_close(read, expected, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="expected one of text_encoder, text_encoder_2, found text_encoder_3"):
        add_text_adapter(base, "other", 2, 2, part="text_encoder_3")


def test_a_command_that_encodes_no_prompts_refuses_it(mini_flux_loaded: Base, tmp_path: Path) -> None:
    base = mini_flux_loaded
    write_lora(tmp_path / "x", text_loras(base, "text_encoder"), "kohya", {})
    with pytest.raises(
        UserError, match=r"x: expected a LoRA of the transformer alone here, found one of text_enc"
    ):
        load_lora(base.transformer, tmp_path / "x", "edit")
    assert adapter_names(base.transformer) == []


def test_one_that_does_not_fit_leaves_nothing_behind(mini_flux_loaded: Base, tmp_path: Path) -> None:
    base = mini_flux_loaded
    loras = text_loras(base, *BOTH)
    loras["text_encoder_2.encoder.block.7.layer.0.SelfAttention.q"] = loras[
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    ]
    write_lora(tmp_path / "x", loras, "diffusers", {})
    parts = {part: base.part(part) for part in BOTH}
    with pytest.raises(UserError, match=r"block\.7\.layer\.0.* matches no linear of the text_encoder_2"):
        load_text_loras(parts, tmp_path / "x", "edit")
    assert [adapter_names(part) for part in parts.values()] == [[], []]
    assert not any("lora" in name for name, _ in parts["text_encoder"].named_modules())


def test_shares_of_a_base(mini_flux_loaded: Base, mini_flux: Path) -> None:
    base = mini_flux_loaded
    loras = {**block_loras(base.transformer, "to_q"), **text_loras(base, *BOTH)}
    assert parts_at(mini_flux) == ["transformer", *BOTH]
    with open_weights(mini_flux, parts_at(mini_flux)) as weights:
        shares = shares_of(loras, weights)
        shapes = sum(len(weights[name].shape) > 0 for name in weights)
    assert shapes == sum(len(list(base.part(part).state_dict())) for part in ("transformer", BOTH[0])) + 21
    name = "text_encoder.text_model.encoder.layers.1.mlp.fc1"
    weight = linear_layers(base.part("text_encoder"))["encoder.layers.1.mlp.fc1"].weight
    assert shares[name].ratio == pytest.approx((change(loras[name]).norm() / weight.norm()).item())
    assert shares.keys() == loras.keys()
