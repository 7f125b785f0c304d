"""LoRA files with a text encoder's part, and with new words, as others' tools have them."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.strangers import case
from tests.strangers.lora import KOHYA, OUT, PEFT, A, B, close, file, given, refused, run
from utils.lora.files import read_lora, write_lora
from utils.lora.linear import LinearLora
from utils.lora.words import NewWord, read_words

CLIP = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
T5 = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
CLIP_BODY, T5_BODY = CLIP.partition(".")[2], T5.partition(".")[2]
EDIT = {f"transformer.{OUT}{PEFT[0]}": A, f"transformer.{OUT}{PEFT[1]}": B[:8]}


@case("a text encoder's part is read by sd-scripts', OneTrainer's, ComfyUI's, diffusers' and peft's names")
def names(folder: Path) -> None:
    flat = {name: name.replace(".", "_") for name in (CLIP_BODY, T5_BODY)}
    short = CLIP_BODY.removeprefix("text_model.")  # as transformers 5 calls its modules
    for name, stems in {
        CLIP: (
            *(f"{prefix}{flat[CLIP_BODY]}" for prefix in ("lora_te1_", "lora_te_", "lycoris_")),
            *(f"{prefix}{CLIP_BODY}" for prefix in ("text_encoder.", "base_model.model.", "clip_l.", "")),
            *(f"{prefix}{short}" for prefix in ("text_encoder.", "base_model.model.")),
            *(f"text_encoders.clip_l.transformer.{CLIP_BODY}", f"lora_te1_{short.replace('.', '_')}"),
        ),
        T5: (
            *(f"{prefix}{flat[T5_BODY]}" for prefix in ("lora_te3_", "lora_te2_", "lycoris_")),
            *(f"{prefix}{T5_BODY}" for prefix in ("text_encoder_2.", "base_model.model.", "t5.", "t5xxl.")),
            f"text_encoders.t5xxl.transformer.{T5_BODY}",
        ),
    }.items():
        for stem in stems:
            for a, b in (PEFT, KOHYA):
                tensors = {stem + a: A, stem + b: B, f"{stem}.alpha": torch.tensor(6.0)}
                read = read_lora(file(folder / "x", EDIT | tensors))
                assert read.loras.keys() == {OUT, name}, stem
                close(name, read.loras, 2 * B @ A)


@case("a text encoder that FLUX lacks is refused by name, and left out on request")
def strange(folder: Path) -> None:
    bodies = {
        f"lora_te2_{CLIP_BODY.replace('.', '_')}",
        "lora_te1_text_model_x",
        "text_encoder_3.layers.0.mlp.up_proj",
    }
    for stem in bodies:
        path = str(file(folder / "x", EDIT | {stem + KOHYA[0]: A, stem + KOHYA[1]: B}))
        said = refused("inspect", path)
        assert f"{stem}{KOHYA[0]} matches no linear of a text encoder" in said
        assert "--skip-text-encoder leaves it out" in said
        said = run(
            "convert", path, str(folder / "y.safetensors"), "--to", "kohya", "--skip-text-encoder", "--force"
        )
        assert "left out: 2 tensors of a text encoder" in said
        assert list(read_lora(folder / "y.safetensors").loras) == [OUT]
    twice = {
        f"{stem}{end}": each
        for stem in (CLIP, f"lora_te1_{CLIP_BODY}")
        for end, each in zip(PEFT, (A, B), strict=True)
    }
    assert "2 LoRAs" in refused("inspect", str(file(folder / "x", EDIT | twice)))


@case("alpha in the header is a text encoder's own, and peft's settings beside its file count for it")
def alphas(folder: Path) -> None:
    tensors = EDIT | {CLIP + PEFT[0]: A, CLIP + PEFT[1]: B}
    config = {
        "transformer.lora_alpha": 6,
        "text_encoder.lora_alpha": 12,
        "text_encoder.alpha_pattern": {"k_proj": 1},
    }
    read = read_lora(file(folder / "x", tensors, lora_adapter_metadata=json.dumps(config))).loras
    close(OUT, read, 2 * B[:8] @ A)
    close(CLIP, read, 4 * B @ A)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 6}')
    own = {f"base_model.model.{CLIP_BODY}{end}": each for end, each in zip(PEFT, (A, B), strict=True)}
    close(CLIP, read_lora(file(folder / "adapter_model.safetensors", own)).loras, 2 * B @ A)


def with_text(alpha: float = 1.5) -> dict[str, LinearLora]:
    return given(alpha, **{CLIP: LinearLora(A, B, alpha), T5: LinearLora(A, B[:8], alpha)})


@case(
    "convert, merge and resize carry a text encoder's part and new words along; what diffusers drops is said"
)
def carried(folder: Path) -> None:
    words = [NewWord("<new1>", {"text_encoder": torch.ones(2, 4), "text_encoder_2": torch.ones(1, 6)}, "man")]
    write_lora(folder / "x", with_text(), "diffusers", {}, words=words)
    said = run("convert", str(folder / "x"), str(folder / "k.safetensors"), "--to", "kohya")
    assert "diffusers leaves out the LoRA of T5, 1 linears" in said
    run("convert", str(folder / "k.safetensors"), str(folder / "d.safetensors"), "--to", "diffusers")
    run("merge", f"{folder}/d.safetensors:0.5", str(folder / "m.safetensors"))
    run("resize", str(folder / "d.safetensors"), str(folder / "r.safetensors"), "--rank", "3")
    for name, times in {"k": 1, "d": 1, "m": 0.5, "r": 1}.items():
        read = read_lora(folder / f"{name}.safetensors")
        close(CLIP, read.loras, 0.5 * times * B @ A)
        close(T5, read.loras, 0.5 * times * B[:8] @ A)
        assert read.words[0].spelled == "man"
        assert {part: len(rows) for part, rows in read.words[0].rows.items()} == {
            "text_encoder": 2,
            "text_encoder_2": 1,
        }
    said = run("inspect", str(folder / "m.safetensors"))
    assert "new word     <new1>: 2 of text_encoder, 1 of text_encoder_2; other encoders read man" in said
    assert "found <new1>" in refused(
        "merge", f"{folder}/d.safetensors", f"{folder}/k.safetensors", f"{folder}/n"
    )
    said = run("convert", str(folder / "x"), str(folder / "x.pt"), "--to", "reference")
    assert "2 linears are text encoders'" in said
    assert "left out: history, new_words" in said.replace("new_words, history", "history, new_words")
    close(T5, read_lora(folder / "x.pt").loras, 0.5 * B[:8] @ A)


@case("extract takes text encoders along, whichever transformers saved them, and leaves their embeddings")
def extracted(folder: Path) -> None:
    for name, change, optional in (("base", 0.0, "text_model."), ("tuned", 1.0, "")):
        for part in ("transformer", "text_encoder"):
            (folder / name / part).mkdir(parents=True)
        weights = {f"{OUT}.weight": torch.ones(8, 8) + change}
        save_file(weights, folder / name / "transformer/diffusion_pytorch_model.safetensors")
        body = CLIP_BODY.removeprefix("text_model.")
        rows = {f"{optional}embeddings.token_embedding.weight": torch.ones(3, 8) + change}
        text = {f"{optional}{body}.weight": torch.ones(24, 8) + change * B @ A, **rows}
        save_file(text, folder / name / "text_encoder/model.safetensors")
    out = folder / "e.safetensors"
    said = run("extract", str(folder / "base"), str(folder / "tuned"), str(out), "--rank", "3")
    assert "1 other parameters, as text_encoder.text_model.embeddings.token_embedding.weight" in said
    read = read_lora(out).loras
    close(OUT, read, torch.ones(8, 8))
    torch.testing.assert_close(
        read[CLIP].scale * read[CLIP].weight_b @ read[CLIP].weight_a, B @ A, atol=1e-4, rtol=1e-4
    )
    said = run("inspect", str(out), "--base", str(folder / "base"))
    assert "transformer: 16 parameters trained, 25.00% of its 64" in said
    assert re.search(r"^transformer_blocks\.\*\.attn\.to_out\.0 +1 +1 +1 +in 0 +1 +in 0$", said, re.MULTILINE)
    assert "expected a base with text_encoder" in refused(
        "inspect", str(out), "--base", str(folder / "base/transformer")
    )


@case(
    "new words are read from LoRA files and from files of their own, but not those of others' text encoders"
)
def words(folder: Path) -> None:
    rows = torch.arange(8.0).reshape(2, 4)
    for key in ("<a.b>.clip_l", "<a.b>", "<a.b>.string_to_param.*", "<a.b>.emb_params"):
        (word,) = read_lora(file(folder / "x", EDIT | {f"bundle_emb.{key}": rows})).words
        assert word.word == "<a.b>"
        assert torch.equal(word.rows["text_encoder"], rows)
    path = str(file(folder / "x", EDIT | {"bundle_emb.<a>.clip_g": rows}))
    assert "new word's embedding for no text encoder of FLUX; python -m utils.lora convert" in refused(
        "inspect", path
    )
    for name, tensors in {
        "one": {"<cat>": rows[0]},
        "mycat": {"emb_params": rows},
        "pivotal": {"clip_l": rows, "t5": torch.ones(2, 6)},
        "older": {"text_encoders_0": rows},
    }.items():
        found = read_words(file(folder / f"{name}.safetensors", tensors))
        expected = {"one": ["<cat>"], "mycat": ["mycat"]}.get(name, ["<s0>", "<s1>"])
        assert [word.word for word in found] == expected
        assert torch.equal(
            torch.cat([word.rows["text_encoder"] for word in found]), rows[: 1 if name == "one" else 2]
        )
