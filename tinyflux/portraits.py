"""Edit portraits whose true edit is known, by one inversion after another, and measure what comes out."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tinyflux.datasets import portrait_people, with_edit
from tinyflux.probe import load_probe
from tinyflux.render import render
from utils.config.runs import RealRun, expand_runs
from utils.config.schema import Config
from utils.data.photos import Photo
from utils.data.pixels import to_images
from utils.files import write_atomically
from utils.generation.sweep import Sweep, applied_lora, edit_photo
from utils.lora.spread import with_locality
from utils.measure.metrics import Readings, leakage, psnr
from utils.models.base import Base, PromptEmbeds
from utils.records import read_record
from utils.report.figures import Grid, draw_grid, save_image
from utils.report.page import Section, Slider, Table, fitting, slider_of_scales, write_report
from utils.report.tables import markdown_table, write_json
from utils.training.claims import claimed
from utils.training.sources import Photograph
from utils.training.trainer import train_run


@dataclass(frozen=True)
class Row:
    """One inversion, edit, skip and scale; means over portraits; seconds a portrait, its sweep's a skip."""

    inversion: str
    edit: str
    skip: int
    scale: float
    reconstruction_psnr: float
    reconstruction_error: float
    untouched_psnr: float
    edit_psnr: float
    in_place_psnr: float
    moved: float
    error: float
    training_seconds: float
    sweep_seconds: float


@dataclass(frozen=True)
class Measured:
    """An inversion's edits by one LoRA: its rows, and one portrait's pictures at the first skip.

    Attributes:
        rows: one a skip and scale.
        pictures: the portrait, its edits by scale, the truth.
    """

    rows: list[Row]
    pictures: list[Image.Image]


def measure_inversion(
    config: Config,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    inversion: str,
    edits: Mapping[str, Path],
    portraits: int,
) -> list[Measured]:
    """One inversion: every edit on every portrait, each edit's pictures of another portrait."""
    config = replace(config, inversion=inversion)
    runs = [_run(config, index) for index in range(portraits)]
    people = portrait_people(portraits)
    before = render(people) * 2 - 1
    photos = [Photo(to_images(pixels[None])[0], pixels, (0, 0, *pixels.shape[:0:-1])) for pixels in before]

    # A LoRA for each portrait, where the inversion is one.
    training = 0.0
    if inversion == "lora":
        for run, photo in zip(runs, photos, strict=True):
            resuming = replace(run, config=replace(run.config, resume=True))
            source = Photograph(run.photograph, config.resolution, photo)
            with claimed(resuming, source.fingerprint()) as todo:
                if todo:
                    train_run(resuming, base, source, embeds)
            training += read_record(run.record_path).seconds

    # Every edit on every portrait.
    measured = []
    for number, (name, path) in enumerate(edits.items()):
        locality = with_locality(runs[0], [path]).config.locality
        sweeps, started = [], time.perf_counter()
        with applied_lora(base.transformer, path, other_base=config.other_base):
            for index, (run, photo) in enumerate(zip(runs, photos, strict=True)):
                with ExitStack() as loras:
                    if inversion == "lora":
                        loras.enter_context(applied_lora(base.transformer, run.weights_path(), "inversion"))
                    own = replace(run, config=replace(run.config, locality=locality))
                    sweeps.append(edit_photo(own, base, photo, index, embeds[run.prompt]))

        # Against the truth, which the world renders.
        sweep_seconds = (time.perf_counter() - started) / portraits / len(config.skips)
        truth = render(with_edit(people, name)) * 2 - 1
        seconds = training / portraits, sweep_seconds
        label = f"lora, {config.inversion_rule}" if inversion == "lora" else inversion
        rows = _rows(label, name, config, sweeps, before, truth, seconds)

        # One portrait of each edit is kept to be looked at.
        shown = number % portraits
        by_scale = sweeps[shown][config.skips[0]]
        pixels = [before[shown], *(by_scale[scale][0] for scale in config.scales), truth[shown]]
        measured.append(Measured(rows, to_images(torch.stack(pixels))))
    return measured


def _rows(
    inversion: str,
    name: str,
    config: Config,
    sweeps: Sequence[Sweep[float]],
    before: Tensor,
    truth: Tensor,
    seconds: tuple[float, float],
) -> list[Row]:
    """One row for each skip and scale of an edit's sweeps."""
    read = load_probe().read
    at_start, at_truth = read(before), read(truth)
    difference = (at_truth[name] - at_start[name]).mean()
    rows = []
    for skip in config.skips:
        images = {scale: torch.cat([sweep[skip][scale] for sweep in sweeps]) for scale in sweeps[0][skip]}
        for scale in config.scales:
            readings = read(images[scale])
            in_place = (before + images[scale] - images[0.0]).clamp(-1, 1)
            rows.append(
                Row(
                    inversion,
                    name,
                    skip,
                    scale,
                    psnr(images[0.0], before).mean().item(),
                    _error(read(images[0.0]), at_start),
                    psnr(before, truth).mean().item(),
                    psnr(images[scale], truth).mean().item(),
                    psnr(in_place, truth).mean().item(),
                    ((readings[name] - at_start[name]).mean() / difference).item(),
                    _error(readings, at_truth),
                    *seconds,
                )
            )
    return rows


def _error(readings: Readings, truth: Readings) -> float:
    """Mean distance of all attributes from the truth, in units of their ranges."""
    return torch.stack(list(leakage(readings, truth, ()).values())).mean().item()


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


def write_results(measured: Sequence[Measured], portraits: int, folder: Path, command: str) -> str:
    """Write table.md, table.json, grid.png and report.html.

    Returns:
        What table.md has: all rows, then each inversion at its best.
    """
    rows = [row for one in measured for row in one.rows]
    content = {"command": command, "portraits": portraits, "rows": [asdict(row) for row in rows]}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(content, folder / "table.json")
    every, best = (markdown_table(HEADER, _cells(some)) for some in (rows, at_best(rows)))
    tables = f"{every}\nAt the least mean error:\n\n{best}"
    text = f"{tables}\n{portraits} portraits.\n\n    {command}\n"
    write_atomically(folder / "table.md", text.encode())
    save_image(draw_grid(_grid(measured)), folder / "grid.png")
    write_report(
        folder / "report.html",
        "Edits of portraits",
        command,
        [
            Section("Pictures", [_slider(measured)]),
            Section("At the least mean error", [Table(HEADER, _cells(at_best(rows)))]),
            Section("All", [Table(HEADER, _cells(rows))]),
        ],
        f"{portraits} portraits that the base never saw; the truth is what the face world renders of them.",
    )
    return text


def _slider(measured: Sequence[Measured]) -> Slider:
    """One portrait of each inversion and edit, between the portrait and the truth."""
    grid, shown = _grid(measured), measured[: fitting(len(measured[0].pictures))]
    edits = Grid(
        [one.pictures[1:-1] for one in shown],
        grid.column_labels[1:-1],
        grid.row_labels[: len(shown)],
        "slider scale",
        caption=grid.caption,
    )
    portraits = {"portrait": [one.pictures[0] for one in shown]}
    return slider_of_scales(edits, portraits, {"truth": [one.pictures[-1] for one in shown]})


def _grid(measured: Sequence[Measured]) -> Grid:
    first = [one.rows[0] for one in measured]
    scales = list(dict.fromkeys(row.scale for row in measured[0].rows))
    several = len({row.inversion for row in first}) > 1
    return Grid(
        [one.pictures for one in measured],
        ["portrait", *(f"{scale:g}" for scale in scales), "truth"],
        [f"{row.inversion}\n{row.edit}" if several else row.edit for row in first],
        title="Edits of portraits" if several else f"Edits of portraits by {first[0].inversion}",
        caption=f"slider scales from the reconstruction (0) up, skip {first[0].skip}",
    )


HEADER = [
    *("inversion", "edit", "skip", "scale", "reconstruction dB", "its error", "untouched dB", "edit dB"),
    *("in place dB", "moved", "error", "training s", "sweep s"),
]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [
            *(row.inversion, row.edit, str(row.skip), f"{row.scale:g}"),
            *(f"{row.reconstruction_psnr:.1f}", f"{row.reconstruction_error:.3f}"),
            *(f"{row.untouched_psnr:.1f}", f"{row.edit_psnr:.1f}"),
            *(f"{row.in_place_psnr:.1f}", f"{row.moved:.0%}", f"{row.error:.3f}"),
            *(f"{row.training_seconds:.1f}", f"{row.sweep_seconds:.1f}"),
        ]
        for row in rows
    ]


def _run(config: Config, index: int) -> RealRun:
    """A portrait's run; its LoRA lies where a photograph's of the dataset `portraits` would."""
    own = replace(config, datasets=["portraits"], noise_scales=config.noise_scales[:1])
    (run,) = expand_runs(own)
    return RealRun(run.config, run.dataset, run.noise_scale, run.version, Path(f"{index}.png"))
