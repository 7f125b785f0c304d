"""The configs of train/config: every study loads on every base, which is the whole switch."""

from dataclasses import fields
from pathlib import Path

import pytest

from utils.config.load import load_config
from utils.config.runs import expand_runs
from utils.config.schema import Config

SHIPPED = Path(__file__).resolve().parents[2] / "train" / "config"
PLANS = {"study", "study_flux", "study_methods"}  # of study_script.py, whose tests load them
BASE_KEYS = {
    *("pretrained_model_name_or_path", "resolution", "dtype", "max_sequence_length", "rank", "alpha", "lr"),
    *("batch_size", "train_iteration", "save_per_steps", "save_total_limit", "cfg_eta", "noise_scales"),
    *("guidance_scale", "quantization", "joint_passes", "gradient_checkpointing", "batch_size_gen"),
    *("num_inference_steps", "start_step", "end_step", "skips", "lr_scheduler", "judge", "base_note"),
    *("clip_weights", "dinov2_weights", "lpips_alex_weights", "lpips_vgg_weights"),
}


@pytest.mark.parametrize("base", sorted(path.stem for path in (SHIPPED / "base").glob("*.yaml")))
@pytest.mark.parametrize("study", sorted({path.stem for path in SHIPPED.glob("*.yaml")} - PLANS))
def test_every_shipped_study_loads_on_every_base(study: str, base: str) -> None:
    config = load_config(study, [f"base={base}"], SHIPPED)
    assert config.base == base
    assert expand_runs(config)


def test_base_is_the_whole_switch() -> None:
    """The shipped study gives nothing that a base gives, so the base's values hold."""
    tiny, flux = (load_config("train_image", [f"base={base}"], SHIPPED) for base in ("tinyflux", "flux_dev"))
    assert load_config("train_image", [], SHIPPED) == tiny
    differing = {
        field.name for field in fields(Config) if getattr(tiny, field.name) != getattr(flux, field.name)
    }
    assert differing <= BASE_KEYS | {"base"}
    assert (tiny.resolution, tiny.dtype, tiny.max_sequence_length) == (128, "float32", 32)
    assert (flux.resolution, flux.dtype, flux.max_sequence_length) == (512, "bfloat16", 512)
    assert (flux.rank, flux.alpha, flux.lr, flux.train_iteration) == (16, 1.0, 2e-3, 500)
    assert (flux.cfg_eta, flux.noise_scales, flux.skips, flux.guidance_scale) == (4.0, [1.0], [14], 3.5)
    assert (flux.num_inference_steps, flux.start_step, flux.end_step) == (28, 0, 27)


def test_the_shipped_study_leaves_to_the_base_what_is_the_bases() -> None:
    keys = {
        line.split(":")[0] for line in (SHIPPED / "train_image.yaml").read_text().splitlines() if ":" in line
    }
    assert not keys & BASE_KEYS
