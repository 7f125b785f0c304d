"""Slider sweeps of this framework and of plain loops, in turns on the same base.

python -m bench.sample
python -m bench.sample --base flux_dev --random-weights
python -m bench.sample inversion=lora

A sweep of a generated image and one of a photograph, each at all of its config's scales, from the prompt (and
the photograph's pixels) to pixels. The LoRAs are random: speed does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from diffusers import FluxPipeline
from torch import Tensor

from bench.bases import FLUX_DEV, Shape, add_random_lora, load_base, pipeline_of
from bench.measuring import OURS, REFERENCE, Comparison, Side, compare, now, report
from bench.options import Options, parse
from bench.reference import edit_photo as plain_edit_photo
from bench.reference import sweep_images as plain_sweep_images
from utils.config.runs import RealRun, expand_real_runs
from utils.config.schema import Config
from utils.errors import run_cli
from utils.generation.sweep import edit_photo, sweep_images
from utils.lora.calibration import UNCALIBRATED
from utils.models.adapters import remove_adapter
from utils.models.base import Base, PromptEmbeds
from utils.training.sources import Photograph

Images = dict[float, Tensor]
"""{scale: pixels (1, 3, H, W) in [-1, 1] on the CPU}"""


def main(argv: Sequence[str] | None = None, shape: Shape = FLUX_DEV) -> int:
    """Measure, write, print; 0 as the exit status. `shape` is that of random weights."""
    options = parse(argv, "bench.sample", __doc__ or "")
    config = at_scales(first_skip(options.config("train_image")))
    real_run = expand_real_runs(at_scales(first_skip(options.config("train_image_real"))))[0]
    base = load_base(config, options.random_weights, shape)
    names = ["semantic", *(["inversion"] if real_run.config.inversion == "lora" else [])]
    for seed, name in enumerate(names):
        add_random_lora(base, name, config, seed)
    try:
        compared = [compare_sweeps(base, config, options), compare_photos(base, real_run, options)]
    finally:
        for name in names:
            remove_adapter(base.transformer, name)
    report(options.out, options.command, config, base, compared)
    return 0


def first_skip(config: Config) -> Config:
    """The reference does one skip at a time."""
    return replace(config, skips=config.skips[:1])


def at_scales(config: Config) -> Config:
    """Random LoRAs have no calibration that `scales: auto` could read."""
    return replace(config, scales=config.scales or list(UNCALIBRATED))


def compare_sweeps(base: Base, config: Config, options: Options) -> Comparison:
    """A generated image over the config's scales."""
    prompt, seed = config.prompt[0], config.start_seed_gen

    def ours(embeds: PromptEmbeds) -> Images:
        return sweep_images(base, embeds, [seed], config.skips, config.scales, config)[config.skips[0]]

    def reference(pipeline: FluxPipeline) -> Images:
        return plain_sweep_images(pipeline, prompt, seed, config)

    what = f"sweep of {len(config.scales)} scales"
    return _compare(what, base, config, ours, reference, options)


def compare_photos(base: Base, run: RealRun, options: Options) -> Comparison:
    """The config's first photograph over its scales."""
    config = run.config
    prompt, seed = config.prompt[0], config.start_seed_gen

    def ours(embeds: PromptEmbeds) -> Images:
        return edit_photo(run, base, Photograph.of(run).photo, seed, embeds)[config.skips[0]]

    def reference(pipeline: FluxPipeline) -> Images:
        return plain_edit_photo(pipeline, run.photograph, prompt, seed, config)

    what = f"photograph at {len(config.scales)} scales, {config.inversion}"
    return _compare(what, base, config, ours, reference, options)


def _compare(
    what: str,
    base: Base,
    config: Config,
    ours: Callable[[PromptEmbeds], Images],
    reference: Callable[[FluxPipeline], Images],
    options: Options,
) -> Comparison:
    """Both ways to the same images. Ours encodes the prompt once, and then has no text encoders."""
    images: dict[str, Images] = {}

    def time_ours() -> float:
        base.part("text_encoder")  # moves them to the device, where the reference has them
        started = now(base.device)
        embeds = base.encode_prompts(config.prompt[:1], config.max_sequence_length)
        seconds = now(base.device) - started
        base.release_text_encoders()
        started = now(base.device)
        images[OURS] = ours(embeds)
        return seconds + now(base.device) - started

    def time_reference() -> float:
        pipeline = pipeline_of(base)
        started = now(base.device)
        images[REFERENCE] = reference(pipeline)
        return now(base.device) - started

    def agreement() -> dict[str, float]:
        apart = [(images[OURS][scale] - image).abs().max() for scale, image in images[REFERENCE].items()]
        return {"pixels in [-1, 1]": max(apart).item()}

    sides = {OURS: Side(time_ours)}
    if not options.skip_reference:
        sides[REFERENCE] = Side(time_reference)
    return compare(what, sides, options.repeats, base, agreement)


if __name__ == "__main__":
    run_cli(main)
