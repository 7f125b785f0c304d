"""What a comparison measures of one cell: every identity at every scale, written beside the cell's LoRA.

Arrays are kept whole, so that tables, curves and intervals can be made of any number of cells later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from utils.code_hash import changed_files, figures_code
from utils.config.runs import Run
from utils.config.schema import Config, depends_on
from utils.data.pixels import to_images
from utils.errors import UserError
from utils.files import move_aside, write_atomically
from utils.generation.gallery_reader import ImageSeries
from utils.generation.sweep import applied_lora, sweep_images
from utils.hashes import lora_hash
from utils.lora.spread import with_locality
from utils.measure.encoders import Unavailable
from utils.measure.judges import Judge
from utils.measure.measures import Measures, evaluate, pairwise_distances
from utils.measure.sliders import smoothness
from utils.models.base import Base, PromptEmbeds
from utils.records import Record, read_record, recorded
from utils.report.figures import save_image
from utils.study.plan import Cell, Plan
from utils.training.claims import code_of

DIGITS = 6
EDITION = 2
"""Of what is measured and in which units: raised when that changes, so that older results are made anew."""


@dataclass(frozen=True)
class CellResult:
    """One cell, measured. n scales, B identities.

    Attributes:
        cell: its run's name; label: as `Cell.label`; dataset, seed: its own.
        scales: (n,) ascending, 0 among them.
        strength: (B, n) share of the pairs' own change.
        damage: (B, n) unintended change, as the judge has it.
        measures: {name: (B, n - 1) at the scales other than 0, or why it is not available}.
        delta_smooth: (B,), or why it is not available.
        training, generation: what they cost.
        made_with: what the figures depend on; other settings make another result.
    """

    cell: str
    label: str
    dataset: str
    seed: int
    scales: list[float]
    strength: Tensor
    damage: Tensor
    measures: dict[str, Tensor | str]
    delta_smooth: Tensor | str
    training: Record
    generation: Record
    made_with: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it as JSON, at once or not at all."""
        write_atomically(path, (json.dumps(_plain(self), allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> CellResult:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("strength", "damage"):
            content[key] = _value(content[key])
        content["measures"] = {name: _value(value) for name, value in content["measures"].items()}
        content["delta_smooth"] = _value(content["delta_smooth"])
        content["training"], content["generation"] = (
            Record(**content[key]) for key in ("training", "generation")
        )
        return cls(**content)


def made_with(cell: Cell, plan: Plan, inputs: str) -> dict[str, Any]:
    """What a cell's figures depend on; `inputs`: hash of what it learns from."""
    own = {key: getattr(plan, key) for key in ("identities", "first_identity", "scales", "shown")}
    config = _that_matter(asdict(cell.run.config))
    code = {"training": code_of(cell.run), "figures": figures_code()}
    lora = lora_hash(cell.run.weights_path()) if cell.run.weights_path().is_file() else ""
    made = {"edition": EDITION, "config": config, "inputs": inputs, **own, "code": code, "lora": lora}
    return json.loads(json.dumps(made))


def _that_matter(config: dict[str, Any]) -> dict[str, Any]:
    measured = depends_on("measured")
    return {key: value for key, value in config.items() if key in measured}


def done(cell: Cell, plan: Plan, tell: Callable[[str], object] = lambda what: None) -> bool:
    """Whether the cell was measured with these very settings before, by this code and of this LoRA.

    Args:
        cell, plan: what it is, and how it is measured.
        tell: called with what there is to say of it beside that.
    """
    try:
        result = CellResult.load(cell.result_path)
        now = made_with(cell, plan, cell.source.fingerprint())
        then = result.made_with
        config = asdict(Config()) | then["config"]  # a key that is newer than the result was at its default
        then = {**{key: now[key] for key in ("code", "lora")}, **then, "config": _that_matter(config)}
        if {**then, "code": now["code"], "lora": now["lora"]} != now:
            return False
        code = [(then["code"][part], now["code"][part]) for part in now["code"]]
        changed = sorted({file for both in code for file in changed_files(*both)})
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        UserError,
    ):  # none, or another version's: made anew
        return False
    if "code" not in result.made_with:
        tell("measured before hashes of code and LoRA were kept, which are taken from now on")
        replace(result, made_with=then).save(cell.result_path)
    if now["lora"] not in ("", then["lora"]):
        tell("of another LoRA than is there now: made anew")
        return False
    if changed and not cell.run.config.other_code:
        tell(f"by other code ({', '.join(changed)}): made anew, unless other_code=1 keeps them")
    elif changed:
        tell(f"by other code ({', '.join(changed)}), kept as other_code says")
    return not changed or cell.run.config.other_code


def identity_seeds(plan: Plan, dataset: str, seed: int) -> range:
    """Seeds of a cell's images: the same for every method, others for every dataset and seed of training."""
    first = plan.first_identity + 10_000 * (crc32(dataset.encode()) % 100_000) + (seed - 1) * plan.identities
    return range(first, first + plan.identities)


def measure_cell(
    cell: Cell,
    plan: Plan,
    base: Base,
    embeds: Sequence[PromptEmbeds],
    judge: Judge,
    measures: Measures,
    distance: Any,
    inputs: str,
) -> CellResult:
    """Generate a trained cell's images at all scales, measure them and write the result and some pictures.

    Args:
        cell: its LoRA is trained.
        plan: gives identities, scales and how many of them are kept as pictures.
        base: the base with its VAE.
        embeds: of the prompt of each identity.
        judge: strength and damage.
        measures: what else to measure between each image and that at scale 0.
        distance: for delta_smooth, or `Unavailable`.
        inputs: hash of what the cell learned from.
    """
    run, skip = cell.run, cell.run.config.skips[0]
    config = with_locality(run, [run.weights_path()]).config
    seeds = identity_seeds(plan, run.dataset, run.version)
    record_path = run.folder / "generation.json"

    # The images at every scale, with what they cost.
    with (
        applied_lora(base.transformer, run.weights_path(), other_base=run.config.other_base),
        recorded(record_path, "generation", len(seeds) * len(plan.scales), base.device),
    ):
        images = sweep_images(base, PromptEmbeds.joined(embeds), seeds, [skip], plan.scales, config)[skip]

    # What they measure against those at scale 0.
    series = ImageSeries([str(seed) for seed in seeds], {scale: images[scale] for scale in plan.scales})
    before = images[0.0]
    at_scales = evaluate(series, measures)
    result = CellResult(
        cell=run.name,
        label=cell.label,
        dataset=run.dataset,
        seed=run.version,
        scales=plan.scales,
        strength=torch.stack([judge.strength(before, images[scale]) for scale in plan.scales], dim=1),
        damage=torch.stack([judge.damage(before, images[scale]) for scale in plan.scales], dim=1),
        measures={name: _over_scales([by_name[name] for by_name in at_scales.values()]) for name in measures},
        delta_smooth=str(distance)
        if isinstance(distance, Unavailable)
        else smoothness(pairwise_distances(series, distance, judge)),
        training=read_record(run.record_path),
        generation=read_record(record_path),
        made_with=made_with(cell, plan, inputs),
    )

    for earlier in (cell.result_path, run.folder / "images"):  # not to be mixed with these
        if earlier.exists():
            move_aside(earlier)
    _keep_pictures(run, seeds[: plan.shown], skip, images)
    result.save(cell.result_path)
    return result


def _keep_pictures(run: Run, seeds: Sequence[int], skip: int, images: Mapping[float, Tensor]) -> None:
    """A few identities at every scale, to be looked at."""
    for index, seed in enumerate(seeds):
        for scale, of_all in images.items():
            path = run.folder / "images" / run.image_path(seed, skip, scale).relative_to(run.seeds_folder)
            save_image(to_images(of_all[index : index + 1])[0], path)


def _over_scales(values: Sequence[Tensor | Unavailable]) -> Tensor | str:
    """(B, n - 1), or why not."""
    missing = next((value for value in values if isinstance(value, Unavailable)), None)
    if missing is not None:
        return str(missing)
    return torch.stack([value for value in values if isinstance(value, Tensor)], dim=1)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim > 1:
        return [_plain(row) for row in value]
    if isinstance(value, Tensor):  # JSON has no infinity, as PSNR is of equal images
        return [round(x, DIGITS) if math.isfinite(x) else str(x) for x in value.tolist()]
    if isinstance(value, (CellResult, Record)):
        return {key: _plain(entry) for key, entry in vars(value).items()}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _value(value: Any) -> Tensor | str:
    return value if isinstance(value, str) else torch.tensor(_numbers(value), dtype=torch.float64)


def _numbers(value: Any) -> Any:
    return [_numbers(entry) for entry in value] if isinstance(value, list) else float(value)
