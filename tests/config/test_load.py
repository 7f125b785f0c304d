"""utils/config, load.py and schema.py: layers, types, the reference's YAMLs, and every fault in one line."""

from pathlib import Path

import pytest

from utils.config.load import load_config, read_config, save_config
from utils.config.runs import expand_runs
from utils.config.schema import Config
from utils.errors import UserError
from utils.jobs.cli import parse_args

# In the form of the reference implementation, with every key of its two YAMLs.
REFERENCE = """
device: 1
pretrained_model_name_or_path: "some/where"
python_name: train_image
datasets_folder: data
datasets:
  - hat
  - 7000
source_folder: before
target_folder: after
config_name: mine
start_step: 2
end_step: 17
num_inference_steps: 18
guidance_scale: 3
cfg_eta: 5
noise_scales:
  - 2
train_iteration: 300
save_per_steps: 100
train_start: 2
train_count: 3
train_method: full
output_folder: "out/models/"
use_trained_lora_path: 0 # a remark
trained_lora_path: ""
use_prompts_file: 1
prompts_file:
  - prompts-other.yaml
use_random_seed: 0
output_folder_gen: "out/eval/"
prompt:
  - a cat, sitting
skips:
  - 9
start_seed_gen: 12
scales: 0,0.5,1.0
count_gen: 3
image_ids:
  - 61
  - 174
semantic_lora_path: "out/hat.pt"
semantic_cfg_scale: 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config folder with the bases `small` and `flux_dev` and the study `study`."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/small.yaml").write_text("resolution: 64\nlr: 0.01\nnum_inference_steps: 8\nskips: 4\n")
    (tmp_path / "base/flux_dev.yaml").write_text("resolution: 512\nlr: 0.002\n")
    (tmp_path / "study.yaml").write_text("base: small\ndatasets: smile\nlr: 0.02\n")
    return tmp_path


def fault(folder: Path, *overrides: str, name: str = "study") -> str:
    """The message of the `UserError`, checked to be one line."""
    with pytest.raises(UserError) as caught:
        load_config(name, overrides, folder, methods=["train_image"], train_methods=["full", "xattn"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- layers ---


def test_each_layer_wins_over_the_one_before(folder: Path) -> None:
    config = load_config("study", ["datasets=age", "rank=4"], folder)
    assert config.count_gen == Config().count_gen  # default
    assert config.resolution == 64  # base
    assert config.lr == 0.02  # study over base
    assert (config.datasets, config.rank) == (["age"], 4)  # command line over study and default


def test_the_base_comes_from_the_command_line_then_the_study_then_flux_dev(folder: Path) -> None:
    assert load_config("study", [], folder).resolution == 64
    switched = load_config("study.yaml", ["base=flux_dev"], folder)
    assert (switched.base, switched.resolution, switched.lr) == ("flux_dev", 512, 0.02)
    (folder / "bare.yaml").write_text("datasets: age\n")
    assert load_config("bare", [], folder).base == "flux_dev"


def test_the_last_step_follows_num_inference_steps_unless_given(folder: Path) -> None:
    assert load_config("study", [], folder).end_step == 7
    assert load_config("study", ["num_inference_steps=20"], folder).end_step == 19
    assert load_config("study", ["end_step=3"], folder).end_step == 3
    assert load_config("study", ["end_step=-1", "num_inference_steps=20"], folder).end_step == 19
    assert load_config("study", ["end_step=-1"], folder).end_step == 7


def test_a_reference_yaml_loads_unchanged(folder: Path) -> None:
    (folder / "reference.yaml").write_text(REFERENCE)
    config = load_config("reference", [], folder, ["train_image"], ["full"])
    assert (config.device, config.datasets, config.image_ids) == ("1", ["hat", "7000"], ["61", "174"])
    assert (config.start_step, config.end_step, config.num_inference_steps) == (2, 17, 18)
    assert (config.guidance_scale, config.cfg_eta, config.noise_scales) == (3.0, 5.0, [2.0])
    assert (config.use_trained_lora_path, config.use_prompts_file, config.use_random_seed) == (
        False,
        True,
        False,
    )
    assert (config.scales, config.skips, config.prompt) == ([0.0, 0.5, 1.0], [9], ["a cat, sitting"])
    assert (config.base, config.lr, config.semantic_cfg_scale) == ("flux_dev", 0.002, 0.5)
    names = [run.name for run in expand_runs(config)]
    assert names[0] == "hat_vtrain_image_5.0eta_2.0ns_full_mine_v2"
    assert len(names) == 2 * 3


def test_a_prompt_typed_by_hand_wins_over_the_yamls_prompts_file(folder: Path) -> None:
    (folder / "reference.yaml").write_text(REFERENCE)
    typed = load_config("reference", ["prompt=a dog"], folder)
    assert (typed.use_prompts_file, typed.prompt) == (False, ["a dog"])
    assert load_config("reference", ["prompt=a dog", "use_prompts_file=1"], folder).use_prompts_file
    assert load_config("reference", ["count_gen=1"], folder).use_prompts_file


def test_what_is_saved_is_read_back(folder: Path, tmp_path: Path) -> None:
    config = load_config("study", ["prompt=a: b, c ${x} $x #1 '", "device=0", "config_name=007"], folder)
    save_config(config, tmp_path / "run" / "config.yaml")
    assert read_config(tmp_path / "run" / "config.yaml") == config


# --- values ---


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("datasets=[smile,age]", ["smile", "age"]),
        ("datasets=smile, age", ["smile", "age"]),
        ("scales=0,0.8,1.0", [0.0, 0.8, 1.0]),
        ("scales=[0, 1]", [0.0, 1.0]),
        ("scales=-1", [-1.0]),
        ("noise_scales=3", [3.0]),
        ("skips=2,4", [2, 4]),
        ("prompt=a man, smiling: wide", ["a man, smiling: wide"]),
        ('prompt=["a, b", c]', ["a, b", "c"]),
        ("prompt=", [""]),
        ("image_ids=", []),
        ("use_random_seed=1", True),
        ("use_random_seed=0", False),
        ("use_random_seed=true", True),
        ("lr=1e-3", 1e-3),
        ("output_folder=a=b", "a=b"),
        ("config_name=1e3", "1e3"),
        ("device=cuda:1", "cuda:1"),
    ],
)
def test_values_from_the_command_line(folder: Path, override: str, value: object) -> None:
    config = load_config("study", [override], folder)
    found = getattr(config, override.split("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset=x", "unknown key 'dataset' (did you mean 'datasets'?)"),
        ("a.b=1", "unknown key 'a.b'"),
        ("lr", "expected key=value, found 'lr'"),
        ("=3", "expected key=value, found '=3'"),
        ("lr=fast", "lr: expected a number, found 'fast'"),
        ("lr=nan", "lr: expected finite numbers, found 'nan'"),
        ("lr=0", "lr: expected more than 0, found 0"),
        ("rank=1.5", "rank: expected a whole number, found 1.5"),
        ("rank=", "rank: expected a whole number, found None"),
        ("rank=???", "rank: expected a whole number, found '???'"),
        ("rank=0", "rank: expected 1 to 8192, found 0"),
        ("rank=[1", "rank: expected a YAML value, found '[1'"),
        ("resolution=0", "resolution: expected 1 to 8192, found 0"),
        ("use_random_seed=2", "use_random_seed: expected true or false (or 1 or 0), found 2"),
        ("scales=0,a", "scales: expected a list of numbers, found '0,a'"),
        ("scales=", "scales: expected at least one number, found None"),
        ("skips=[1, [2]]", "skips: expected a list of whole numbers, found [1, [2]]"),
        ("skips=9", "skips: expected 0 to 8 (num_inference_steps), found 9"),
        ("noise_scales=-1", "noise_scales: expected at least one number, none below 0, found -1"),
        ("datasets=", "datasets: expected at least one entry, each a name without / or \\, found ''"),
        ("datasets=[[a]]", "datasets: expected a list of texts, found [['a']]"),
        ("device=gpu", "device: expected auto, cpu, mps, cuda, cuda:N or N, found 'gpu'"),
        ("dtype=int8", "dtype: expected one of float32, bfloat16, found 'int8'"),
        ("resize=crop", "resize: expected one of error, stretch, center_crop, found 'crop'"),
        ("start_step=-1", "start_step: expected 0 or more, found -1"),
        ("end_step=8", "expected 0 <= start_step <= end_step <= 7 (num_inference_steps - 1), found 0 and 8"),
        (
            "start_step=8",
            "expected 0 <= start_step <= end_step <= 7 (num_inference_steps - 1), found 8 and 7",
        ),
        (
            "python_name=train_img",
            "python_name: expected one of train_image, found 'train_img' (did you mean",
        ),
        ("train_method=none", "train_method: expected one of full, xattn, found 'none'"),
        ("use_trained_lora_path=1", "trained_lora_path: expected a LoRA file"),
        ("lr_warmup_steps=500", "lr_warmup_steps: expected fewer than 500 (train_iteration), found 500"),
        ("lora_scales=1", "lora_scales: expected a list of lists of numbers, found 1"),
        ("lora_scales=[[1,a]]", "lora_scales: expected a list of lists of numbers, found [[1, 'a']]"),
        ("lora_scales=[[1],[]]", "lora_scales: expected at least one number in each list"),
        ("lora_scales=[[.nan]]", "lora_scales: expected finite numbers"),
        ("lora_skips=[0,14]", "lora_skips: expected a step for each of 1 LoRAs"),
        ("lora_scales=[[0],[1]]", "lora_scales: expected a list of scales for each of 1 LoRAs"),
        ("base=smal", "smal.yaml, found none (did you mean 'small'?); there are: flux_dev, small"),
    ],
)
def test_a_fault_names_the_key_what_was_expected_and_what_was_found(
    folder: Path, override: str, message: str
) -> None:
    assert message in fault(folder, override)


def test_all_faults_come_together_with_where_they_are(folder: Path) -> None:
    (folder / "study.yaml").write_text("base: small\nlr: fast\nrnak: 3\n")
    (folder / "base/small.yaml").write_text("seed: no\n")
    message = fault(folder, "skips=x", "foo")
    for part in (
        "study.yaml: lr: expected",
        "study.yaml: unknown key 'rnak' (did you mean 'rank'?)",
        "base/small.yaml: seed: expected a whole number, found 'no'",
        "command line: skips:",
        "command line: expected key=value, found 'foo'",
    ):
        assert part in message


# --- files ---


def test_a_missing_yaml_names_those_there_are(folder: Path) -> None:
    message = fault(folder, name="studi")
    assert "studi.yaml, found none (did you mean 'study'?); there are: study" in message


@pytest.mark.parametrize("content", ["a: [", "- a\n- b\n", "lr: 1\nlr: 2\n", "\tlr: 1"])
def test_a_file_that_is_no_mapping_of_keys_is_named(folder: Path, content: str) -> None:
    (folder / "study.yaml").write_text(content)
    assert fault(folder).startswith(f"{folder / 'study.yaml'}: expected ")


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "study.yaml").write_bytes(b"\xff\xfe\x00")
    assert fault(folder).startswith(f"{folder / 'study.yaml'}: expected YAML")


def test_a_base_may_stand_on_another(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "study.yaml").write_text("base: small\nrank: 5\n")
    (tmp_path / "base/large.yaml").write_text("rank: 3\nlr: 0.5\nalpha: 7\n")
    (tmp_path / "base/small.yaml").write_text("base: large\nrank: 4\nlr: 0.25\n")
    config = load_config("study", [], tmp_path)
    assert (config.base, config.rank, config.lr, config.alpha) == ("small", 5, 0.25, 7.0)
    (tmp_path / "base/large.yaml").write_text("base: small\n")
    with pytest.raises(UserError, match=r"expected an end, found small.yaml -> large.yaml -> small.yaml"):
        load_config("study", [], tmp_path)
    (tmp_path / "base/large.yaml").write_text("base: lrage\n")
    with pytest.raises(UserError, match=r"lrage.*did you mean"):
        load_config("study", [], tmp_path)


def test_arguments() -> None:
    args = parse_args(["--c=train_image", "rank=4", "--device", "cpu", "lr=1", "--dry-run"])
    assert (args.c, args.dry_run, args.overrides) == ("train_image", True, ["rank=4", "lr=1", "device=cpu"])
    with pytest.raises(SystemExit) as caught:
        parse_args(["rank=4"])
    assert caught.value.code == 2
