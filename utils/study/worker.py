"""One cell of a comparison: trained unless it is, measured unless it was."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.config.runs import Run
from utils.data.pairs import ImagePair, load_pairs
from utils.measure.judges import Probe, Tools, build_judge, distance_measure, preservation_measures
from utils.models.base import PromptEmbeds
from utils.models.flux1 import Flux
from utils.study.cells import measure_cell
from utils.study.plan import TEXT_METHOD, Cell, Plan
from utils.training.claims import claimed, inputs_of
from utils.training.sources import train_on_pairs, train_on_prompts


@dataclass
class Workshop:
    """What cells share, loaded once.

    Attributes:
        plan: what is compared.
        flux: the base.
        embeds: of every prompt, the empty one among them.
        tools: the outside networks, or why they are not there.
        probe_of: the probe for a dataset, where the judge is one.
    """

    plan: Plan
    flux: Flux
    embeds: Mapping[str, PromptEmbeds]
    tools: Tools
    probe_of: Callable[[str], Probe]
    _pairs: dict[tuple[str, int], list[ImagePair]] = field(default_factory=dict)
    _inputs: dict[tuple[str, int], str] = field(default_factory=dict)

    def work(self, cell: Cell, prompts: Sequence[str]) -> Path:
        """Train and measure a cell, one prompt an identity; returns its result's path."""
        run = replace(cell.run, config=replace(cell.run.config, resume=True))  # stop and start it as you like
        pairs, inputs = self._load(run, 0), self._inputs_of(cell)
        with claimed(run, inputs) as todo:
            if todo:
                self._train(run, cell)
        probe = self.probe_of(run.dataset) if run.config.judge == "probe" else None
        measure_cell(
            cell,
            self.plan,
            self.flux,
            [self.embeds[prompt] for prompt in prompts],
            build_judge(run.config, self.tools, pairs, probe),
            preservation_measures(self.tools, probe),
            distance_measure(self.tools, probe),
            inputs,
        )
        return cell.result_path

    def _train(self, run: Run, cell: Cell) -> None:
        if run.config.python_name == TEXT_METHOD:
            train_on_prompts(run, self.flux, cell.prompts, self._embeds_of(cell))
        else:
            train_on_pairs(run, self.flux, self._load(run, run.config.pair_count), self.embeds[""])

    def _embeds_of(self, cell: Cell) -> dict[str, PromptEmbeds]:
        return {text: self.embeds[text] for prompt in cell.prompts for text in prompt.texts}

    def _inputs_of(self, cell: Cell) -> str:
        count = cell.run.config.pair_count
        self._load(cell.run, count)
        return inputs_of(cell.run, cell.prompts) if cell.prompts else self._inputs[cell.run.dataset, count]

    def _load(self, run: Run, count: int) -> list[ImagePair]:
        """Pairs, read once; their hash is of what was read."""
        key = run.dataset, count
        if key not in self._pairs:
            config = replace(run.config, pair_count=count)
            self._inputs[key] = inputs_of(replace(run, config=config))
            self._pairs[key] = load_pairs(
                run.source_folder, run.target_folder, config.resolution, config.resize, count
            )
        return self._pairs[key]
