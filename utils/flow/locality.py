"""An edited image held to the unedited one wherever the edit does nothing: less leaks, at no cost.

In a sweep the unedited image runs along, and at every step it is known where an edited branch has left it.
Where that is little beside where it is most, the branch goes back: so little the edit did not mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Locality:
    """Holds a branch x_s to the unedited x_0 of the same noise level, after each step.

        change = blur of mean over channels |x_s - x_0|                       3 x 3
        m      = smoothstep(change / its 98th percentile, low, high)          0 below low, 1 above high
        x_s   <- x_0 + m (x_s - x_0)

    At scale 0 both are one, and stay so; as the scale goes to 0 the difference does, whatever m is.

    Attributes:
        low, high: of the change's 98th percentile, below which nothing and above which all of it stays.
    """

    low: float = 0.15
    high: float = 0.35

    def __call__(self, unedited: Tensor, edited: Tensor) -> Tensor:
        """The edited latents (B, C, h, w), held to the unedited (B, C, h, w)."""
        difference = edited - unedited
        change = difference.abs().mean(dim=1, keepdim=True)
        change = functional.avg_pool2d(change, 3, 1, 1, count_include_pad=False)
        most = torch.quantile(change.flatten(1).float(), 0.98, dim=1).reshape(-1, 1, 1, 1)
        ratio = change / most.clamp(min=torch.finfo(most.dtype).tiny).to(change.dtype)
        ramp = ((ratio - self.low) / (self.high - self.low)).clamp(0, 1)
        return unedited + ramp.square() * (3 - 2 * ramp) * difference
