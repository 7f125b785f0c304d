"""What a slider is good for, measured: how far each scale gets, and where the image breaks.

A training of pairs does it at its end on a few images, `eval_scripts/calibrate.py` on more; both write it
into the LoRA's header, from where `scales: auto` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.runs import Run
from utils.errors import UserError
from utils.generation.prompts_and_seeds import choose_prompts
from utils.lora.calibration import Calibration
from utils.lora.spread import with_locality
from utils.machine import launched
from utils.training.sources import ImagePairs, Source

if TYPE_CHECKING:
    from torch import Tensor

    from utils.measure.instruments import Instruments, Probe
    from utils.measure.judges import Judge
    from utils.models.base import Base, PromptEmbeds

FIRST_IDENTITY = 2_000_000
LADDER = ((0.0, 0.25, 0.5, 0.75, 1.0), (1.5, 2.0), (3.0, 4.0), (6.0, 8.0))
"""Scales in the order in which they are looked at: further ones only of a slider that does not get there."""

ProbeOf = Callable[[str], "Probe | None"]
"""Dataset -> the face world's probe for it, None for an edit that it does not know."""


def identities_prompts(run: Run, identities: int) -> list[str]:
    """The prompts of the people that a run is calibrated on; raises `UserError` as `choose_prompts`."""
    return choose_prompts(run, range(FIRST_IDENTITY, FIRST_IDENTITY + identities))


def is_calibrated(run: Run, source: Source) -> bool:
    """Whether a run's training ends with a calibration: of pairs, asked for, and by one process alone."""
    return run.config.calibrate > 0 and isinstance(source, ImagePairs) and not launched()


def calibrate(
    run: Run,
    lora: Path,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    judge: Judge,
    identities: int,
    limit: float | None = None,
    ladder: Sequence[Sequence[float]] = LADDER,
) -> Calibration:
    """Measure a LoRA on its base, at ever greater scales until it is as far as the pairs, or breaks.

    Args:
        run: gives prompts, skip and how images are made.
        lora: the file.
        base: with its VAE, no adapter acting.
        embeds: of the run's `identities_prompts` among others.
        judge: of the run's edit.
        identities: images at each scale.
        limit: most damage; None: the judge's own.
        ladder: scales, ascending, in the steps in which they are looked at; 0 is the first.

    Raises:
        UserError: the pairs do not differ, or images are not finite.
    """
    import torch

    from utils.measure.sliders import scale_at, usable_range

    limit = judge.limit if limit is None else limit
    scales, strengths, damages = [], [], []
    for step in ladder:
        images = drawn_at(run, lora, base, embeds, identities, sorted({0.0, *step}))
        for scale in step:
            scales.append(scale)
            strengths.append(judge.strength(images[0.0], images[scale]).cpu())
            damages.append(judge.damage(images[0.0], images[scale]).mean().cpu())
            if not (strengths[-1].isfinite().all() and damages[-1].isfinite()):
                raise UserError(
                    f"{lora}: expected images at scale {scale:g} to be measured, found NaN or infinity"
                )
        if strengths[-1].mean() >= judge.reached or damages[-1] > limit:
            break

    # How far they get, and where they break.
    of_scales, strength = torch.tensor(scales), torch.stack(strengths, dim=1)
    usable = usable_range(of_scales, strength.mean(dim=0), torch.stack(damages), limit)
    return Calibration(
        pairs_scale=scale_at(of_scales, strength, judge.reached),
        usable=scales[-1] if usable.breaks is None else usable.breaks,
        saturates=usable.saturates,
        breaks=usable.breaks,
        judge=judge.kind,
        limit=limit,
        skip=run.config.skips[0],
        identities=identities,
    )


def drawn_at(
    run: Run,
    lora: Path,
    base: Base,
    embeds: Mapping[str, PromptEmbeds],
    identities: int,
    scales: Sequence[float],
) -> dict[float, Tensor]:
    """The images (identities, 3, H, W) of a LoRA's slider at some scales; arguments as of `calibrate`."""
    from utils.generation.sweep import applied_lora, sweep_images
    from utils.generation.texts import with_files
    from utils.models.base import PromptEmbeds

    embeds = with_files(embeds, ["semantic"], [lora])
    config, skip = with_locality(run, [lora]).config, run.config.skips[0]
    seeds = range(FIRST_IDENTITY, FIRST_IDENTITY + identities)
    of_seeds = PromptEmbeds.joined([embeds[prompt] for prompt in identities_prompts(run, identities)])
    with applied_lora(base.transformer, lora, other_base=config.other_base, text_apart=True):
        return sweep_images(base, of_seeds, seeds, [skip], scales, config)[skip]


def instruments_of(
    run: Run, base: Base, embeds: Mapping[str, PromptEmbeds], probe_of: ProbeOf
) -> Instruments:
    """What a run's edit is judged by, where the base is there: what it sees, and what the judge needs.

    Args:
        run: gives the judge.
        base: with its VAE.
        embeds: of the empty prompt among others.
        probe_of: the probe for a dataset.
    """
    from utils.measure.instruments import Instruments, load_tools
    from utils.measure.judges import JUDGES
    from utils.models.features import BaseViews

    config = run.config
    tools = load_tools(config, base.device, JUDGES[config.judge].tools)
    probe = probe_of(run.dataset) if config.judge == "probe" else None
    views = BaseViews(base, embeds[""], config.guidance_scale, config.batch_size_gen)
    return Instruments(tools, probe, views)


def calibrate_trained(
    run: Run, source: Source, base: Base, embeds: Mapping[str, PromptEmbeds], probe_of: ProbeOf
) -> None:
    """Calibrate a LoRA that was just trained, write it into its header and say what was found.

    A slider of which nothing can be said is told and left as it is: its training is done.
    """
    from utils.lora.files import update_metadata
    from utils.measure.encoders import Unavailable
    from utils.measure.instruments import Instruments
    from utils.measure.judges import PairsJudge, build_judge

    if not isinstance(source, ImagePairs):
        raise TypeError(f"expected image pairs, found {source.kind}")
    instruments = instruments_of(run, base, embeds, probe_of)
    try:
        judge = build_judge(run.config, instruments, source.pairs)
        if isinstance(judge, Unavailable):
            print(f"{judge}; the slider is calibrated by the pairs instead", flush=True)
            judge = PairsJudge.of(Instruments(views=instruments.views), source.pairs)
        found = calibrate(run, run.weights_path(), base, embeds, judge, run.config.calibrate)
    except UserError as error:
        print(f"slider: not calibrated; {error}", flush=True)
        return
    update_metadata(run.weights_path(), found.metadata())
    print(f"slider: {found.in_words()}", flush=True)
