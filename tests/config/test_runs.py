"""utils/config/runs.py: the documented names, and the order and contents of a sweep."""

from dataclasses import replace
from pathlib import Path

import pytest

from utils.config.runs import expand_runs
from utils.config.schema import Config
from utils.errors import UserError


def test_names_and_paths_are_the_documented_ones() -> None:
    (run,) = expand_runs(Config(datasets=["pixel"], noise_scales=[3.0], cfg_eta=4.0))
    folder = Path("output/models/image/pixel/pixel_vtrain_image_4.0eta_3.0ns_full_base_v1")
    assert run.folder == folder
    assert run.reference_path() == folder / "pixel_4.0eta_3.0ns_28inf_500epoch.pt"
    assert run.weights_path() == folder / "pixel_4.0eta_3.0ns_28inf_500epoch.safetensors"
    assert run.weights_path(250).name == "pixel_4.0eta_3.0ns_28inf_250epoch.safetensors"
    assert run.config_path == folder / "config.yaml"
    assert run.log_path == folder / "losses.jsonl"
    assert run.source_folder == Path("datasets/pixel/source")
    assert run.target_folder == Path("datasets/pixel/target")
    assert run.gen_folder == Path("output/eval/image/pixel") / folder.name


def test_the_sweep_is_datasets_by_versions_by_noise_scales() -> None:
    config = Config(datasets=["age", "smile"], noise_scales=[1.0, 3.0], train_start=2, train_count=2)
    assert [(run.dataset, run.version, run.noise_scale) for run in expand_runs(config)] == [
        (dataset, version, noise)
        for dataset in ("age", "smile")
        for version in (2, 3)
        for noise in (1.0, 3.0)
    ]


def test_each_run_carries_a_config_that_is_that_run_alone() -> None:
    config = Config(datasets=["age", "smile"], noise_scales=[1.0, 3.0], train_count=2, seed=10)
    runs = expand_runs(config)
    for run in runs:
        assert expand_runs(run.config) == [run]
    assert [run.seed for run in runs[:4]] == [11, 11, 12, 12]
    assert config.datasets == ["age", "smile"]


def test_datasets_take_their_own_prompts_and_the_last_one_goes_on() -> None:
    config = Config(datasets=["a", "b", "c"], prompt=["one", "two"], prompts_file=["x.yaml"])
    assert [run.prompt for run in expand_runs(config)] == ["one", "two", "two"]
    assert {run.prompts_path for run in expand_runs(config)} == {Path("prompts/x.yaml")}


def test_the_lora_to_apply() -> None:
    (run,) = expand_runs(Config(trained_lora_path=["mine.pt"]))
    assert run.lora_paths == [run.weights_path()]
    (run,) = expand_runs(Config(trained_lora_path=["mine.pt"], use_trained_lora_path=True))
    assert run.lora_paths == [Path("mine.pt")]


def test_several_loras_sweep_every_combination_of_their_scales() -> None:
    (run,) = expand_runs(Config(scales=[0.0, 0.5]))
    assert run.slider_scales == [0.0, 0.5]
    two = Config(scales=[0.0, 0.5], use_trained_lora_path=True, trained_lora_path=["a/hat.pt", "b/wig.pt"])
    (run,) = expand_runs(two)
    assert run.slider_scales == [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)]
    (run,) = expand_runs(replace(two, lora_scales=[[0.0, 0.5, 1.0], [-1.0]]))
    assert run.slider_scales == [(0.0, -1.0), (0.5, -1.0), (1.0, -1.0)]
    assert run.seeds_folder.name == "hat_wig_610d61dd_image_of_a_person"
    assert run.image_path(7, 14, (0.5, -1.0)).name == "skip14_scale0.50_-1.00.png"
    assert run.gif_path(7, 14, (-1.0,)).name == "7_skip14_-1.00.gif"


@pytest.mark.parametrize("twice", [{"noise_scales": [1.0, 1.04]}, {"datasets": ["age", "age"]}])
def test_two_runs_may_not_share_a_folder(twice: dict[str, list[str] | list[float]]) -> None:
    with pytest.raises(UserError, match=r"expected a name for each run, found '.*' twice"):
        expand_runs(Config(**twice))


def test_names_of_images() -> None:
    (run,) = expand_runs(Config(datasets=["age"], prompt=["image of a person, smiling"]))
    folder = Path("output/eval/image/age/age_vtrain_image_4.0eta_1.0ns_full_base_v1")
    folder /= "500epoch_image_of_a_person_smiling"
    assert run.seeds_folder == folder
    assert run.image_path(6666, 14, 0.4) == folder / "6666/skip14_scale0.40.png"
    assert run.image_path(6666, 14, -1.0) == folder / "6666/skip14_scale-1.00.png"
    assert run.image_path(6666, 0, -0.0) == folder / "6666/skip0_scale0.00.png"
    assert run.image_path(6666, 14, 0.125) == folder / "6666/skip14_scale0.125.png"
    assert run.grid_path(6666) == folder / "6666.png"


def test_image_folders_tell_loras_and_prompts_apart() -> None:
    def folder(**changes) -> str:
        (run,) = expand_runs(Config(**changes))
        return run.seeds_folder.name

    assert folder(use_prompts_file=True) == "500epoch_prompts_person"
    assert (
        folder(use_trained_lora_path=True, trained_lora_path=["a/hat.pt"]) == "hat_aeba7501_image_of_a_person"
    )
    assert folder(prompt=[""]) == "500epoch"
    assert folder(prompt=["x" * 60 + "1"]) != folder(prompt=["x" * 60 + "2"])
    assert len(folder(prompt=["x" * 500])) < 80
