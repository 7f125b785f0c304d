"""Text sliders: the two commands of slider_text/ on a miniature FLUX, a step's draw, the shipped files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import MINI_SEQUENCE_LENGTH, Script
from tinyflux.captions import caption_words
from utils.config.load import load_config, read_config
from utils.config.runs import expand_runs
from utils.data.prompts import SliderPrompt, load_prompts, load_slider_prompts
from utils.errors import run_cli
from utils.flow.objectives import TextSlider
from utils.models.adapters import adapter_names, add_adapter
from utils.models.base import Base
from utils.models.velocity import PromptedVelocity
from utils.training.batches import TextBatches

FOLDER = Path(__file__).resolve().parents[2] / "slider_text"
SHIPPED = sorted((FOLDER / "prompts").glob("*.yaml"))
ENTRY = """
- target: person
  positive: old person
  unconditional: young person
  neutral: person
  action: enhance
  guidance_scale: 1.5
  resolution: 32
  batch_size: 2
"""
RUN = "age_vslider_text_1.5eta_3.0ns_full_base_v1"


@pytest.fixture
def slider(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Call a script of slider_text/ on the study `mini`; gives the exit status, stdout and stderr.

    By its path: train/ has a gen_image_script as well.
    """
    (site / "prompts").mkdir()
    (site / "prompts/age.yaml").write_text(ENTRY + "  attributes: [old, young]\n")
    (site / "prompts/smile.yaml").write_text(ENTRY.replace("1.5", "2"))
    monkeypatch.syspath_prepend(str(FOLDER))

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        spec = importlib.util.spec_from_file_location(f"slider_text_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        study = ("--c=mini", "python_name=slider_text", "datasets_folder=prompts", *arguments)
        with pytest.raises(SystemExit) as caught:
            run_cli(lambda: module.main(study))
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


# --- the two commands ---


def test_train_then_generate(site: Path, slider: Script, loads: list[Base]) -> None:
    status, out, err = slider("train_slider_text_script")
    assert status == 0, err
    assert "2 of 2 runs done" in out
    assert "next: python gen_image_script.py --c=mini python_name=slider_text" in out
    folder = site / "output/models/image/age" / RUN
    stem = "age_1.5eta_3.0ns_4inf_2epoch"
    assert {f"{stem}.pt", f"{stem}.safetensors", "config.yaml", "losses.jsonl"} <= {
        path.name for path in folder.iterdir()
    }
    assert read_config(folder / "config.yaml").cfg_eta == 1.5
    assert list(site.glob("output/models/image/smile/smile_vslider_text_2.0eta_*/*.safetensors"))
    assert (len(loads), adapter_names(loads[0].transformer)) == (1, [])
    assert not {"text_encoder", "tokenizer"} & set(loads[0].parts)

    status, out, err = slider("gen_image_script", "datasets=age")
    assert status == 0, err
    images = site / "output/eval/image/age" / RUN / "2epoch_a_cat"
    names = {path.name for path in images.rglob("*.png")}
    assert names == {"6666.png", "6667.png"} | {f"skip1_scale{s}.png" for s in ("0.00", "0.50", "-1.00")}


def test_dry_runs_list_the_prompt_files_eta_and_write_nothing(site: Path, slider: Script) -> None:
    for name in ("train_slider_text_script", "gen_image_script"):
        status, out, err = slider(name, "--dry-run")
        assert (status, err) == (0, "")
        assert RUN in out
        assert "smile_vslider_text_2.0eta_3.0ns_full_base_v1" in out
    assert not (site / "output").exists()


# --- what a step draws and changes ---


@pytest.fixture
def prompts(tmp_path: Path) -> list[SliderPrompt]:
    (tmp_path / "age.yaml").write_text(ENTRY + "  attributes: [cat, dog]\n")
    return load_slider_prompts(tmp_path / "age.yaml")


@pytest.fixture
def batches(site: Path, prompts: list[SliderPrompt], mini_flux_loaded: Base) -> Callable[..., TextBatches]:
    """Batches of the prompts on the miniature model, for a study with the given keys."""
    texts = {text for prompt in prompts for text in prompt.texts}
    embeds = {text: mini_flux_loaded.encode_prompts([text], MINI_SEQUENCE_LENGTH) for text in texts}

    def build(*overrides: str) -> TextBatches:
        return TextBatches(mini_flux_loaded, prompts, embeds, load_config("mini", overrides, Path("config")))

    return build


@pytest.mark.parametrize("step", [0, 1, 3])
def test_x_t_is_the_models_own_trajectory(
    step: int, batches: Callable[..., TextBatches], mini_flux_loaded: Base
) -> None:
    """Against Euler's method written out, image by image."""
    drawn = batches(f"start_step={step}", f"end_step={step}").draw(torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    target = ("cat person", "dog person")[int(torch.randint(2, (), generator=generator))]
    torch.randint(step, step + 1, (), generator=generator)
    noise = torch.randn(2, 16, 4, 4, generator=generator)
    base, embeds = mini_flux_loaded, mini_flux_loaded.encode_prompts([target], MINI_SEQUENCE_LENGTH)
    sigmas = base.sigmas(4, 4, 4)
    for image in range(2):
        x_t = noise[image : image + 1]
        for i in range(step):
            with torch.no_grad():
                x_t = x_t + (sigmas[i + 1] - sigmas[i]) * base.predict_velocity(
                    x_t, sigmas[i : i + 1], embeds, 3.5
                )
        torch.testing.assert_close(drawn.x_t[image : image + 1], x_t, rtol=1e-4, atol=1e-5)
    assert drawn.sigma.tolist() == [sigmas[step].item()] * 2
    assert drawn.eta == 1.5


def test_each_of_several_processes_takes_its_share(
    batches: Callable[..., TextBatches], monkeypatch: pytest.MonkeyPatch
) -> None:
    text_batches = batches("end_step=0")
    monkeypatch.setattr("utils.training.batches.process_count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(
            "utils.training.batches.share", lambda size, rank=rank: slice(rank * size, (rank + 1) * size)
        )
        shares.append(text_batches.draw(torch.Generator().manual_seed(5)).x_t)
    generator = torch.Generator().manual_seed(5)
    for high in (2, 1):  # the prompt, the step
        torch.randint(high, (), generator=generator)
    assert torch.equal(torch.cat(shares), torch.randn(4, 16, 4, 4, generator=generator))


def test_every_prompt_and_step_is_drawn_and_none_beyond(batches: Callable[..., TextBatches]) -> None:
    text_batches = batches("start_step=1", "end_step=2")
    generator = torch.Generator().manual_seed(0)
    drawn = [text_batches.draw(generator) for _ in range(20)]
    sigmas = text_batches.base.sigmas(4, 4, 4)
    assert {batch.sigma[0].item() for batch in drawn} == set(sigmas[1:3].tolist())
    assert {batch.target for batch in drawn} == {"cat person", "dog person"}
    assert all(batch.target == batch.start for batch in drawn)


def test_only_the_semantic_adapter_changes(
    batches: Callable[..., TextBatches], mini_flux_loaded: Base
) -> None:
    """Neither the base nor another adapter gets gradients, nor does another adapter count in x_t."""
    transformer = mini_flux_loaded.transformer
    text_batches = batches("end_step=1")
    bare = text_batches.draw(torch.Generator().manual_seed(1)).x_t
    for seed, name in enumerate(("semantic", "content")):
        add_adapter(transformer, name, 2, 1.0, "full", seed)
        for key, parameter in transformer.named_parameters():
            if f"lora_B.{name}" in key:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    batch = text_batches.draw(torch.Generator().manual_seed(1))
    assert torch.equal(batch.x_t, bare)
    model = PromptedVelocity(mini_flux_loaded, text_batches.embeds, 3.5)
    for losses in TextSlider().losses(model, batch):
        losses["semantic"].backward()
    touched = {key for key, parameter in transformer.named_parameters() if parameter.grad is not None}
    semantic = {key for key, _ in transformer.named_parameters() if ".semantic." in key}
    assert touched == semantic
    assert semantic


# --- the shipped files ---


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_prompts_are_in_known_words(path: Path) -> None:
    """And positive differs from unconditional."""
    known = {*caption_words(), ""}
    for prompt in load_slider_prompts(path):
        assert prompt.positive != prompt.unconditional
        assert {word for text in prompt.texts for word in text.split(" ")} <= known
        assert prompt.resolution == 0  # the base model's


def test_the_shipped_study_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the base models of train/, without a copy here."""
    monkeypatch.chdir(FOLDER)
    assert {path.stem for path in SHIPPED} == {"age", "smile", "glasses", "beard"}
    assert not Path("config/base").exists()
    for base in ("tinyflux", "flux_dev"):
        config = load_config("slider_text", [f"base={base}"], Path("config"), ["slider_text"])
        for run in expand_runs(config):
            assert load_slider_prompts(Path(config.datasets_folder, f"{run.dataset}.yaml"))
            assert load_prompts(run.prompts_path)


# --- bad input ---


@pytest.mark.parametrize("name", ["train_slider_text_script", "gen_image_script"])
def test_bad_input_is_one_line_before_any_model_is_loaded(
    name: str, site: Path, slider: Script, loads: list[Base]
) -> None:
    def message(*arguments: str) -> str:
        status, out, err = slider(name, *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith("error: ")
        return err

    missing = message("datasets=agee")
    assert "prompts/agee.yaml, found none (did you mean 'age'?); there are: age, smile" in missing
    assert "python_name: expected one of slider_text" in message("python_name=train_image")
    assert "cfg_eta: expected 1.5, the guidance_scale in prompts/age.yaml, found 4.0" in message("cfg_eta=4")
    path = site / "prompts/age.yaml"
    path.write_text(ENTRY.replace("neutral:", "nuetral:"))
    fault = message()
    assert "prompts/age.yaml: entry 1: unknown field 'nuetral' (did you mean 'neutral'?)" in fault
    assert "found none of neutral" in fault
    path.write_text(ENTRY + ENTRY.replace("1.5", "2.5"))
    assert "age.yaml: guidance_scale: expected the same in all entries, found 1.5, 2.5" in message()
    assert loads == []


def test_generation_names_the_command_that_trains(slider: Script) -> None:
    status, _, err = slider("gen_image_script")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "train it with: python train_slider_text_script.py --c=mini" in err


def test_an_equal_cfg_eta_is_no_contradiction(slider: Script) -> None:
    assert slider("train_slider_text_script", "datasets=age", "cfg_eta=1.5", "--dry-run")[0] == 0
