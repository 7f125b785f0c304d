"""Find out what a LoRA's slider is good for, and write it into its file, for `scales: auto`.

A training of pairs has done this on a few images when it ended (key calibrate); here are more of both.

cd train
python eval_scripts/calibrate.py LORA.safetensors
python gen_image_script.py --c=train_image

Found are the scale that gives the pairs' own change, where the slider saturates, and where damage passes a
limit. Base, pairs, prompts and skip are those of the settings in the file's header; key=value changes them
(a text slider has no pairs: name a dataset by datasets_folder=datasets "datasets=[NAME]").

options:
  --upto X         measure at nine scales from 0 to X (2)
  --identities N   generated images at each (16)
  --limit X        most damage to put up with (the judge's own)
  --yes            do what seems too much for a machine or a day
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from tinyflux.judge import face_probe
from utils.arguments import Parser, path_option, positive, whole
from utils.config.listing import keys_help
from utils.config.load import layer_config, parse_overrides
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.config.yaml_files import shorten
from utils.errors import UserError, run_cli
from utils.generation.texts import Edits
from utils.jobs.amounts import check_amounts
from utils.jobs.calibrate import calibrate, identities_prompts, instruments_of
from utils.jobs.prepare import CONFIG_FOLDER, Experiment, enter_config_folder, load_base
from utils.lora.calibration import Calibration
from utils.machine import resolve_model_path
from utils.names import find_lora
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; 0 as the exit status."""
    args = _parser().parse_intermixed_args(argv)
    scripts = enter_config_folder()
    args.lora = find_lora(args.lora)
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
    calibration = measured(run, args.lora, args)
    update_metadata(args.lora, calibration.metadata())
    print(json.dumps(asdict(calibration), indent=1))
    print(f"slider: {calibration.in_words()}")
    generate = ["python", str(scripts / "gen_image_script.py"), "--c=train_image"]
    generate.append(f"base={run.config.base}")
    lora = [f"datasets=[{run.dataset}]", "use_trained_lora_path=1", f"trained_lora_path={args.lora}"]
    print(f"next: {shlex.join([*generate, *lora])}")
    return 0


def measured(run: Run, lora: Path, args: argparse.Namespace) -> Calibration:
    """Load the run's base and measure a LoRA on it, at nine scales up to args.upto."""
    from utils.measure.encoders import Unavailable
    from utils.measure.judges import build_judge

    config = run.config
    pairs, prompts = ImagePairs.of(run).pairs, identities_prompts(run, args.identities)
    model_path = resolve_model_path(config.pretrained_model_name_or_path)
    scales = [args.upto * step / 8 for step in range(9)]
    if not args.yes:
        check_amounts(replace(config, count_gen=args.identities, scales=scales), model_path, training=False)
    edits = [Edits([lora], scales, prompts)]
    base, embeds = load_base(Experiment(config, model_path), ["", *prompts], edits)
    judge = build_judge(config, instruments_of(run, base, embeds, face_probe), pairs)
    if isinstance(judge, Unavailable):
        raise UserError(f"judge {config.judge}: {judge}")
    return calibrate(run, lora, base, embeds, judge, args.identities, args.limit, [scales])


def _config(lora: Path, text: str, overrides: Sequence[str]) -> Config:
    """The settings of a LoRA's header under key=value."""
    try:
        recorded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{lora}: expected JSON as its header's settings, found {error}") from None
    if not isinstance(recorded, dict):
        raise UserError(f"{lora}: expected settings by name in its header, found {shorten(recorded)}")
    command, faults = parse_overrides(overrides)
    known = {key.name for key in fields(Config)}
    layers = {str(lora): {key: recorded[key] for key in known & recorded.keys()}, "command line": command}
    return layer_config(layers, CONFIG_FOLDER, faults=faults)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, epilog=keys_help())
    parser.add_argument("lora", type=path_option, metavar="LORA")
    parser.add_argument("--upto", type=positive, default=2.0)
    parser.add_argument("--identities", type=whole(), default=16)
    parser.add_argument("--limit", type=positive)
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser


if __name__ == "__main__":
    run_cli(main)
