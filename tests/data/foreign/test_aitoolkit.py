"""ai-toolkit's keys: what each becomes, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from utils.config.keys import keys_of
from utils.config.schema import Config
from utils.data.dataset_options import TAKEN
from utils.data.findings import Findings
from utils.data.foreign.aitoolkit import translate
from utils.data.foreign.aitoolkit_dataset import DATASET
from utils.data.foreign.aitoolkit_rows import LOGGING, MODEL, NETWORK, PROCESS, SAMPLE, SAVE
from utils.data.foreign.aitoolkit_train import EMA, OPTIMIZER_PARAMS, TRAIN
from utils.data.foreign.rows import IDLE
from utils.data.foreign.translation import Translation, tell_rest

EXAMPLE = Path(__file__).with_name("aitoolkit_flux.yaml")


def job(**changes: Any) -> dict[str, Any]:
    """The example under other values, by their paths in process[0] with __ in between; None takes one out."""
    content: dict[str, Any] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    for path, value in changes.items():
        table = content["config"]["process"][0]
        *tables, name = path.split("__")
        for each in tables:
            table = table["datasets"][0] if each == "dataset" else table.setdefault(each, {})
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
    return content


def translated(**changes: Any) -> Translation:
    return translate(Path("job.yaml"), job(**changes))


def test_the_published_example_is_taken_whole() -> None:
    found = translated(trigger_word="ohwx")
    assert found.faults == []
    values = found.values
    assert (values["rank"], values["alpha"], values["train_method"]) == (16, 16.0, "blocks")
    assert (values["lr"], values["optimizer"], values["weight_decay"]) == (1e-4, "adamw8bit", 0.01)
    assert (values["train_iteration"], values["batch_size"], values["save_per_steps"]) == (2000, 1, 250)
    assert (values["timesteps"], values["train_guidance"], values["guidance_scale"]) == (
        "logit_normal",
        1.0,
        4.0,
    )
    assert (values["ema_decay"], values["max_grad_norm"]) == (0.99, 1.0)
    assert (values["quantization"], values["dtype"]) == ("fp8", "bfloat16")
    assert (values["resolutions"], values["caption_drop"]) == ([512, 768, 1024], 0.05)
    assert values["sample_prompts"] == ["a woman holding a coffee cup", "a ohwx building a log cabin"]
    (dataset,) = found.datasets(Findings())["datasets"]
    assert dataset == {
        "enable_bucket": True,
        "bucket_no_upscale": True,
        "bucket_reso_steps": 64,
        "subsets": [{"image_dir": "/path/to/images/folder", "caption_extension": ".txt"}],
    }


def test_of_every_key_that_is_given_something_is_said() -> None:
    found = translated(trigger_word="ohwx")
    tell_rest(found)
    said = {line.key.split(".")[-1] for line in found.lines}
    process = job(trigger_word="ohwx")["config"]["process"][0]
    given = {*process} - {"network", "save", "datasets", "train", "model", "sample"}
    for table in (
        process["network"],
        process["save"],
        *process["datasets"],
        process["model"],
        process["sample"],
    ):
        given |= set(table)
    given |= {*process["train"], *process["train"]["ema_config"]} - {"ema_config"}
    assert given <= said


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"train__timestep_type": "linear"}, {"timesteps": "uniform"}),
        ({"train__timestep_type": "flux_shift"}, {"timesteps": "steps", "start_step": 0}),
        ({"train__lr": None}, {"lr": 1e-6}),
        ({"train__unet_lr": 2e-4}, {"lr": 2e-4}),
        ({"train__optimizer": "AdamW"}, {"optimizer": "adamw"}),
        ({"train__optimizer": "prodigy"}, {"optimizer": "prodigy", "lr": 1.0, "weight_decay": 0.0}),
        ({"train__optimizer": "prodigy", "train__lr": 0.5}, {"lr": 0.5}),
        ({"train__optimizer_params": {"weight_decay": 1e-4}}, {"weight_decay": 1e-4}),
        ({"train__lr_scheduler": "constant_with_warmup"}, {"lr_warmup_steps": 1000}),
        ({"train__ema_config": {"use_ema": False, "ema_decay": 0.99}}, {"ema_decay": None}),
        ({"train__ema_config": {"use_ema": True}}, {"ema_decay": 0.999}),
        (
            {"train__gradient_accumulation_steps": 5, "train__batch_size": 2},
            {"train_iteration": 400, "batch_size": 10, "save_per_steps": 50},
        ),
        (
            {"train__gradient_accumulation_steps": None, "train__gradient_accumulation": 4},
            {"train_iteration": 2000, "batch_size": 4},
        ),
        (
            {"train__diff_output_preservation": True, "train__diff_output_preservation_multiplier": 0.5},
            {"prior": "base", "prior_weight": 0.5},
        ),
        ({"train__disable_sampling": True}, {"sample_per_steps": 0}),
        ({"train__cfg_scale": 3.5}, {"train_guidance": 3.5}),
        ({"network__linear": None, "network__linear_alpha": None}, {"rank": 4, "alpha": 1.0}),
        ({"network__rank": 8}, {"rank": 8}),
        ({"model__quantize": False}, {"quantization": "none"}),
        ({"model__qtype": "qint8"}, {"quantization": "int8"}),
        ({"model__is_flux": None, "model__arch": "flux:dev"}, {"quantization": "fp8"}),
        ({"save__push_to_hub": True, "save__hf_repo_id": "me/lora"}, {"push_to_hub": "me/lora"}),
        ({"dataset__resolution": 768}, {"resolution": 768, "resolutions": []}),
        ({"dataset__shuffle_tokens": True}, {"shuffle_caption": True}),
        ({"dataset__keep_tokens": 2}, {"keep_tokens": 2}),
        ({"dataset__trigger_word": "ohwx"}, {"trigger": "ohwx"}),
        ({"logging": {"use_wandb": True, "log_every": 5}}, {"report_to": "wandb", "log_every": 5}),
        (
            {"sample__prompts": None, "sample__samples": [{"prompt": "a cat", "width": 512}]},
            {"sample_prompts": ["a cat"], "prompt": ["a cat"], "width": 1024},
        ),
        ({"sample": {}}, {"sample_per_steps": 0}),
    ],
)  # fmt: skip
def test_what_a_key_becomes(changes: dict[str, Any], ours: dict[str, Any]) -> None:
    found = translated(**changes)
    assert found.faults == []
    assert {key: found.values.get(key) for key in ours} == ours


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"network__type": "lokr"}, "network.type: expected lora, found lokr: LoKr and others"),
        ({"network__linaer": 4}, "unknown key 'network.linaer' (did you mean 'linear'?)"),
        ({"network__network_kwargs": {"only_if_contains": ["attn"]}}, "network_kwargs.only_if_contains: "),
        ({"train__loss_type": "pseudo_huber"}, "train.loss_type: expected mse, found pseudo_huber: the"),
        ({"train__optimizer": "lion8bit"}, "expected one of adamw, adamw8bit, prodigy, found lion8bit"),
        ({"train__lr": "fast"}, "expected a number, found fast"),
        ({"train__timestep_type": "weighted"}, "sigmoid, linear, shift, flux_shift, found weighted"),
        ({"train__linear_timesteps": True}, "train.linear_timesteps: expected false, found true"),
        ({"train__content_or_style": "style"}, "train.content_or_style: expected balanced, found style"),
        ({"train__train_text_encoder": True}, "train.train_text_encoder: expected false, found true"),
        ({"train__noise_scheduler": None}, "expected flowmatch, found (not given), for which"),
        ({"train__noise_offset": 0.1}, "train.noise_offset: expected 0, found 0.1: the noise is"),
        ({"train__gradient_accumulation_steps": 3}, "expected a divisor of steps and save_every, found 3"),
        ({"train__lr_scheduler": "cosine"}, "expected one of constant, constant_with_warmup, found cosine"),
        ({"model__is_flux": False, "model__arch": "sdxl"}, "expected flux (or is_flux: true), found sdxl"),
        ({"model__qtype": "uint4"}, "model.qtype: expected one of qfloat8, float8, qint8, int8, found uint4"),
        ({"model__name_or_path": None}, "model.name_or_path: expected a model, found none"),
        ({"model__assistant_lora_path": "a.safetensors"}, "no LoRA helps while another is trained"),
        ({"dataset__mask_path": "masks"}, "datasets.mask_path: expected none, found masks: the loss"),
        ({"dataset__folder_path": None}, "datasets.folder_path: expected a folder of images, found none"),
        ({"dataset__captions_ext": "txt"}, "unknown key 'datasets.captions_ext'"),
        ({"trigger_word": "a", "dataset__trigger_word": "b"}, "expected one trigger word, found a, b"),
        ({"datasets": []}, "datasets: expected a list of folders, found none"),
        ({"type": "textual_inversion_trainer"}, "type: expected sd_trainer or"),
        ({"save__push_to_hub": True}, "save.hf_repo_id: expected OWNER/NAME, since"),
    ],
)  # fmt: skip
def test_what_would_be_learned_otherwise_is_refused(changes: dict[str, Any], fault: str) -> None:
    texts = [text for text, _ in translated(**changes).faults]
    assert any(fault in text for text in texts), texts
    assert all(text.startswith("job.yaml: ") for text in texts)


def test_all_faults_are_found_at_once() -> None:
    found = translated(
        network__type="lokr", train__loss_type="mae", model__name_or_path=None, dataset__flip_y=True
    )
    assert len(found.faults) == 4


def test_datasets_that_differ_keep_their_own_options() -> None:
    content = job()
    (process,) = content["config"]["process"]
    own, other = process["datasets"][0], dict(process["datasets"][0])
    other |= {"folder_path": "class", "is_reg": True, "resolution": 512, "num_repeats": 3}
    process["datasets"] = [own, other]
    found = translate(Path("job.yaml"), content)
    assert found.faults == []
    assert "resolutions" not in found.values
    tables = found.datasets(Findings())["datasets"]
    assert [table["resolution"] for table in tables] == [512, 768, 1024, 512]
    assert tables[-1]["subsets"][0]["is_reg"] is True
    assert found.values["caption_drop"] == 0.05


def test_variables_and_the_name_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", "/data")
    found = translated(dataset__folder_path="${IMAGES}/[name]")
    (dataset,) = found.datasets(Findings())["datasets"]
    assert dataset["subsets"][0]["image_dir"] == "/data/my_first_flux_lora_v1"
    (fault,) = translated(dataset__folder_path="${NOWHERE_SET}/a").faults
    assert "expected the variable NOWHERE_SET" in fault[0]


def test_rows_name_keys_that_there_are() -> None:
    tables = (DATASET, LOGGING, MODEL, NETWORK, PROCESS, SAMPLE, SAVE, EMA, OPTIMIZER_PARAMS, TRAIN)
    rows = [row for table in tables for row in table.values()]
    assert {row.ours for row in rows} - {""} <= {*keys_of(Config), *TAKEN}
    assert all(row.why for row in rows if row.fate == IDLE)
