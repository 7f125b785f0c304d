"""What an edit looks like while it is learned: a grid of seeds and slider scales, for the log."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from utils.config.runs import Run
from utils.data.pixels import to_images
from utils.flow.sampling import initial_noise, sweep
from utils.generation.sweep import hold_of, velocity_for
from utils.models.base import Base, PromptEmbeds
from utils.models.velocity import Velocity
from utils.report.figures import Grid, draw_grid

_TILE = 128  # pixels
_SCALES = [0.0, 0.5, 1.0]  # where the config leaves them to a calibration that is not there yet


def sample_grid(run: Run, base: Base, adapter: str, embeds: Mapping[str, PromptEmbeds]) -> Image.Image:
    """Draw the config's count_gen seeds at its scales and its first skip, under each prompt of the training.

    Nothing random is drawn but from the seeds themselves, so training goes on as if it had not looked.

    Args:
        run: gives seeds, scales, skip and the other settings.
        base: with its VAE and the adapter.
        adapter: name of the adapter that is being trained.
        embeds: of each prompt.
    """
    config = run.config
    seeds = range(config.start_seed_gen, config.start_seed_gen + config.count_gen)
    scales = config.scales or _SCALES
    width, height = config.image_size
    shape = base.latent_shape(height, width)
    noise = initial_noise(seeds, shape).to(base.device)
    sigmas = base.sigmas(config.num_inference_steps, *shape[1:])
    rows, labels = list[list[Image.Image]](), list[str]()
    for prompt, own in embeds.items():
        model = Velocity(base, own, config.guidance_scale, config.batch_size_gen)
        latents = sweep(
            velocity_for(model, [adapter]), noise, sigmas, config.skips[0], scales, hold=hold_of(config)
        )
        columns = [to_images(base.decode_latents(latents[scale]).cpu()) for scale in scales]
        rows += [list(row) for row in zip(*columns, strict=True)]
        labels += [f"{seed} {prompt}" if len(embeds) > 1 else f"{seed}" for seed in seeds]
    return draw_grid(Grid(rows, [f"{scale:g}" for scale in scales], labels), _TILE)
