"""Measure a run's edit on generated identities, and write what was measured: tables, plot, pictures, report.

What an image shows its judge says (utils/measure/judges.py): in the face world every attribute, elsewhere how
far the edit has got along the pairs' own change, and what changed besides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from utils.bars import Bar
from utils.config.runs import Run
from utils.data.pixels import to_images
from utils.files import write_atomically
from utils.flow.sampling import sweep_forwards
from utils.generation.sweep import applied_lora, sweep_batches
from utils.lora.spread import with_locality
from utils.measure.judges import Judge
from utils.measure.metrics import EditReport, edit_rows, edit_table
from utils.models.base import Base, PromptEmbeds
from utils.report.figures import Grid, Plot, Series, draw_grid, save_image, save_plot
from utils.report.page import Section, Table, Text, fitting, slider_of_scales, write_report
from utils.report.tables import markdown_table, write_json

SHOWN = 6
"""Identities kept for the pictures; the overview of a study shows about as many rows in all."""

EXPLANATION = (
    "Readings of the edit at each slider scale ({reads}). moved: movement from scale 0 to 1, as a share of "
    "the training pairs' own difference. leak: at scale 1, the {damages}. Spearman: rank correlation of "
    "scale and reading within each identity. In brackets, 95% bootstrap intervals over identities."
)


@dataclass(frozen=True)
class Measured:
    """One run's measurement. `pictures`: seed -> its images in ascending order of scale."""

    run: Run
    judge: Judge
    report: EditReport
    pictures: dict[int, list[Image.Image]]


@torch.no_grad()
def measure(
    run: Run,
    base: Base,
    embeds: PromptEmbeds,
    judge: Judge,
    seeds: Sequence[int],
    scales: Sequence[float],
) -> Measured:
    """Generate with the run's LoRA under its first skip, read every image, and sum up.

    Args:
        run: names and settings.
        base: the base, with its VAE.
        embeds: of one prompt for all seeds, or of one a seed.
        judge: of the run's edit, by its own pairs.
        seeds: one generated identity each.
        scales: slider scales, 0 and 1 among them.

    Raises:
        UserError: the LoRA is missing or does not fit, or the pairs do not differ.
        ValueError: all that `sweep_batches` refuses.
    """
    run = with_locality(run, run.lora_paths[:1])
    config, skip = run.config, run.config.skips[0]
    scales = sorted(set(scales))
    images: dict[float, list[Tensor]] = {scale: [] for scale in scales}
    pictures: dict[int, list[Image.Image]] = {}
    total = len(seeds) * sweep_forwards(config.num_inference_steps, [skip], scales, config.locality)
    with (
        applied_lora(base.transformer, run.lora_paths[0], other_base=run.config.other_base),
        Bar(total=total, desc=run.dataset, unit="step") as bar,
    ):
        for batch, sweep in sweep_batches(base, embeds, seeds, [skip], scales, config, progress=bar.update):
            for scale in scales:
                images[scale].append(sweep[skip][scale])
            for i, seed in enumerate(batch[: SHOWN - len(pictures)]):
                pictures[seed] = [to_images(sweep[skip][scale][i : i + 1])[0] for scale in scales]
    # all at once: what a judge's units are of must not hang on batch_size_gen
    drawn = {scale: torch.cat(images.pop(scale)) for scale in scales}
    report = edit_table(
        {scale: judge.readings(drawn[0.0], of_scale) for scale, of_scale in drawn.items()},
        judge.edited,
        judge.pair_difference,
        judge.changed,
    )
    return Measured(run, judge, report, pictures)


def results_table(measured: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """Header and one row a run, as `edit_rows` has it, under the runs' own labels."""
    header, rows = edit_rows([one.report for one in measured])
    return header, [[label, *row[1:]] for label, row in zip(_labels(measured), rows, strict=True)]


def write_results(measured: Sequence[Measured], folder: Path, command: str) -> Path:
    """Write table.md, table.json, readings.png, grid.png and report.html; returns the report's path.

    Args:
        measured: at least one run, all at the same scales and seeds.
        folder: made if need be.
        command: the command line that measured them, to be stated in the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header, rows = results_table(measured)
    identities = measured[0].report.identities
    table = markdown_table(header, rows)
    text = f"{table}\n{identities} identities. {_explanation(measured)}\n\n    {command}\n"
    write_atomically(folder / "table.md", text.encode())
    _write_json(measured, folder / "table.json", command)
    plot = _plot(measured)
    save_plot(plot, folder / "readings.png")
    save_image(draw_grid(_grid(measured, max(1, SHOWN // len(measured)))), folder / "grid.png")
    shown = min(SHOWN, fitting(len(rows) * len(measured[0].report.readings)))
    write_report(
        folder / "report.html",
        "Edits, measured",
        command,
        [
            Section("Pictures", [slider_of_scales(_grid([one], shown)) for one in measured]),
            Section("Table", [Table(header, rows), Text(_explanation(measured)), plot]),
            Section("Leak", [_leaks(measured)]),
        ],
        f"{identities} generated identities that no training has seen.",
    )
    return folder / "report.html"


def _explanation(measured: Sequence[Measured]) -> str:
    """By each judge there is, in words."""
    judges = {type(one.judge) for one in measured}
    reads, damages = (
        "; ".join(sorted(getattr(judge, name) for judge in judges)) for name in ("reads", "damages")
    )
    return EXPLANATION.format(reads=reads, damages=damages)


def _labels(measured: Sequence[Measured]) -> list[str]:
    """Datasets' names where that tells the runs apart, else the runs' own."""
    datasets = [one.run.dataset for one in measured]
    return [one.run.name if datasets.count(one.run.dataset) > 1 else one.run.dataset for one in measured]


def _plot(measured: Sequence[Measured]) -> Plot:
    def series(label: str, one: Measured) -> Series:
        means = one.report.readings.values()
        # more than a few bands hide each other
        edges = ([m.low for m in means], [m.high for m in means]) if len(measured) <= 3 else ()
        return Series(label, list(one.report.readings), [m.mean for m in means], *edges)

    lines = [series(label, one) for label, one in zip(_labels(measured), measured, strict=True)]
    return Plot(lines, "slider scale", "reading of the edit", "Does the edit follow the slider?")


def _grid(measured: Sequence[Measured], identities: int) -> Grid:
    """The first identities of every run over the scales."""
    several = len(measured) > 1
    rows, names = [], []
    for label, one in zip(_labels(measured), measured, strict=True):
        for seed, images in list(one.pictures.items())[:identities]:
            rows.append(images)
            names.append(f"{label}\nseed {seed}" if several else f"seed {seed}")
    config = measured[0].run.config
    skips = ", ".join(dict.fromkeys(str(one.run.config.skips[0]) for one in measured))
    prompts = ", ".join(dict.fromkeys(_prompt(one.run) for one in measured))
    return Grid(
        rows,
        [f"{scale:g}" for scale in measured[0].report.readings],
        names,
        "slider scale",
        "Edits" if several else measured[0].run.dataset,
        f"{prompts}, skip {skips} of {config.num_inference_steps} steps",
    )


def _prompt(run: Run) -> str:
    """Where a run's identities come from."""
    return f"prompts of {run.prompts_path}" if run.config.use_prompts_file else f'prompt "{run.prompt}"'


def _leaks(measured: Sequence[Measured]) -> Table:
    """Rows are attributes, columns are runs; empty where the edit is meant to move the attribute."""
    names = dict.fromkeys(name for one in measured for name in one.report.leaks)
    rows = [
        [
            name,
            *(f"{one.report.leaks[name].mean:.3f}" if name in one.report.leaks else "" for one in measured),
        ]
        for name in names
    ]
    return Table(["attribute", *_labels(measured)], rows, "Mean |movement| at scale 1.")


def _write_json(measured: Sequence[Measured], path: Path, command: str) -> None:
    runs = [
        {
            "run": one.run.name,
            "dataset": one.run.dataset,
            "lora": str(one.run.lora_paths[0]),
            "prompt": _prompt(one.run),
            "skip": one.run.config.skips[0],
            **asdict(one.report),
        }
        for one in measured
    ]
    write_json({"command": command, "runs": runs}, path)
