"""Measure edits of photographs against the truth, inversion by inversion: portraits that the base never saw.

The face world renders each portrait before and after the edit, so the right answer is known. One row for each
inversion, edit, skip and scale. PSNR: of the reconstruction against the portrait; against the true edit, of
the portrait untouched, of the edit, and of the edit in place, its change added to the portrait as
gen_image_real_script.py writes it to whole/. Then how far the probe sees the attribute move (1 = as far as in
the truth), and how far it sees all attributes from the truth on average, in units of their range. At the end
each inversion at the skip and scale where that error, averaged over the edits, is least.

cd train
python eval_scripts/real_table.py --c=train_image_real --edit glasses=LORA --edit smile=LORA skips=[8,14]

options of its own:
  --edit NAME=FILE    an attribute and the LoRA that edits it; as many as you like
  --portraits N       how many (32)
  --inversions LIST   names as in `inversion` (all of them); lora trains one LoRA a portrait, if there is none
  --out FOLDER        where table.md and table.json go (output/eval/real)
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import _path  # noqa: F401
from train_image_real_script import METHODS

from utils.config import Config, check_writable
from utils.errors import UserError, nearest, run_cli
from utils.runner import Study, load_base, prepare
from utils.runs import RealRun, expand_runs
from utils.schema import INVERSIONS

if TYPE_CHECKING:
    from torch import Tensor

    from utils.flux import Flux, PromptEmbeds
    from utils.generate import Sweep


@dataclass(frozen=True)
class Row:
    """One inversion, edit, skip and scale; means over portraits; seconds a portrait, its sweep's a skip."""

    inversion: str
    edit: str
    skip: int
    scale: float
    reconstruction_psnr: float
    untouched_psnr: float
    edit_psnr: float
    in_place_psnr: float
    moved: float
    error: float
    training_seconds: float
    sweep_seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; 0 as the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options, study_arguments = _options(argv)
    study = prepare(study_arguments, __doc__ or "", METHODS)
    edits = _edits(options.edit)
    if study.dry_run:
        print(f"{', '.join(options.inversions)} x {', '.join(edits)}; results: {options.out}")
        return 0
    check_writable(options.out)
    flux, embeds = load_base(study, ["", *study.config.prompt])
    rows: list[Row] = []
    command = shlex.join(["python", "eval_scripts/real_table.py", *argv])
    for inversion in options.inversions:
        rows += measure_inversion(study, flux, embeds, inversion, edits, options.portraits)
        # after every inversion, so that a table cut off keeps what it has
        table = write_table(rows, options.portraits, options.out, command)
    print(table)
    return 0


def measure_inversion(
    study: Study,
    flux: "Flux",
    embeds: "dict[str, PromptEmbeds]",
    inversion: str,
    edits: dict[str, Path],
    portraits: int,
) -> list[Row]:
    """The rows of one inversion: every edit on every portrait."""
    from train_image_real import train_run

    from tinyflux.datasets import portrait_people, with_edit
    from tinyflux.render import render
    from utils.figures import to_images
    from utils.generate import applied_lora, edit_photo
    from utils.photos import Photo

    config = replace(study.config, inversion=inversion)
    runs = [_run(config, index) for index in range(portraits)]
    people = portrait_people(portraits)
    before = render(people) * 2 - 1
    photos = [Photo(to_images(pixels[None])[0], pixels) for pixels in before]
    training = 0.0
    if inversion == "lora":
        for run, photo in zip(runs, photos, strict=True):
            if not run.weights_path().is_file():
                train_run(run, flux, photo, embeds[""])
            training += json.loads(run.log_path.read_text(encoding="utf-8").splitlines()[-1])["seconds"]
    rows = []
    for name, path in edits.items():
        sweeps, started = [], time.perf_counter()
        with applied_lora(flux.transformer, path):
            for index, (run, photo) in enumerate(zip(runs, photos, strict=True)):
                with ExitStack() as loras:
                    if inversion == "lora":
                        loras.enter_context(applied_lora(flux.transformer, run.weights_path(), "inversion"))
                    sweeps.append(edit_photo(run, flux, photo, index, embeds[run.prompt]))
        sweep_seconds = (time.perf_counter() - started) / portraits / len(config.skips)
        truth = render(with_edit(people, name)) * 2 - 1
        seconds = training / portraits, sweep_seconds
        label = f"lora, {config.inversion_rule}" if inversion == "lora" else inversion
        rows += _rows(label, name, config, sweeps, before, truth, seconds)
    return rows


def _rows(
    inversion: str,
    name: str,
    config: Config,
    sweeps: "Sequence[Sweep]",
    before: "Tensor",
    truth: "Tensor",
    seconds: tuple[float, float],
) -> list[Row]:
    """One row for each skip and scale of an edit's sweeps."""
    import torch

    from tinyflux.probe import load_probe
    from utils.metrics import leakage, psnr

    read = load_probe().read
    at_start, at_truth = read(before), read(truth)
    difference = (at_truth[name] - at_start[name]).mean()
    rows = []
    for skip in config.skips:
        images = {scale: torch.cat([sweep[skip][scale] for sweep in sweeps]) for scale in sweeps[0][skip]}
        for scale in config.scales:
            readings = read(images[scale])
            in_place = (before + images[scale] - images[0.0]).clamp(-1, 1)
            errors = leakage(readings, at_truth, ())
            rows.append(
                Row(
                    inversion,
                    name,
                    skip,
                    scale,
                    psnr(images[0.0], before).mean().item(),
                    psnr(before, truth).mean().item(),
                    psnr(images[scale], truth).mean().item(),
                    psnr(in_place, truth).mean().item(),
                    ((readings[name] - at_start[name]).mean() / difference).item(),
                    torch.stack([error.mean() for error in errors.values()]).mean().item(),
                    *seconds,
                )
            )
    return rows


def at_best(rows: Sequence[Row]) -> list[Row]:
    """Each inversion's means over its edits, at the skip and scale other than 0 of the least mean error."""
    settings: dict[tuple[str, int, float], list[Row]] = {}
    for row in rows:
        if row.scale != 0:
            settings.setdefault((row.inversion, row.skip, row.scale), []).append(row)
    best: dict[str, Row] = {}
    for (inversion, skip, scale), of_edits in settings.items():
        figures = [astuple(row)[4:] for row in of_edits]
        means = [sum(column) / len(column) for column in zip(*figures, strict=True)]
        mean = Row(inversion, f"mean of {len(of_edits)}", skip, scale, *means)
        if inversion not in best or mean.error < best[inversion].error:
            best[inversion] = mean
    return list(best.values())


def write_table(rows: Sequence[Row], portraits: int, folder: Path, command: str) -> str:
    """Write table.md and table.json; returns the first, all rows and then each inversion at its best."""
    content = {"command": command, "portraits": portraits, "rows": [asdict(row) for row in rows]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    tables = f"{_table(rows)}\nAt the least mean error:\n\n{_table(at_best(rows))}"
    text = f"{tables}\n{portraits} portraits.\n\n    {command}\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    return text


def _table(rows: Sequence[Row]) -> str:
    from utils.metrics import markdown_table

    header = ["inversion", "edit", "skip", "scale", "reconstruction dB", "untouched dB", "edit dB"]
    header += ["in place dB", "moved", "error", "training s", "sweep s"]
    return markdown_table(
        header,
        [
            [
                *(row.inversion, row.edit, str(row.skip), f"{row.scale:g}"),
                *(f"{row.reconstruction_psnr:.1f}", f"{row.untouched_psnr:.1f}", f"{row.edit_psnr:.1f}"),
                *(f"{row.in_place_psnr:.1f}", f"{row.moved:.0%}", f"{row.error:.3f}"),
                *(f"{row.training_seconds:.1f}", f"{row.sweep_seconds:.1f}"),
            ]
            for row in rows
        ],
    )


def _run(config: Config, index: int) -> RealRun:
    """A portrait's run; its LoRA lies where a photograph's of the dataset `portraits` would."""
    own = replace(config, datasets=["portraits"], noise_scales=config.noise_scales[:1])
    (run,) = expand_runs(own)
    return RealRun(run.config, run.dataset, run.noise_scale, run.version, Path(f"{index}.png"))


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the arguments left for the study."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--edit", type=_edit, action="append", default=[])
    parser.add_argument("--portraits", type=_portraits, default=32)
    parser.add_argument("--inversions", type=_inversions, default=list(INVERSIONS))
    parser.add_argument("--out", type=Path, default=Path("output/eval/real"))
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
        if not path.is_file():
            raise UserError(f"--edit {name}: expected a LoRA file, found none at {path}")
    if len(dict(given)) < len(given):
        raise UserError(f"--edit: expected one file an attribute, found {[name for name, _ in given]}")
    return dict(given)


def _edit(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"expected ATTRIBUTE=FILE, found {text!r}")
    return name, Path(path)


def _portraits(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _inversions(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in INVERSIONS:
            raise argparse.ArgumentTypeError(
                f"expected names out of {', '.join(INVERSIONS)}, found {name!r}{nearest(name, INVERSIONS)}"
            )
    return names


if __name__ == "__main__":
    run_cli(main)
