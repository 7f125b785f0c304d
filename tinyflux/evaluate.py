"""How good the small FLUX is: autoencoder, probe, prompts followed, eyes, distribution, on held-out people.

python -m tinyflux.evaluate        prints the tables of tinyflux/README.md; its samples are drawn by
                                   --grid tinyflux/samples.png --unpicked tinyflux/unpicked.png
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tinyflux.captions import captions
from tinyflux.eyes import share_agreeing
from tinyflux.followed import PROMPTS, UNNAMED, edits_followed, generate, words_followed
from tinyflux.people import ATTRIBUTES, YES_NO, People, sample_people
from tinyflux.probe import Probe, load_probe, truth, visible
from tinyflux.render import render
from tinyflux.seeds import DISJOINT, HELD_OUT
from utils.arguments import Parser, path_option, whole
from utils.bars import Bar
from utils.config.load import load_config
from utils.config.schema import Config
from utils.data.pixels import to_images
from utils.machine import resolve_device
from utils.measure.metrics import frechet_distance, psnr
from utils.models.base import Base, load_base_model
from utils.report.figures import Grid, draw_grid
from utils.report.tables import markdown_table

HERE = Path(__file__).parent
PLAIN = (UNNAMED, "a photo of a man", "a photo of a woman")
"""Prompts that name no detail, for looking at whole faces."""


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


def eyes_agreeing(base: Base, probe: Probe, count: int, config: Config) -> tuple[float, float]:
    """The share of faces whose two eyes agree: of samples of plain prompts, and of renders as decoded."""
    prompts = [PLAIN[i % len(PLAIN)] for i in range(count)]
    samples = generate(base, prompts, 2_000_000, config)
    renders = reconstructions(base, pixels_of(sample_people(DISJOINT[:count])))
    return share_agreeing(probe, samples), share_agreeing(probe, renders)


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


def unpicked_grid(base: Base, config: Config, path: Path) -> None:
    """The first 64 seeds of a plain prompt, none left out, drawn to `path`."""
    images = to_images(generate(base, [UNNAMED] * 64, 0, config))
    rows = [images[i : i + 8] for i in range(0, 64, 8)]
    draw_grid(Grid(rows, title=f'"{UNNAMED}", seeds 0 to 63'), tile=128).save(path)


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
    parser.add_argument("--eyes", type=whole(), default=256, help="images a set whose eyes are looked at")
    parser.add_argument("--grid", type=path_option, help="also draw samples of a few prompts to this file")
    parser.add_argument("--unpicked", type=path_option, help="also draw 64 seeds of one prompt to this file")
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
    if args.unpicked:
        unpicked_grid(base, config, args.unpicked)

    header = ["edit", "prompt", "found when named", f'found for "{UNNAMED}"', "rate in the world"]
    print(markdown_table(header, edits_followed(base, probe, args.samples, config)))
    header = ["attribute", "prompt", "means", "mean reading", "within a third of the range"]
    print(markdown_table(header, words_followed(base, probe, args.samples, config)))
    of_samples, of_renders = eyes_agreeing(base, probe, args.eyes, config)
    print(
        f"Two eyes that agree, {args.eyes} images a set: "
        f"{of_samples:.1%} of samples, {of_renders:.1%} of decoded renders\n"
    )
    samples, renders = distribution(base, probe, args.frechet, config)
    print(
        f"Fréchet distance in probe features, {args.frechet} images a set: "
        f"samples and renders {samples:.2f}, two disjoint sets of renders {renders:.2f}"
    )


if __name__ == "__main__":
    main()
