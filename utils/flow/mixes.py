"""Which adapters act together, at which scales, and which of them learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mix:
    """Adapters on top of the base model, for a batch or a part of one; none of them: the bare base.

    Attributes:
        scales: adapter -> scale, any sign; one at 0 does not act.
        train: those of them whose weights get gradients.
    """

    scales: Mapping[str, float] = field(default_factory=dict)
    train: tuple[str, ...] = ()
