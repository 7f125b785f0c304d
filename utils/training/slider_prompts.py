"""A text slider's prompts as what a run learns from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.config.yaml_files import find_yaml
from utils.data.prompts import SliderPrompt, load_slider_prompts
from utils.errors import UserError
from utils.models.families import Family
from utils.training.sources import Source

if TYPE_CHECKING:
    from utils.models.base import Base, PromptEmbeds
    from utils.training.batches import Batches


@dataclass(frozen=True)
class SliderPrompts(Source):
    """The prompts of a text slider, a YAML file; its guidance_scale is the run's cfg_eta."""

    kind: ClassVar[str] = "two prompts"
    path: Path

    @classmethod
    def of(cls, run: Run, prompts_folder: Path | None = None) -> Self:
        """See `Source.of`; raises `UserError` for a file that is not there."""
        if prompts_folder is not None:
            return cls(find_yaml(prompts_folder, run.dataset, "text_prompts"))
        return cls(find_yaml(Path(run.config.datasets_folder), run.dataset, "datasets"))

    @classmethod
    def runs(cls, config: Config, given: Collection[str] = ()) -> Sequence[Run]:
        """With the eta of each file, so that names and saved configs tell the truth.

        Raises:
            UserError: for a prompt file that is missing or at fault; for another cfg_eta on the command line.
        """
        found = [(run, cls.of(run)) for run in expand_runs(config)]
        for _, source in found:
            if "cfg_eta" in given and source.eta != config.cfg_eta:
                raise UserError(
                    f"command line: cfg_eta: expected {source.eta}, the guidance_scale in {source.path}, "
                    f"found {config.cfg_eta}; a text slider's eta is set there"
                )
        return [source.settled(run) for run, source in found]

    @cached_property
    def entries(self) -> list[SliderPrompt]:
        """The entries of the file."""
        return load_slider_prompts(self.path)

    @property
    def eta(self) -> float:
        """Strength of the guidance, the same in all entries."""
        return float(self.entries[0].guidance_scale)

    @property
    def prompts(self) -> Sequence[str]:  # type: ignore[override]
        """All texts of all entries."""
        return [text for entry in self.entries for text in entry.texts]

    def settled(self, run: Run) -> Run:
        """With cfg_eta as the file says."""
        return replace(run, config=replace(run.config, cfg_eta=self.eta))

    def paths(self) -> dict[str, Path]:
        """See `Source.paths`."""
        return {"prompts": self.path}

    def check_fits(self, family: Family) -> None:
        """See `Source.check_fits`: the entries' resolution."""
        for entry in self.entries:
            if entry.resolution:
                family.check_size(entry.resolution, f"{self.path}: resolution")

    def fingerprint(self) -> str:
        """Of the entries, however the file lays them out."""
        return sha256(repr(list(self.entries)).encode()).hexdigest()

    def read(self) -> None:
        """See `Source.read`."""
        _ = self.entries

    def batches(self, base: Base, embeds: Mapping[str, PromptEmbeds], config: Config) -> Batches[Any]:
        """The base's own half-made images."""
        from utils.training.batches import TextBatches

        return TextBatches(base, self.entries, embeds, config)
