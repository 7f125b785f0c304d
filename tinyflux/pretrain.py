"""Make the small FLUX and its probe from nothing: most of a day on two CPU cores.

    python -m tinyflux.pretrain

Every stage goes on where it was cut off; delete the work folder to begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import Tensor

from tinyflux.base import Base, Captioned, distill_guidance, train_base
from tinyflux.captions import caption_words
from tinyflux.faces import Faces, drawing, to_pixels, to_uint8, write_shards
from tinyflux.fit import Schedule, fit
from tinyflux.people import sample_independent, sample_people, stack_people
from tinyflux.probe import Probe, probe_losses, save_probe
from tinyflux.seeds import TRAIN
from tinyflux.text import tie_cases
from tinyflux.vae import encode_pixels, reconstruct, train_vae
from utils.arguments import Parser, path_option
from utils.data.prompts import KNOWN_WORDS
from utils.machine import resolve_device

HERE = Path(__file__).parent
INDEPENDENT = TRAIN[len(TRAIN) // 2 :]
"""Seeds of the people that the probe alone is trained on."""


@dataclass(frozen=True)
class Recipe:
    """How much of everything. README.md says in what the weights that ship differ."""

    faces: int = 20_480
    """Renders on disk, for the autoencoder and the probe."""
    portraits: int = 65_536
    """Latents of renders, for the base."""
    independent: int = 8_192
    reconstructed: int = 4_096
    vae: Schedule = Schedule(steps=2900, lr=6e-3, warmup=60, decay_from=0.55, ema_decay=0.99)
    vae_batch: int = 8
    vae_crop_steps: int = 2400
    base: Schedule = Schedule(steps=15_000, lr=2e-3, warmup=200, decay_from=0.5, ema_decay=0.999)
    base_batch: int = 48
    distill: Schedule = Schedule(steps=2000, lr=5e-4, warmup=40, decay_from=0.3, ema_decay=0.995)
    distill_batch: int = 32
    compile: bool = True
    """The transformer through torch.compile: a third faster on a CPU, after minutes; needs a C++ compiler."""
    probe: Schedule = Schedule(steps=1800, lr=6e-3, warmup=60, decay_from=0.4, ema_decay=0.99)
    probe_batch: int = 32


class Pretraining:
    """The stages, each with its state in the work folder."""

    def __init__(self, recipe: Recipe, work: Path, device: torch.device) -> None:
        self.recipe, self.work, self.device = recipe, work, device
        work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        draw = drawing(sample_people, TRAIN, device)
        self.face_paths = write_shards(work / "faces", recipe.faces, draw)
        self.faces = Faces(self.face_paths)

    def vae(self) -> AutoencoderKL:
        """The autoencoder."""
        r = self.recipe
        return train_vae(
            self.faces, r.vae, r.vae_batch, r.vae_crop_steps, self.work / "vae.ckpt", self.device
        )

    def captioned(self, vae: AutoencoderKL, batch_size: int) -> Captioned:
        """Scaled latents of the portraits, rendered and encoded once."""
        draw_faces = drawing(sample_people, TRAIN, self.device)

        def draw(index: Sequence[int]) -> Tensor:
            latents = encode_pixels(vae, to_pixels(draw_faces(index)).to(self.device)).float()
            return ((latents - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu()

        paths = write_shards(self.work / "latents", self.recipe.portraits, draw)
        latents = torch.cat([torch.load(path, weights_only=True) for path in paths])
        return Captioned(latents, sample_people(TRAIN[: len(latents)]), batch_size, self.device)

    def base(self, vae: AutoencoderKL) -> Base:
        """The transformer and the text encoders, guidance distilled."""
        r = self.recipe
        data = self.captioned(vae, r.base_batch)
        teacher = train_base(data, r.base, self.work / "base.ckpt", r.compile)
        data = self.captioned(vae, r.distill_batch)
        return distill_guidance(teacher, data, r.distill, self.work / "distill.ckpt", r.compile)

    def probe(self, vae: AutoencoderKL) -> Probe:
        """The probe, trained on renders of the world, of independent attributes, and on reconstructions."""
        r = self.recipe
        draw = drawing(sample_independent, INDEPENDENT, self.device)
        independent_paths = write_shards(self.work / "independent", r.independent, draw)
        independent = Faces(independent_paths)
        paths = [*self.face_paths, *independent_paths]
        world, free = sample_people(TRAIN[: r.faces]), sample_independent(INDEPENDENT[: r.independent])
        people = [world, free]
        for name, images, who in (("faces", self.faces, world), ("independent", independent, free)):
            count = min(r.reconstructed, len(images))

            def draw_reconstruction(index: Sequence[int], images: Faces = images) -> Tensor:
                pixels = to_pixels(images[torch.tensor(index)]).to(self.device)
                with torch.autocast(self.device.type, torch.bfloat16):
                    return to_uint8(reconstruct(vae, pixels).float() / 2 + 0.5).cpu()

            paths += write_shards(self.work / f"{name}_reconstructed", count, draw_reconstruction)
            people.append({key: value[:count] for key, value in who.items()})
        probe = Probe().to(self.device)
        losses = probe_losses(probe, Faces(paths), stack_people(people), r.probe_batch, self.device)
        return fit(probe, losses, r.probe, self.work / "probe.ckpt", seed=2)


def save_pipeline(vae: AutoencoderKL, base: Base, folder: Path) -> None:
    """Write the diffusers folder in float16, which plain diffusers reads as float32.

    Of the text encoders transformers would keep the checkpoint's own dtype, were it not for their configs.
    """
    tie_cases(base.text_encoder_2, base.tokenizer_2)
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    FluxPipeline(
        scheduler=scheduler,
        vae=vae.half(),
        transformer=base.transformer.half(),
        text_encoder=base.text_encoder.half(),
        tokenizer=base.tokenizer,
        text_encoder_2=base.text_encoder_2.half(),
        tokenizer_2=base.tokenizer_2,
    ).save_pretrained(folder)
    (folder / KNOWN_WORDS).write_text("\n".join(caption_words()) + "\n")
    for part in ("text_encoder", "text_encoder_2"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def pretrain(recipe: Recipe, work: Path, out: Path, device: torch.device) -> None:
    """Run every stage that is not done, and write the weights to `out`."""
    stages = Pretraining(recipe, work, device)
    vae = stages.vae()
    save_probe(stages.probe(vae), out / "probe.safetensors")
    save_pipeline(vae, stages.base(vae), out)


def main() -> None:
    """Parse the command line and run."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--work", type=path_option, default=HERE / "work", help="renders, latents and checkpoints"
    )
    parser.add_argument("--out", type=path_option, default=HERE / "weights", help="the finished weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, cuda:N or N")
    args = parser.parse_args()
    pretrain(Recipe(), args.work, args.out, resolve_device(args.device))
    print(f"weights in {args.out}; measure them: python -m tinyflux.evaluate")


if __name__ == "__main__":
    main()
