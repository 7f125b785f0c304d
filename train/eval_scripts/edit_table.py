"""Measure the trained edits of a config: does each follow its slider, how far, and what comes along?

cd train
python eval_scripts/edit_table.py --c=train_image
python eval_scripts/edit_table.py --c=train_image "datasets=[glasses,smile]" --seeds=16

Identities are generated from the config's prompt, or from its prompts file if use_prompts_file is on.

options of its own:
  --seeds N        how many generated identities (64)
  --first-seed N   the first of their seeds (1000000, far from those that generation begins with)
  --scales LIST    slider scales, 0 and 1 among them (0,0.25,0.5,0.75,1)
  --out FOLDER     where tables, plot, pictures and report go (output/eval/edits)
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.arguments import Parser, numbers, path_option, whole
from utils.config.runs import Run
from utils.errors import UserError, run_cli
from utils.generation.prompts_and_seeds import check_loras, checks_of, choose_prompts
from utils.jobs.generate import tell_other_settings
from utils.jobs.prepare import list_runs, load_base, prepare, run_all
from utils.machine import check_writable
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every run and write the results; the exit status as in `run_all`."""
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _options(argv)
    experiment = prepare(arguments, __doc__ or "", methods_from(ImagePairs))
    if experiment.config.use_trained_lora_path and len(experiment.config.trained_lora_path) > 1:
        raise UserError("trained_lora_path: expected one LoRA to measure, found several")
    if experiment.dry_run:
        list_runs(
            experiment.runs,
            lambda run: {"lora": run.lora_paths[0], "results": options.out},
            checks_of(experiment.runs),
        )
        return 0
    check_loras(experiment.runs, experiment.command("train_image_script.py"))
    if not experiment.config.use_trained_lora_path:
        tell_other_settings(experiment.runs)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    prompts = {run.name: choose_prompts(run, seeds) for run in experiment.runs}
    check_writable(options.out)
    # here, so that the checks above come at once
    from tinyflux.edits import measure, results_table, write_results
    from tinyflux.judge import face_probe
    from utils.jobs.calibrate import instruments_of
    from utils.measure.encoders import Unavailable
    from utils.measure.judges import build_judge
    from utils.models.base import PromptEmbeds
    from utils.report.tables import markdown_table

    pairs = {run.dataset: ImagePairs.of(run).pairs for run in experiment.runs}
    base, embeds = load_base(experiment, ["", *(prompt for of_run in prompts.values() for prompt in of_run)])
    measured = []

    def measure_one(run: Run) -> Path:
        own = PromptEmbeds.joined([embeds[prompt] for prompt in prompts[run.name]])
        instruments = instruments_of(run, base, embeds, face_probe)
        judge = build_judge(run.config, instruments, pairs[run.dataset])
        if isinstance(judge, Unavailable):
            raise UserError(f"judge {run.config.judge}: {judge}")
        measured.append(measure(run, base, own, judge, seeds, options.scales))
        # after every run, so that a table cut off leaves what it has
        return write_results(
            measured, options.out, shlex.join(["python", "eval_scripts/edit_table.py", *argv])
        )

    photographs = ["--c=train_image_real", f"semantic_lora_path={experiment.runs[0].lora_paths[0]}"]
    on_base = [argument for argument in experiment.arguments if argument.startswith("base=")]
    script = str(experiment.scripts / "gen_image_real_script.py")
    following = shlex.join(["python", script, *photographs, *on_base])
    closing = f"pictures: {options.out / 'report.html'}, with a slider to drag\nnext: {following}"
    status = run_all(experiment.runs, measure_one, closing)
    if measured:
        print("\n" + markdown_table(*results_table(measured)))
    return status


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the arguments left for the config."""
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", type=whole(2), default=64)
    parser.add_argument("--first-seed", type=whole(0, 2**31), default=1_000_000)
    parser.add_argument("--scales", type=numbers(0, 1), default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--out", type=path_option, default=Path("output/eval/edits"))
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    run_cli(main)
