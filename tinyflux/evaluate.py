"""How good the small FLUX is: autoencoder, probe, prompt agreement, distribution, on held-out people.

python -m tinyflux.evaluate                                  prints the tables of tinyflux/README.md
python -m tinyflux.evaluate --grid tinyflux/samples.png      and draws the README's samples
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tinyflux.captions import EDIT_PHRASES, NAMED_ABOVE, captions, present
from tinyflux.people import ATTRIBUTES, EDITS, STYLES, YES_NO, People, sample_people
from tinyflux.probe import Probe, load_probe, truth, visible
from tinyflux.render import render
from tinyflux.seeds import DISJOINT, HELD_OUT
from utils.arguments import Parser, path_option, whole
from utils.bars import Bar
from utils.config.load import load_config
from utils.config.schema import Config
from utils.data.pixels import to_images
from utils.generation.sweep import sweep_images
from utils.machine import resolve_device
from utils.measure.metrics import frechet_distance, psnr
from utils.models.base import Base, load_base_model
from utils.report.figures import Grid, draw_grid
from utils.report.tables import markdown_table

HERE = Path(__file__).parent
PROMPTS = {
    **{
        name: f"a photo of a person {wordings[0]}"
        for name, wordings in EDIT_PHRASES.items()
        if name != "chubby"
    },
    "chubby": "a photo of a chubby person",
    "age": "a photo of an old person",
    "pixel_art": "a pixel art of a person",
    "sketch": "a sketch of a person",
}
UNNAMED = "a photo of a person"


def pixels_of(people: People) -> Tensor:
    """Renders (B, 3, 128, 128) in [-1, 1]."""
    parts = [
        {name: value[i : i + 32] for name, value in people.items()} for i in range(0, len(people["age"]), 32)
    ]
    return torch.cat([render(part) for part in parts]) * 2 - 1


def reconstructions(base: Base, pixels: Tensor) -> Tensor:
    """Through the autoencoder and back."""
    batches = Bar(pixels.split(16), desc="autoencoder", unit="step")
    return torch.cat([base.decode_latents(base.encode_images(batch)).cpu() for batch in batches])


def probe_errors(probe: Probe, people: People, images: Tensor) -> dict[str, float]:
    """Share read rightly of each yes/no attribute, mean absolute error of each continuous one.

    What the image hides (the colours of a sketch) is left out.
    """
    readings, wanted, shown = probe.read(images), truth(people), visible(people)
    errors = {}
    for name, values in wanted.items():
        keep = torch.ones(len(values), dtype=torch.bool)
        if name in ATTRIBUTES:
            keep = shown[:, ATTRIBUTES.index(name)] > 0
        read, true = readings[name][keep], values[keep]
        yes_no = name in YES_NO or name == "long_hair"
        errors[name] = ((read > 0.5) == (true > 0.5) if yes_no else (read - true).abs()).float().mean().item()
    return errors


def generate(base: Base, prompts: list[str], first_seed: int, config: Config) -> Tensor:
    """One image (B, 3, 128, 128) in [-1, 1] a prompt, seeds counted from `first_seed`."""
    embeds = base.encode_prompts(prompts, config.max_sequence_length)
    bar = Bar(total=len(prompts) * config.num_inference_steps, desc="samples", unit="step")
    seeds = range(first_seed, first_seed + len(prompts))
    with bar:
        return sweep_images(base, embeds, seeds, [0], [0.0], config, progress=bar.update)[0][0.0]


def is_present(readings: dict[str, Tensor], name: str) -> float:
    """Share of images in which an edit is there, by the threshold at which captions name it."""
    return (readings[name] > NAMED_ABOVE.get(name, 0.5)).float().mean().item()


def agreement(base: Base, probe: Probe, samples: int, config: Config) -> list[list[str]]:
    """A row an edit: found when named, found when nothing is named, rate in the training world."""
    bare = probe.read(generate(base, [UNNAMED] * 4 * samples, 0, config))
    world = sample_people(HELD_OUT[:10_000])
    rows = []
    for i, name in enumerate([*EDITS, *STYLES]):
        named = probe.read(generate(base, [PROMPTS[name]] * samples, 10_000 * (i + 1), config))
        rate = present(world, name).float().mean().item()
        shares = (is_present(named, name), is_present(bare, name), rate)
        rows.append([name, f'"{PROMPTS[name]}"', *(f"{share:.0%}" for share in shares)])
    return rows


def distribution(base: Base, probe: Probe, count: int, config: Config) -> tuple[float, float]:
    """Fréchet distance in probe features of samples and renders, and of two disjoint sets of renders."""
    people, others = sample_people(HELD_OUT[:count]), sample_people(DISJOINT[:count])
    samples = generate(base, captions(others, seed=3), 1_000_000, config)
    features = [probe.features(images).detach() for images in (samples, pixels_of(people), pixels_of(others))]
    return frechet_distance(features[0], features[1]), frechet_distance(features[2], features[1])


def sample_grid(base: Base, config: Config, path: Path) -> None:
    """Six samples of a few prompts, drawn to `path`."""
    prompts = [
        UNNAMED,
        *(PROMPTS[name] for name in ("age", "smile", "glasses", "beard", "elf_ears", "sketch")),
    ]
    images = generate(base, [prompt for prompt in prompts for _ in range(6)], 500, config)
    rows = [to_images(part) for part in images.split(6)]
    draw_grid(Grid(rows, row_labels=prompts, title="Samples of the small FLUX"), tile=128).save(path)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--weights", type=path_option, default=HERE / "weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, cuda:N or N")
    parser.add_argument(
        "--faces", type=whole(), default=1024, help="held-out people for autoencoder and probe"
    )
    parser.add_argument("--samples", type=whole(), default=64, help="images a prompt")
    parser.add_argument("--frechet", type=whole(), default=512, help="images a set for the Fréchet distance")
    parser.add_argument("--grid", type=path_option, help="also draw a grid of samples to this file")
    args = parser.parse_args()
    device = resolve_device(args.device)
    base = load_base_model(str(args.weights), device, torch.float32)
    probe = load_probe(args.weights / "probe.safetensors", device)
    config = load_config("train_image", [], HERE.parent / "train" / "config")

    people = sample_people(HELD_OUT[: args.faces])
    pixels = pixels_of(people)
    decoded = reconstructions(base, pixels)
    print(f"\nAutoencoder, {args.faces} held-out renders: PSNR {psnr(decoded, pixels).mean():.1f} dB\n")

    on_renders, on_decoded = (probe_errors(probe, people, images) for images in (pixels, decoded))
    rows = []
    for name, value in on_decoded.items():
        measure = "accuracy" if name in YES_NO or name == "long_hair" else "mean error"
        rows.append([name, measure, f"{on_renders[name]:.3f}", f"{value:.3f}"])
    print(markdown_table(["attribute", "measure", "renders", "reconstructions"], rows))
    if args.grid:
        sample_grid(base, config, args.grid)
    header = ["edit", "prompt", "found when named", f'found for "{UNNAMED}"', "rate in the world"]
    print(markdown_table(header, agreement(base, probe, args.samples, config)))
    samples, renders = distribution(base, probe, args.frechet, config)
    print(
        f"Fréchet distance in probe features, {args.frechet} images a set: "
        f"samples and renders {samples:.2f}, two disjoint sets of renders {renders:.2f}"
    )


if __name__ == "__main__":
    main()
