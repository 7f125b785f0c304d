"""sd-scripts' flags: what each becomes, and what is refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from utils.config.keys import keys_of
from utils.config.schema import Config
from utils.data.dataset_options import TAKEN
from utils.data.findings import Findings
from utils.data.foreign.rows import IDLE
from utils.data.foreign.sdscripts import FLAGS, translate
from utils.data.foreign.sdscripts_files import of_command, of_sections
from utils.data.foreign.sdscripts_flags import NETWORK_ARGS, OPTIMIZER_ARGS
from utils.data.foreign.translation import Translation

EPOCHS = "max_train_epochs save_every_n_epochs"
EXAMPLE = Path(__file__).with_name("sdscripts_flux.sh")


def translated(flags: str = "", without: str = "", where: Path = Path("train.sh")) -> Translation:
    """The example with other flags, and without some."""
    script, own = of_command(EXAMPLE.read_text())
    _, others = of_command(f"flux_train_network.py {flags}")
    own = {name: value for name, value in own.items() if name not in without.split()}
    return translate(where, script, own | others)


def test_the_published_example_is_taken_whole() -> None:
    found = translated()
    assert found.faults == []
    values = found.values
    assert (values["rank"], values["alpha"], values["train_method"]) == (16, 1.0, "blocks")
    assert (values["lr"], values["optimizer"], values["lr_scheduler"]) == (1e-4, "adamw8bit", "constant")
    assert (values["train_epochs"], values["save_per_epochs"], values["batch_size"]) == (10, 1, 1)
    assert (values["timesteps"], values["train_guidance"], values["max_grad_norm"]) == ("shifted", 1.0, 1.0)
    assert values["pretrained_model_name_or_path"] == "black-forest-labs/FLUX.1-dev"
    assert (values["dtype"], values["quantization"]) == ("bfloat16", "none")
    assert (values["output_folder"], values["config_name"]) == ("output", "my_flux_lora")
    said = {line.key for line in found.lines}
    assert set(of_command(EXAMPLE.read_text())[1]) <= said


def test_a_toml_of_flags_says_the_same_in_whatever_sections() -> None:
    _, flags = of_command(EXAMPLE.read_text())
    typed = {**flags, "network_dim": 16, "learning_rate": 1e-4, "max_train_epochs": 10}
    sections = {"model": {"network_dim": 16}, **{k: v for k, v in typed.items() if k != "network_dim"}}
    found = translate(Path("train.sh"), "", of_sections(sections))
    assert found.faults == []
    assert found.values == translated().values


@pytest.mark.parametrize(
    ("flags", "without", "ours"),
    [
        ("--max_train_steps 500", EPOCHS, {"train_iteration": 500, "save_per_steps": 500}),
        ("", EPOCHS, {"train_iteration": 1600}),
        ("--train_batch_size 2 --gradient_accumulation_steps 4", "", {"batch_size": 8}),
        ("--max_train_steps 900 --save_every_n_steps 300 --save_last_n_steps 600",
         EPOCHS, {"save_per_steps": 300, "save_total_limit": 2}),
        ("--save_n_epoch_ratio 5", "save_every_n_epochs", {"save_per_epochs": 2}),
        ("--lr_scheduler cosine --lr_warmup_steps 0.1 --max_train_steps 500",
         EPOCHS, {"lr_warmup_steps": 50}),
        ("--lr_scheduler cosine --lr_warmup_steps 10% --max_train_steps 500",
         EPOCHS, {"lr_warmup_steps": 50}),
        ("--unet_lr 5e-5", "", {"lr": 5e-5}),
        ("", "learning_rate network_dim network_alpha", {"lr": 2e-6, "rank": 4, "alpha": 1.0}),
        ("--network_alpha 16 --text_encoder_lr 5e-5", "network_train_unet_only", {"text_lr": 5e-5}),
        ("--network_alpha 16", "network_train_unet_only", {"text_rank": 16, "text_lr": 1e-4}),
        ("--use_8bit_adam", "optimizer_type", {"optimizer": "adamw8bit"}),
        ("--optimizer_args weight_decay=0.1 betas=0.9,0.999", "", {"weight_decay": 0.1}),
        ("--optimizer_type Prodigy --learning_rate 1", "", {"lr": 1.0, "weight_decay": 0.0}),
        ("--timestep_sampling sigmoid", "", {"timesteps": "logit_normal", "timestep_shift": None}),
        ("--timestep_sampling uniform", "", {"timesteps": "uniform"}),
        ("--timestep_sampling shift --discrete_flow_shift 3.1582", "", {"timestep_shift": 3.1582}),
        ("", "timestep_sampling", {"timesteps": "uniform", "timestep_shift": 3.0}),
        ("--weighting_scheme logit_normal", "timestep_sampling", {"timesteps": "logit_normal"}),
        ("", "guidance_scale", {"train_guidance": 3.5}),
        ("--fp8_base", "", {"quantization": "fp8"}),
        ("--t5xxl_max_token_length 256", "", {"max_sequence_length": 256}),
        ("--resolution 512 --keep_tokens 1", "", {"resolution": 512, "keep_tokens": 1}),
        ("--shuffle_caption", "", {"shuffle_caption": True}),
        ("--caption_dropout_rate 0.1 --flip_aug", "", {"caption_drop": 0.1, "flip": True}),
        ("--log_with all", "", {"report_to": "wandb"}),
        ("--huggingface_repo_id me/lora", "", {"push_to_hub": "me/lora"}),
    ],
)  # fmt: skip
def test_what_a_flag_becomes(flags: str, without: str, ours: dict[str, Any]) -> None:
    found = translated(flags, without)
    assert found.faults == []
    assert {key: found.values.get(key) for key in ours} == ours


@pytest.mark.parametrize(
    ("flags", "without", "fault"),
    [
        ("--network_module lycoris.kohya", "", "expected networks.lora_flux, found lycoris.kohya"),
        ("--network_args train_blocks=single", "", "network_args: train_blocks: expected all, found single"),
        ("--network_args img_atn_dim=4", "", "img_atn_dim' (did you mean 'img_attn_dim'?)"),
        ("--network_args loud", "", "network_args: expected key=value, found loud"),
        ("--network_alfa 4", "", "unknown key 'network_alfa' (did you mean 'network_alpha'?)"),
        ("--loss_type huber", "", "loss_type: expected l2, found huber"),
        ("", "network_train_unet_only", "network_train_unet_only: expected true, or network_alpha as"),
        ("", "model_prediction_type", "found (not given), for which sd-scripts has sigma_scaled"),
        ("--guidance_scale 0", "", "guidance_scale: expected more than 0"),
        ("--optimizer_type Lion", "", "optimizer_type: expected one of"),
        ("--optimizer_args betas=0.5,0.9", "", "optimizer_args: betas: expected 0.9,0.999"),
        ("--lr_warmup_steps 10", "", "lr_warmup_steps: expected 0 with lr_scheduler constant, found 10"),
        ("--lr_scheduler cosine --lr_warmup_steps 0.1", "", "expected a number of steps, since"),
        ("--lr_scheduler polynomial", "", "lr_scheduler: expected one of constant, linear"),
        ("--timestep_sampling sigmoid --sigmoid_scale 2", "", "sigmoid_scale: expected 1, found 2"),
        ("--weighting_scheme mode", "timestep_sampling", "weighting_scheme: expected one of uniform, none"),
        ("--random_crop", "", "random_crop: expected false, found true: images are encoded once"),
        ("--pretrained_model_name_or_path own.safetensors", "", "expected a folder in diffusers layout"),
        ("--network_dim many", "", "network_dim: expected a whole number, found 'many'"),
        ("--config_file other.toml", "", "config_file: expected none, found other.toml: give --c that file"),
        ("", "dataset_config", "train_data_dir: expected it, in_json or dataset_config, found none of them"),
        ("--sample_prompts nowhere.txt", "", "sample_prompts: "),
        ("--save_every_n_steps 5", "", "expected it or save_every_n_steps, found both, 1 and 5"),
    ],
)  # fmt: skip
def test_what_would_be_learned_otherwise_is_refused(flags: str, without: str, fault: str) -> None:
    texts = [text for text, _ in translated(flags, without).faults]
    assert any(fault in text for text in texts), texts


@pytest.mark.parametrize(
    ("flags", "key", "why"),
    [
        ("--max_train_epochs 20 --save_every_n_epochs 200", "save_every_n_epochs", "20 epochs: nothing"),
        ("--prior_loss_weight 0.5", "prior_loss_weight", "takes none beside metadata_file"),
        ("--noise_offset 0.1", "noise_offset", "training of FLUX takes no notice of it either"),
        ("--min_snr_gamma 5", "min_snr_gamma", "training of FLUX takes no notice of it either"),
        ("--discrete_flow_shift 3", "discrete_flow_shift", "with timestep_sampling flux_shift"),
        ("--sample_every_n_steps 10", "sample_every_n_steps", "there are no sample_prompts"),
    ],
)  # fmt: skip
def test_what_does_nothing_is_said(tmp_path: Path, flags: str, key: str, why: str) -> None:
    (tmp_path / "dataset.toml").write_text(
        "[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'meta.json'\n"
    )
    found = translated(flags, where=tmp_path / "train.sh")
    assert found.faults == []
    (line,) = (line for line in found.lines if line.key == key)
    assert line.fate == IDLE
    assert why in line.why


def test_flags_go_under_a_dataset_toml(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.toml").write_text(
        "[general]\nenable_bucket = false\n[[datasets]]\nbatch_size = 2\n"
        "[[datasets.subsets]]\nimage_dir = 'images'\nis_reg = true\n"
    )
    flags = "--enable_bucket --min_bucket_reso 320 --gradient_accumulation_steps 3 --prior_loss_weight 0.5"
    found = translated(flags, where=tmp_path / "train.sh")
    assert found.faults == []
    assert found.values["prior_weight"] == 0.5
    content = found.datasets(Findings())
    assert content["general"] == {"enable_bucket": False, "min_bucket_reso": 320}
    assert content["datasets"][0]["batch_size"] == 6
    assert content["datasets"][0]["subsets"][0]["image_dir"] == str(tmp_path / "images")


def test_folders_with_repeats_in_their_names_are_subsets(tmp_path: Path) -> None:
    for name in ("images/10_ohwx man", "images/notes", "class/1_man"):
        (tmp_path / name).mkdir(parents=True)
    flags = "--train_data_dir images --reg_data_dir class"
    found = translated(flags, "dataset_config", where=tmp_path / "train.sh")
    findings = Findings()
    content = found.datasets(findings)
    assert content["datasets"][0]["subsets"] == [
        {
            "image_dir": str(tmp_path / "images" / "10_ohwx man"),
            "num_repeats": 10,
            "is_reg": False,
            "class_tokens": "ohwx man",
        },
        {
            "image_dir": str(tmp_path / "class" / "1_man"),
            "num_repeats": 1,
            "is_reg": True,
            "class_tokens": "man",
        },
    ]
    assert "left out, as its name does not begin with repeats" in findings.notes[0]


def test_prompts_are_read_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat --w 512 --n ugly\na dog\n")
    found = translated("--sample_prompts p.txt --sample_every_n_steps 50", where=tmp_path / "train.sh")
    assert found.faults == []
    assert found.values["sample_prompts"] == ["a cat", "a dog"]
    assert found.values["sample_per_steps"] == 50


@pytest.mark.parametrize(
    "text",
    [
        "accelerate launch --num_processes 2 ./sd/flux_train_network.py --a=1 --b --c x y",
        "cd sd\n# flux_train_network.py --z 1\nflux_train_network.py \\\n --a 1 \\\n --b --c 'x' y\nls --d",
        "python flux_train_network.py ^\r\n --a 1 ^\r\n --b --c x y",
        "python flux_train_network.py `\n --a 1 `\n --b --c x y",
    ],
)
def test_a_command_line_in_whatever_shell(text: str) -> None:
    assert of_command(text) == ("flux_train_network.py", {"a": "1", "b": True, "c": ["x", "y"]})


def test_quotes_that_do_not_close_and_other_scripts() -> None:
    with pytest.raises(ValueError, match="found one with: no closing quotation"):
        of_command("flux_train_network.py --a 'x")
    script, flags = of_command("python sdxl_train_network.py --network_dim 4")
    (fault, *_) = translate(Path("a.sh"), script, flags).faults
    assert "expected flags of flux_train_network.py, found those of sdxl_train_network.py" in fault[0]


def test_secrets_are_never_said() -> None:
    found = translated(f"--wandb_api_key {shlex.quote('top secret')} --huggingface_token hf_1")
    assert not any("secret" in line.value or "hf_1" in line.value for line in found.lines)


def test_rows_name_keys_that_there_are() -> None:
    rows = [row for table in (FLAGS, NETWORK_ARGS, OPTIMIZER_ARGS) for row in table.values()]
    assert {row.ours for row in rows} - {""} <= {*keys_of(Config), *TAKEN}
    assert all(row.why for row in rows if row.fate == IDLE)
