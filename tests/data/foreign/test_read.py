"""Another trainer's file under a command line: told apart, read as a config, its dataset found through it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from utils.config.load import save_config
from utils.data.captioned import find_captioned, read_captioned
from utils.data.foreign.read import find_foreign, foreign_config, load_any, table_of, translate_file
from utils.errors import UserError
from utils.machine import REPOSITORY

HERE = Path(__file__).parent
CONFIGS = REPOSITORY / "train" / "config"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The example over a folder of two images."""
    images = tmp_path / "images"
    images.mkdir()
    for index, size in enumerate([(96, 64), (64, 64)]):
        Image.new("RGB", size, (index, 0, 0)).save(images / f"{index}.png")
        (images / f"{index}.txt").write_text("a photo of [trigger]")
    path = tmp_path / "job.yaml"
    path.write_text((HERE / "aitoolkit_flux.yaml").read_text().replace("/path/to/images/folder", str(images)))
    return path


def test_a_file_is_told_apart_by_what_it_holds(tmp_path: Path, job: Path) -> None:
    assert find_foreign(str(job), tmp_path) == job
    assert find_foreign("job", tmp_path) == job
    assert find_foreign("train_subject", CONFIGS) is None
    as_json = tmp_path / "job.json"
    as_json.write_text(json.dumps(yaml.safe_load(job.read_text())))
    assert translate_file(as_json).values["rank"] == translate_file(job).values["rank"] == 16


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (
            "a.toml",
            "[[datasets]]\nresolution = 512\n",
            "expected flags of sd-scripts, found a dataset: it goes into",
        ),
        ("a.toml", "a = [", "expected TOML, found"),
        ("a.txt", "a photo of a cat\n", "expected a command line of sd-scripts"),
        ("a.json", '{"rank": 4}', "expected ai-toolkit's job and config, found rank"),
        ("a.sh", "flux_train_network.py --x 'y", "found one with: no closing quotation"),
    ],
)
def test_what_is_no_trainers_is_refused(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        translate_file(tmp_path / name)
    assert fault in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config 'no.sh': expected a file .* found none"):
        find_foreign("no.sh", tmp_path)


def test_the_command_line_goes_before_the_file(job: Path) -> None:
    found = translate_file(job)
    config = foreign_config(found, ["lr=0.5", "resolution=128", "trigger=ohwx"], CONFIGS)
    assert (config.lr, config.resolution, config.resolutions, config.rank) == (0.5, 128, [], 16)
    assert (config.python_name, config.base, config.skips) == ("train_subject", "flux_dev", [0])
    lines = table_of(found, ["lr=0.5"])
    assert "keys as they are" in lines[0]
    assert [line for line in lines if line.endswith("; the command line goes before it")] == [
        line for line in lines if line.strip().startswith("train.lr:")
    ]


def test_another_base_brings_what_belongs_to_a_model(job: Path) -> None:
    config = foreign_config(translate_file(job), ["base=tinyflux"], CONFIGS)
    assert config.pretrained_model_name_or_path == "tinyflux/weights"
    assert (config.quantization, config.dtype) == ("none", "float32")
    assert (config.rank, config.ema_decay, config.lr) == (16, 0.99, 1e-4)


def test_a_fault_that_the_command_line_mends_is_none(job: Path) -> None:
    job.write_text(job.read_text().replace("adamw8bit", "lion").replace("black-forest-labs/FLUX.1-dev", '""'))
    found = translate_file(job)
    assert len(found.faults) == 2
    assert foreign_config(found, ["base=tinyflux", "optimizer=adamw"], CONFIGS).optimizer == "adamw"
    with pytest.raises(UserError, match="found lion"):
        foreign_config(found, ["base=tinyflux"], CONFIGS)


def test_faults_of_the_file_and_of_the_command_line_come_together(job: Path) -> None:
    job.write_text(job.read_text().replace("type: lora", "type: lokr"))
    with pytest.raises(UserError, match=r"found lokr.*; .*unknown key 'rnk'.*'rank'"):
        foreign_config(translate_file(job), ["rnk=4"], CONFIGS)


def test_a_command_takes_either(job: Path) -> None:
    config, lines = load_any(str(job), ["resolution=128", "datasets=[anna]"], CONFIGS)
    assert config.rank == 16
    assert len(lines) > 40
    gone = [line.split(":")[0].strip() for line in lines if line.endswith("the command line goes before it")]
    assert gone == ["datasets.folder_path", "datasets.resolution"]
    own, none = load_any("train_subject", [], CONFIGS)
    assert (own.python_name, none) == ("train_subject", [])


def test_its_dataset_is_found_through_it(job: Path, tmp_path: Path) -> None:
    config = foreign_config(translate_file(job), [], CONFIGS)
    path = find_captioned(Path(config.datasets_folder), config.datasets[0])
    assert path == job
    read = read_captioned(path, {"resolution": [config.resolution]}, "ohwx", resolutions=config.resolutions)
    assert [dataset.options.resolution for dataset in read.datasets] == [[512], [768], [1024]]
    assert len({dataset.place for dataset in read.datasets}) == 3
    assert all(dataset.options.bucket_no_upscale for dataset in read.datasets)
    assert [len(dataset.images) for dataset in read.datasets] == [2, 2, 2]
    elsewhere = foreign_config(translate_file(job), ["datasets=[anna]"], CONFIGS)
    assert (elsewhere.datasets_folder, elsewhere.datasets) == ("datasets", ["anna"])
    save_config(config, tmp_path / "config.yaml")


def test_a_dataset_with_a_resolution_of_its_own_comes_once(tmp_path: Path, job: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        "[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = 'images'\n"
        "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'images'\n"
    )
    read = read_captioned(own, {"resolution": [128]}, "ohwx", resolutions=[96, 128])
    assert [dataset.options.resolution for dataset in read.datasets] == [[64], [96], [128]]
