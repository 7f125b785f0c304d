"""What a config's runs cost to train and to generate with, from the records that both left.

cd train
python eval_scripts/cost.py --c=train_image

options of its own:
  --out FOLDER        where cost.csv and cost.json go (output/eval/measures/CONFIG)

Peak memory on a CPU is the most that the whole process ever held, the text encoders included.
"""

import shlex
import sys
from collections.abc import Sequence

from utils.arguments import Parser, path_option
from utils.config.runs import Run
from utils.errors import UserError, run_cli
from utils.jobs.measure import folder_of
from utils.jobs.prepare import list_runs, prepare
from utils.machine import check_writable
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs

COLUMNS = ("run", "work", "seconds", "count", "per second", "peak GiB", "device")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the records; 0 as the exit status."""
    parser = Parser(add_help=False)
    parser.add_argument("--out", type=path_option)
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = parser.parse_known_args(argv)
    experiment = prepare(arguments, __doc__ or "", methods_from(ImagePairs))
    if experiment.dry_run:
        list_runs(experiment.runs, lambda run: {"record": run.record_path})
        return 0
    from utils.report.tables import markdown_table, write_records

    rows = [row for run in experiment.runs for row in cost_rows(run)]
    if not rows:
        paths = ", ".join(str(run.record_path) for run in experiment.runs)
        raise UserError(f"{paths}: expected the record of a training, found none; train first")
    out = options.out or folder_of(experiment)
    check_writable(out)
    command = shlex.join(["python", "eval_scripts/cost.py", *argv])
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    write_records(records, out / "cost", COLUMNS, command=command)
    print(markdown_table(COLUMNS, rows))
    print(f"next: {experiment.command('eval_scripts/slider.py')}")
    return 0


def cost_rows(run: Run) -> list[list[str]]:
    """A row for the training and one for the generation, as far as their records are there."""
    from utils.records import read_record

    rows = []
    for path in (run.record_path, run.seeds_folder / "record.json"):
        if path.is_file():
            record = read_record(path)
            peak = "" if record.peak_bytes is None else f"{record.peak_bytes / 2**30:.2f}"
            figures = [f"{record.seconds:.1f}", str(record.count), f"{record.per_second:.2f}", peak]
            rows.append([run.name, record.work, *figures, record.device])
    return rows


if __name__ == "__main__":
    run_cli(main)
