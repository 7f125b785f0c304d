"""Encoded prompts, also as LoRAs on the text encoders would have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from utils.errors import UserError

TextScales = tuple[tuple[str, float], ...]
"""LoRA files that act on text encoders, each with its scale, in order."""


@dataclass(frozen=True)
class PromptEmbeds:
    """What a transformer sees of B prompts: tensors (B, ...) by the names that its family gives them.

    Attributes:
        tensors: the base's own.
        under: of the same prompts, the tensors that LoRAs on the text encoders change, by these and their
            scales.
        files: adapter on the transformer -> the file that acts on the text encoders together with it.
        worded: those of these files whose new words are known at scale 0, too.
        faults: why prompts could not be encoded under some LoRAs.
    """

    tensors: dict[str, Tensor]
    under: Mapping[TextScales, PromptEmbeds] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    worded: frozenset[str] = frozenset()
    faults: Mapping[TextScales, UserError] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def expand(self, batch_size: int) -> PromptEmbeds:
        """One prompt for a whole batch (a view); as many prompts as images stay as they are.

        Raises:
            ValueError: for any other number of prompts.
        """
        if len(self) not in (1, batch_size):
            raise ValueError(f"expected 1 prompt or {batch_size}, one an image; found {len(self)}")
        return self._each(lambda tensor: tensor.expand(batch_size, *tensor.shape[1:]))

    def of_images(self, images: slice) -> PromptEmbeds:
        """Those of some of the images; one prompt is that of all of them."""
        return self if len(self) == 1 else self._each(lambda tensor: tensor[images])

    def for_parts(self, parts: Sequence[Mapping[str, float]], size: int) -> PromptEmbeds:
        """Those of a batch of `size` images a part, each part at scales of its own, {adapter: scale}.

        One prompt stays one where no LoRA acts on the text encoders.

        Raises:
            UserError: where LoRAs did not fit the text encoders.
            ValueError: for scales at which the prompts were not encoded.
        """
        if self.files:
            return PromptEmbeds.joined([self._at(scales).expand(size) for scales in parts])
        return self if len(self) == 1 else PromptEmbeds.joined([self] * len(parts))

    @classmethod
    def joined(cls, embeds: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """One after the other, as one batch; of LoRAs on the text encoders, what all were encoded under."""
        first = embeds[0]
        names, shared = first.tensors, [key for key in first.under if all(key in one.under for one in embeds)]
        return cls(
            {name: torch.cat([one[name] for one in embeds]) for name in names},
            {key: cls.joined([one.under[key] for one in embeds]) for key in shared},
            first.files,
            first.worded,
            first.faults,
        )

    def _at(self, scales: Mapping[str, float]) -> PromptEmbeds:
        """The embeddings at adapter scales; at 0 the base's own."""
        at = {name: scales.get(name, 0.0) for name in self.files}
        own = [(file, at[name]) for name, file in self.files.items() if at[name] or file in self.worded]
        acting = tuple(sorted(own))
        if acting in self.faults:
            raise self.faults[acting]
        if acting and acting not in self.under:
            known = ", ".join(map(str, self.under)) or "none"
            raise ValueError(f"expected prompts encoded at {acting}, found those at {known}")
        return PromptEmbeds({**self.tensors, **(self.under[acting].tensors if acting else {})})

    def _each(self, change: Callable[[Tensor], Tensor]) -> PromptEmbeds:
        return PromptEmbeds(
            {name: change(tensor) for name, tensor in self.tensors.items()},
            {key: each._each(change) for key, each in self.under.items()},
            self.files,
            self.worded,
            self.faults,
        )
