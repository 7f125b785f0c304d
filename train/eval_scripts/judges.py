"""Compare the judge of any edit with the face world's probe: do both rank alike, and find the same scale?

cd train
python eval_scripts/judges.py --c=edits
python eval_scripts/judges.py --c=edits --methods=train_image,train_image_fm datasets=glasses,age

Spearman: rank correlation of the mean strengths, over the scales of all methods. Every run must be trained.

options of its own:
  --methods LIST   python_names, the first of which is calibrated (train_image)
  --scales LIST    slider scales, 0 among them (0,0.25,0.5,0.75,1,1.5,2)
  --identities N   generated images at each (12)
  --out FOLDER     where judges.csv, .json and .md go (output/eval/judges)
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux.judge import face_probe
from utils.arguments import Parser, names, numbers, path_option, whole
from utils.config.runs import Run, expand_runs
from utils.errors import UserError, run_cli
from utils.files import write_atomically
from utils.generation.prompts_and_seeds import check_loras
from utils.jobs.calibrate import drawn_at, identities_prompts, instruments_of
from utils.jobs.prepare import list_runs, load_base, prepare
from utils.machine import check_writable
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs

COLUMNS = ("dataset", "scale by the probe", "scale by the pairs", "ratio", "Spearman")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; 0 as the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _options(argv)
    experiment = prepare(arguments, __doc__ or "", methods_from(ImagePairs))
    methods = [replace(experiment.config, python_name=name, judge="probe") for name in options.methods]
    runs = [run for config in methods for run in expand_runs(config)]
    if experiment.dry_run:
        list_runs(runs, lambda run: {"lora": run.lora_paths[0]})
        return 0
    check_loras(runs, experiment.command("train_image_script.py"))
    for run in runs:
        if (probe := face_probe(run.dataset)) is None:
            raise UserError(f"datasets: expected attributes that the probe reads, found {run.dataset}")
        probe.check_size(*run.config.image_size)
    check_writable(options.out)

    from utils.report.tables import markdown_table, write_records

    prompts = [prompt for run in runs for prompt in identities_prompts(run, options.identities)]
    base, embeds = load_base(experiment, ["", *prompts])
    strengths: dict[str, list[list[Any]]] = {}
    for run in runs:
        instruments = instruments_of(run, base, embeds, face_probe)
        images = drawn_at(run, run.lora_paths[0], base, embeds, options.identities, options.scales)
        strengths.setdefault(run.dataset, []).append(_by_judge(run, instruments, images))
        print(run.name, flush=True)
    rows = [_row(dataset, of_methods, options.scales) for dataset, of_methods in strengths.items()]

    command = shlex.join(["python", "eval_scripts/judges.py", *argv])
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    write_records(records, options.out / "judges", COLUMNS, command=command)
    table = markdown_table(COLUMNS, [[_shown(value) for value in row] for row in rows])
    write_atomically(options.out / "judges.md", f"{table}\n    {command}\n".encode())
    print(table)
    return 0


def _by_judge(run: Run, instruments: Any, images: Any) -> list[Any]:
    """Strength (B, n) over the scales, by the probe and by the pairs."""
    import torch

    from utils.measure.judges import PairsJudge, ProbeJudge

    pairs = ImagePairs.of(run).pairs
    before = images[0.0]
    judges = [judge.of(instruments, pairs) for judge in (ProbeJudge, PairsJudge)]
    return [
        torch.stack([judge.strength(before, after) for after in images.values()], dim=1) for judge in judges
    ]


def _row(dataset: str, of_methods: Sequence[Sequence[Any]], scales: Sequence[float]) -> list[Any]:
    """A line of the table; a scale is None where the slider does not get there."""
    import torch
    from torchmetrics.functional import spearman_corrcoef

    from utils.measure.judges import PairsJudge, ProbeJudge
    from utils.measure.sliders import scale_at

    at = torch.tensor(scales)
    wanted = (ProbeJudge.reached, PairsJudge.reached)
    found = [scale_at(at, of_judge, reach) for of_judge, reach in zip(of_methods[0], wanted, strict=True)]
    by_probe, by_pairs = (
        torch.cat([of_method[judge].mean(dim=0)[at > 0] for of_method in of_methods]).double()
        for judge in (0, 1)
    )
    ratio = found[1] / found[0] if found[0] and found[1] else None
    return [dataset, *found, ratio, spearman_corrcoef(by_pairs, by_probe).item()]


def _shown(value: Any) -> str:
    if value is None:
        return "not reached"
    return value if isinstance(value, str) else f"{value:.2f}"


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the arguments left for the config."""
    known = methods_from(ImagePairs)
    parser = Parser(add_help=False)
    parser.add_argument("--methods", type=names(list(known)), default=["train_image"])
    parser.add_argument("--scales", type=numbers(0), default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
    parser.add_argument("--identities", type=whole(2), default=12)
    parser.add_argument("--out", type=path_option, default=Path("output/eval/judges"))
    options, arguments = parser.parse_known_args(argv)
    options.scales = sorted({*options.scales})
    return options, arguments


if __name__ == "__main__":
    run_cli(main)
