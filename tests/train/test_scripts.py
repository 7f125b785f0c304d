"""The scripts as they are typed, two steps on a miniature FLUX: files, sweeps, failures, dry runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import TRAIN, Script, command
from utils.config.load import read_config
from utils.config.runs import Run
from utils.models.adapters import adapter_names
from utils.models.base import Base
from utils.training import trainer

SCRIPTS = ("train_image_script", "gen_image_script")
RUN = "{0}_vtrain_image_4.0eta_3.0ns_full_base_v1"
STEM = "{0}_4.0eta_3.0ns_4inf_2epoch"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- the two commands ---


def test_train_then_generate(site: Path, script: Script, loads: list) -> None:
    status, out, err = script("train_image_script", "--c=mini")
    assert status == 0, err
    for dataset in ("age", "smile"):
        folder = site / "output/models/image" / dataset / RUN.format(dataset)
        stem = STEM.format(dataset)
        first = stem.replace("2epoch", "1epoch")
        written = {name for name in files(folder) if not name.startswith("tensorboard/")}
        weights = {f"{name}.{suffix}" for name in (stem, first) for suffix in ("pt", "safetensors")}
        beside = {"README.md", "config.yaml", "inputs.sha256", "losses.jsonl", "record.json"}
        beside |= {"code.sha256", "pairs.png", "saved.sha256"}
        assert written == weights | beside
        assert list(folder.glob("tensorboard/events*"))
        assert read_config(folder / "config.yaml").datasets == [dataset]
        assert len((folder / "losses.jsonl").read_text().splitlines()) == 2
    assert (len(loads), adapter_names(loads[0].transformer)) == (1, [])
    assert not {"text_encoder", "tokenizer"} & set(loads[0].parts)
    assert "2 of 2 runs done" in out
    assert out.endswith("next: python gen_image_script.py --c=mini\n")

    done = command("train_image_script", "--c=mini", cwd=site, python=("-X", "importtime"))
    assert (done.returncode, done.stdout.count("trained before, left as it is")) == (0, 2)
    assert done.stdout.endswith("next: python gen_image_script.py --c=mini\n")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "diffusers", "transformers", "peft"}

    status, out, err = script("gen_image_script", "--c=mini", "skips=[1,2]")
    assert status == 0, err
    for dataset in ("age", "smile"):
        folder = site / "output/eval/image" / dataset / RUN.format(dataset) / "2epoch_a_cat"
        images = {f"skip{skip}_scale{scale}.png" for skip in (1, 2) for scale in ("0.00", "0.50", "-1.00")}
        per_seed = {f"{seed}/{name}" for seed in (6666, 6667) for name in {*images, "prompt.txt"}}
        beside = {"6666.png", "6667.png", "record.json", "index.html", "made_with.json"}
        assert files(folder) == per_seed | beside
        assert str(folder.relative_to(site)) in out
    assert (len(loads), adapter_names(loads[1].transformer)) == (2, [])
    assert not {"text_encoder", "tokenizer"} & set(loads[1].parts)


PAIR_METHODS = {
    "train_image": ("content", "semantic"),
    "train_image_wocontent": ("semantic",),
    "train_image_wocfg": ("content", "semantic"),
    "train_image_fm": ("content", "semantic"),
    "train_image_sliders": ("positive", "negative"),
    "train_image_anchored": ("semantic",),
    "train_image_bipolar": ("positive", "negative"),
}


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_every_method_trains_two_steps_and_leaves_the_base_bit_for_bit(
    script: Script, loads: list, method: str
) -> None:
    pristine: dict[str, torch.Tensor] = {}
    train_run = trainer.train_run

    def noting(run: Run, base: Base, *rest: object) -> object:
        pristine.update({name: weight.clone() for name, weight in base.transformer.state_dict().items()})
        return train_run(run, base, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train_run", noting)
        status, _, err = script("train_image_script", "--c=mini", f"python_name={method}", "datasets=age")
    assert status == 0, err
    (log,) = Path("output/models").rglob("losses.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line.keys() == {"step", "seconds", *PAIR_METHODS[method]} for line in lines)
    (lora,) = Path("output/models").rglob("*2epoch.safetensors")
    weights = load_file(lora)
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    after = loads[-1].transformer.state_dict()
    assert after.keys() == pristine.keys()
    assert all(torch.equal(after[name], weight) for name, weight in pristine.items())


def test_a_run_of_a_sweep_is_the_run_alone(site: Path, script: Script) -> None:
    """The runs before it leave no trace in the base, in random state or in the images."""
    assert script("train_image_script", "--c=mini")[0] == 0
    assert script("gen_image_script", "--c=mini")[0] == 0
    elsewhere = ("output_folder=alone/models", "output_folder_gen=alone/eval", "datasets=smile")
    assert script("train_image_script", "--c=mini", *elsewhere)[0] == 0
    assert script("gen_image_script", "--c=mini", *elsewhere)[0] == 0
    for kind, pattern in (("models", "smile/*/*.pt"), ("eval", "smile/*/*/*/*.png")):
        for path in (site / "alone" / kind).glob(pattern):
            original = site / "output" / kind / "image" / path.relative_to(site / "alone" / kind)
            if kind == "models":
                one, other = torch.load(path), torch.load(original)
                assert all(torch.equal(one[key], other[key]) for key in one)
            else:
                assert path.read_bytes() == original.read_bytes()


def test_prompts_file_random_seeds_and_another_lora(site: Path, script: Script) -> None:
    assert script("train_image_script", "--c=mini", "datasets=age")[0] == 0
    (site / "prompts").mkdir()
    (site / "prompts/pets.yaml").write_text("- a cat\n- a dog\n- a red hill\n")
    lora = next((site / "output/models").rglob("*2epoch.pt"))
    arguments = ["use_trained_lora_path=1", f"trained_lora_path={lora}", "use_prompts_file=1"]
    arguments += ["prompts_file=pets.yaml", "use_random_seed=1", "count_gen=3", "datasets=smile", "scales=1"]
    status, out, err = script("gen_image_script", "--c=mini", *arguments)
    assert status == 0, err
    (folder,) = (site / "output/eval/image/smile" / RUN.format("smile")).glob(f"{lora.stem}_????????_pets")
    seeds = next(line for line in out.splitlines() if line.startswith("seeds: "))[7:].split(", ")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(seeds)
    prompts = {(folder / seed / "prompt.txt").read_text().strip() for seed in seeds}
    assert prompts <= {"a cat", "a dog", "a red hill"}


def test_the_shipped_study_by_the_documented_command(mini_flux: Path, tmp_path: Path) -> None:
    arguments = [
        "--c=train_image",
        "train_iteration=2",
        "resolution=32",
        "max_sequence_length=12",
        "cfg_eta=4",
    ]
    arguments += [
        f"pretrained_model_name_or_path={mini_flux}",
        f"output_folder={tmp_path}",
        "rank=2",
        "noise_scales=1",
    ]
    done = command("train_image_script", *arguments, cwd=TRAIN)
    assert done.returncode == 0, done.stderr
    name = "glasses/glasses_vtrain_image_4.0eta_1.0ns_full_base_v1/glasses_4.0eta_1.0ns_28inf_2epoch"
    assert (tmp_path / f"{name}.pt").is_file()
    assert (tmp_path / f"{name}.safetensors").is_file()


# --- what goes wrong in a run ---


def test_a_failing_run_is_reported_and_the_others_go_on(
    script: Script, monkeypatch: pytest.MonkeyPatch, loads: list
) -> None:
    status, out, err = script("train_image_script", "--c=mini")
    train_run = trainer.train_run

    def fails_on_age(run: Run, *rest: object) -> object:
        if run.dataset == "age":
            raise RuntimeError("out of luck")
        return train_run(run, *rest)

    monkeypatch.setattr(trainer, "train_run", fails_on_age)
    status, out, err = script("train_image_script", "--c=mini", "output_folder=new")
    assert status == 1
    assert "Traceback" in err
    assert err.endswith(f"failed: {RUN.format('age')}: RuntimeError: out of luck\n")
    assert "1 of 2 runs done" in out
    assert not list(Path("new/age").rglob("*.pt"))
    assert Path("new/smile", RUN.format("smile"), STEM.format("smile") + ".pt").is_file()

    lora = Path("output/models/image/age", RUN.format("age"), STEM.format("age") + ".safetensors")
    lora.write_bytes(b"no LoRA")
    status, out, err = script("gen_image_script", "--c=mini")
    assert status == 1
    assert "Traceback" not in err
    assert f"failed: {RUN.format('age')}: {lora}: expected a LoRA file" in err
    assert list(Path("output/eval/image/smile").rglob("6666.png"))
    assert script("gen_image_script", "--c=mini", "datasets=age")[0] == 2


def test_a_gif_of_the_slider_for_each_seed_and_skip(site: Path, script: Script) -> None:
    script("train_image_script", "--c=mini", "datasets=age")
    wanted = ("datasets=age", "save_gif=1", "skips=[1,2]", "count_gen=1", "width=48", "locality=1")
    assert script("gen_image_script", "--c=mini", *wanted)[0] == 0
    gifs = sorted(Path("output/eval/image").rglob("*.gif"))
    assert [path.name for path in gifs] == ["6666_skip1.gif", "6666_skip2.gif"]
    with Image.open(gifs[0]) as gif:
        assert gif.n_frames == 4  # scales -1, 0, 0.5 and back over 0
        assert gif.size == (48, 32)
    page = next(Path("output/eval/image").rglob("index.html")).read_text(encoding="utf-8")
    assert "<td>48 x 32 pixels</td>" in page


def test_two_loras_act_together_each_at_its_own_scales(site: Path, script: Script) -> None:
    assert script("train_image_script", "--c=mini", "lr=0.05")[0] == 0
    age, smile = sorted((site / "output/models").rglob("*2epoch.safetensors"))
    wanted = ("use_trained_lora_path=1", f"trained_lora_path=[{age},{smile}]", "datasets=age")
    sweep = ("lora_scales=[[0,1],[0,0.5,1]]", "skips=[1,2]", "count_gen=1", "save_gif=1")
    status, out, err = script("gen_image_script", "--c=mini", *wanted, *sweep)
    assert status == 0, err
    assert "next:" not in out  # nothing measures several at once
    (grid,) = Path("output/eval").rglob("6666.png")
    page = (grid.parent / "index.html").read_text(encoding="utf-8")
    assert "on, smile at 0.5</h2>" in page
    assert "age, slider scale" in page
    names = {path.name for path in (grid.parent / "6666").glob("*.png")}
    combinations = [(first, second) for first in (0, 1) for second in (0, 0.5, 1)]
    assert names == {f"skip{n}_scale{a:.2f}_{b:.2f}.png" for n in (1, 2) for a, b in combinations}
    assert len({(grid.parent / "6666" / name).read_bytes() for name in names if "skip1" in name}) == 6
    assert len(list(grid.parent.glob("6666_skip*_*.gif"))) == 6
    # alone, either is what it is beside the other at 0
    alone = ("use_trained_lora_path=1", f"trained_lora_path={smile}", "datasets=smile", "scales=1")
    assert script("gen_image_script", "--c=mini", *alone, "skips=1", "count_gen=1")[0] == 0
    (single,) = Path("output/eval").rglob("skip1_scale1.00.png")
    assert single.read_bytes() == (grid.parent / "6666/skip1_scale0.00_1.00.png").read_bytes()


def test_an_interrupt_ends_the_sweep(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Run] = []

    def interrupted(run: Run, *rest: object) -> None:
        calls.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train_run", interrupted)
    assert script("train_image_script", "--c=mini")[0] == 130
    assert len(calls) == 1


# --- dry runs and registries ---


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_lists_writes_nothing_and_imports_nothing_heavy(name: str, site: Path) -> None:
    before = files(site)
    done = command(name, "--c=mini", "--dry-run", cwd=site, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    trained, lora = f"output/models/image/age/{RUN}", f"{STEM}.pt"
    images = f"output/eval/image/age/{RUN}/2epoch_a_cat"
    path = f"{trained}/{lora}" if name == "train_image_script" else images
    assert "2 runs" in done.stdout
    assert path.format("age") in done.stdout
    assert files(site) == before
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported
    assert not imported & {"torch", "diffusers", "transformers", "peft", "matplotlib", "tensorboard"}


def test_a_dry_run_of_training_says_which_images_are_missing(site: Path, script: Script) -> None:
    status, out, err = script("train_image_script", "--c=mini", "datasets=nowhere", "--dry-run")
    assert (status, err) == (0, "")
    assert out.count("missing: datasets/nowhere/source: expected a folder of images, found none") == 1


def test_every_shipped_config_knows_its_method(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TRAIN)
    studies = sorted(path.stem for path in Path("config").glob("*.yaml") if not path.stem.startswith("study"))
    assert "train_image" in studies
    for study in studies:
        real, subject = study.endswith("_real"), study == "train_subject"
        names = [name.replace("image_script", "image_real_script") if real else name for name in SCRIPTS]
        for name in ("train_subject_script", "gen_image_script") if subject else names:
            status, out, err = script(name, f"--c={study}", "--dry-run", "pretrained_model_name_or_path=a/b")
            assert (status, err) == (0, "")
            assert "_base_v1" in out
