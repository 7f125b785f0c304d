"""Find out what a LoRA's slider is good for, and write it into its file, for `scales: auto`.

cd train
python eval_scripts/calibrate.py LORA.safetensors
python gen_image_script.py --c=train_image scales=auto

Found are the scale that gives the pairs' own change, where the slider saturates, and where damage passes a
limit. Base, pairs, prompts and skip are those of the settings in the file's header; key=value changes them
(a text slider has no pairs: name a dataset by datasets_folder=datasets datasets=[NAME]).

options:
  --upto X         measure at nine scales from 0 to X (2)
  --identities N   generated images at each (16)
  --limit X        most damage to put up with (leak 0.1; DINOv2 distance 0.3)
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tinyflux.judge import face_probe
from utils.arguments import positive, whole
from utils.config.load import layer_config, parse_overrides
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.errors import UserError, run_cli
from utils.generation.prompts_and_seeds import choose_prompts
from utils.jobs.prepare import CONFIG_FOLDER, Experiment, enter_config_folder, load_base
from utils.machine import resolve_model_path
from utils.training.sources import ImagePairs

if TYPE_CHECKING:
    from utils.lora.calibration import Calibration

FIRST_IDENTITY = 2_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; 0 as the exit status."""
    args = _parser().parse_intermixed_args(argv)
    scripts = enter_config_folder()
    from utils.lora.files import read_metadata, update_metadata

    metadata = read_metadata(args.lora)
    if "config" not in metadata:
        raise UserError(f"{args.lora}: expected the settings it was trained with in its header, found none")
    runs = expand_runs(_config(args.lora, metadata["config"], args.overrides))
    if len(runs) > 1:
        raise UserError(
            f"expected settings of one run, found {len(runs)}: {', '.join(run.name for run in runs)}"
        )
    run = runs[0]
    calibration = calibrate(run, args.lora, args.upto, args.identities, args.limit)
    update_metadata(args.lora, calibration.metadata())
    print(json.dumps(asdict(calibration), indent=1))
    print(f"scales: auto is {', '.join(f'{scale:g}' for scale in calibration.scales())}")
    generate = ["python", str(scripts / "gen_image_script.py"), "--c=train_image", "scales=auto"]
    lora = [f"datasets=[{run.dataset}]", "use_trained_lora_path=1", f"trained_lora_path={args.lora}"]
    print(f"next: {shlex.join([*generate, *lora])}")
    return 0


def calibrate(run: Run, lora: Path, upto: float, identities: int, limit: float | None) -> "Calibration":
    """Measure a LoRA on its base.

    Args:
        run: gives base, pairs, prompts, skip and judge.
        lora: the file.
        upto: greatest scale.
        identities: images at each scale.
        limit: most damage; None: the judge's own.
    """
    import torch

    from utils.generation.sweep import applied_lora, sweep_images
    from utils.lora.calibration import PAIRS_STRENGTH, Calibration
    from utils.measure.judges import JUDGES_TOOLS, LIMITS, build_judge, load_tools
    from utils.measure.sliders import scale_at, usable_range
    from utils.models.base import PromptEmbeds

    config = run.config
    pairs = ImagePairs.of(run).pairs
    probe = face_probe(run.dataset) if config.judge == "probe" else None
    seeds = range(FIRST_IDENTITY, FIRST_IDENTITY + identities)
    prompts = choose_prompts(run, seeds)
    model_path = resolve_model_path(config.pretrained_model_name_or_path)
    base, embeds = load_base(Experiment(config, model_path), prompts)
    judge = build_judge(config, load_tools(config, base.device, JUDGES_TOOLS[config.judge]), pairs, probe)

    # Images over the scales.
    scales, skip = [upto * step / 8 for step in range(9)], config.skips[0]
    with applied_lora(base.transformer, lora, other_base=config.other_base):
        of_seeds = PromptEmbeds.joined([embeds[prompt] for prompt in prompts])
        images = sweep_images(base, of_seeds, seeds, [skip], scales, config)[skip]

    # How far they get, and where they break.
    strength = torch.stack([judge.strength(images[0.0], images[scale]) for scale in scales], dim=1)
    damage = torch.stack([judge.damage(images[0.0], images[scale]).mean() for scale in scales])
    limit = LIMITS[config.judge] if limit is None else limit
    usable = usable_range(torch.tensor(scales), strength.mean(dim=0), damage, limit)
    return Calibration(
        pairs_scale=scale_at(torch.tensor(scales), strength, PAIRS_STRENGTH),
        usable=upto if usable.breaks is None else usable.breaks,
        saturates=usable.saturates,
        breaks=usable.breaks,
        judge=config.judge,
        limit=limit,
        skip=skip,
        identities=identities,
    )


def _config(lora: Path, text: str, overrides: Sequence[str]) -> Config:
    """The settings of a LoRA's header under key=value."""
    try:
        recorded = json.loads(text)
    except ValueError as error:
        raise UserError(f"{lora}: expected JSON as its header's settings, found {error}") from None
    command, faults = parse_overrides(overrides)
    known = {key.name for key in fields(Config)}
    layers = {str(lora): {key: recorded[key] for key in known & recorded.keys()}, "command line": command}
    return layer_config(layers, CONFIG_FOLDER, faults=faults)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lora", type=Path, metavar="LORA")
    parser.add_argument("--upto", type=positive, default=2.0)
    parser.add_argument("--identities", type=whole(), default=16)
    parser.add_argument("--limit", type=positive)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser


if __name__ == "__main__":
    run_cli(main)
