"""One cell of a comparison: trained unless it is, measured unless it was."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

from utils.config.runs import Run
from utils.errors import UserError
from utils.measure.encoders import Unavailable
from utils.measure.instruments import Instruments, Probe, Tools
from utils.measure.judges import Judge, build_judge
from utils.measure.measures import distance_measure, preservation_measures
from utils.models.base import Base, PromptEmbeds
from utils.models.features import BaseViews
from utils.study.cells import measure_cell
from utils.study.plan import Cell, Plan
from utils.training.claims import claimed
from utils.training.sources import ImagePairs, Source
from utils.training.trainer import train_run

AnySource = TypeVar("AnySource", bound=Source)


@dataclass
class StudyWorker:
    """What cells share, loaded once.

    Attributes:
        plan: what is compared.
        base: the base.
        embeds: of every prompt, the empty one among them.
        tools: the outside networks, or why they are not there.
        probe_of: the probe for a dataset, where the judge is one.
    """

    plan: Plan
    base: Base
    embeds: Mapping[str, PromptEmbeds]
    tools: Tools
    probe_of: Callable[[str], Probe | None]
    _read: dict[Source, tuple[Source, str]] = field(default_factory=dict)

    def work(self, cell: Cell, prompts: Sequence[str]) -> Path:
        """Train and measure a cell, one prompt an identity; returns its result's path."""
        run = replace(cell.run, config=replace(cell.run.config, resume=True))  # stop and start it as you like
        source, fingerprint = self._once(cell.source)
        with claimed(run, fingerprint) as todo:
            if todo:
                train_run(run, self.base, source, self.embeds)

        # A method's own source or not: what an edit is, all of the dataset's pairs say.
        pairs, _ = self._once(all_pairs(run))
        judge = self._judge(run, pairs)
        measure_cell(
            cell,
            self.plan,
            self.base,
            [self.embeds[prompt] for prompt in prompts],
            judge,
            preservation_measures(self.tools, judge),
            distance_measure(self.tools, judge),
            fingerprint,
        )
        return cell.result_path

    def _judge(self, run: Run, pairs: ImagePairs) -> Judge:
        config = run.config
        probe = self.probe_of(run.dataset) if config.judge == "probe" else None
        views = BaseViews(self.base, self.embeds[""], config.guidance_scale, config.batch_size_gen)
        judge = build_judge(config, Instruments(self.tools, probe, views), pairs.pairs)
        if isinstance(judge, Unavailable):
            raise UserError(f"judge {config.judge}: {judge}")
        return judge

    def _once(self, source: AnySource) -> tuple[AnySource, str]:
        """The source, read, and its fingerprint as it was then; equal ones are read once."""
        if source not in self._read:
            self._read[source] = source, source.fingerprint()
            source.read()
        found, fingerprint = self._read[source]
        return cast(AnySource, found), fingerprint


def all_pairs(run: Run) -> ImagePairs:
    """All pairs of a run's dataset, however many it learns from."""
    return ImagePairs.of(replace(run, config=replace(run.config, pair_count=0)))
