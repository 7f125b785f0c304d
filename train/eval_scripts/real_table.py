"""Measure edits of photographs against the truth, inversion by inversion: portraits that the base never saw.

The face world renders each portrait before and after the edit, so the right answer is known. One row for each
inversion, edit, skip and scale. PSNR: of the reconstruction against the portrait; against the true edit, of
the portrait untouched, of the edit, and of the edit in place, its change added to the portrait as
gen_image_real_script.py writes it to whole/. Then how far the probe sees the attribute move (1 = as far as in
the truth). An error is how far the probe sees all attributes from what they should be on average, in units of
their ranges: of the reconstruction from the portrait's, of the edit from the truth's. At the end each
inversion at the skip and scale of least error of its edits.

cd train
python eval_scripts/real_table.py --c=train_image_real --edit glasses=LORA --edit smile=LORA "skips=[8,14]"

options of its own:
  --edit NAME=FILE    an attribute and the LoRA that edits it; as many as you like
  --portraits N       how many (32)
  --inversions LIST   names as in `inversion` (all of them); lora trains one LoRA a portrait, if there is none
  --out FOLDER        where report.html, table.md, table.json, grid.png go (output/eval/real)
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.arguments import Parser, named_path, names, path_option, whole
from utils.config.schema import choices
from utils.errors import UserError, nearest, run_cli
from utils.jobs.prepare import load_base, prepare
from utils.machine import check_writable
from utils.names import beside, find_lora
from utils.training.methods import methods_from
from utils.training.sources import Photograph


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; 0 as the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _options(argv)
    experiment = prepare(arguments, __doc__ or "", methods_from(Photograph))
    edits = _edits(options.edit)
    if not experiment.config.scales:
        raise UserError("scales: expected numbers, found auto, which differs from edit to edit")
    if experiment.dry_run:
        print(f"{', '.join(options.inversions)} x {', '.join(edits)}; results: {options.out}")
        return 0
    check_writable(options.out)
    base, embeds = load_base(experiment, ["", *experiment.config.prompt])
    from tinyflux.portraits import Measured, measure_inversion, write_results

    measured: list[Measured] = []
    command = shlex.join(["python", "eval_scripts/real_table.py", *argv])
    for inversion in options.inversions:
        measured += measure_inversion(experiment.config, base, embeds, inversion, edits, options.portraits)
        # after every inversion, so that a table cut off keeps what it has
        table = write_results(measured, options.portraits, options.out, command)
    print(table)
    print(f"pictures and numbers: {options.out / 'report.html'}")
    print(f"next: {experiment.command('gen_image_real_script.py')}")
    return 0


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the arguments left for the config."""
    parser = Parser(add_help=False)
    parser.add_argument("--edit", type=named_path, action="append", default=[])
    parser.add_argument("--portraits", type=whole(), default=32)
    parser.add_argument("--inversions", type=names(choices("inversion")), default=list(choices("inversion")))
    parser.add_argument("--out", type=path_option, default=Path("output/eval/real"))
    return parser.parse_known_args(argv)


def _edits(given: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """The edits by attribute; raises `UserError` unless there is one LoRA file for each."""
    from tinyflux.people import EDITS, STYLES

    if not given:
        raise UserError("--edit: expected at least one, ATTRIBUTE=FILE; found none")
    known = (*EDITS, *STYLES)
    for name, path in given:
        if name not in known:
            raise UserError(
                f"--edit: expected one of {', '.join(known)}, found {name!r}{nearest(name, known)}"
            )
        if not find_lora(path).is_file():
            raise UserError(f"--edit {name}: expected a LoRA file, found none at {path}{beside(path)}")
    if len(dict(given)) < len(given):
        raise UserError(f"--edit: expected one file an attribute, found {[name for name, _ in given]}")
    return {name: find_lora(path) for name, path in given}


if __name__ == "__main__":
    run_cli(main)
