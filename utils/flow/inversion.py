"""From a photograph to its edits: an inversion finds where it lies in the flow, a slider moves it from there.

Every method here works on any velocity field, a FLUX transformer or a lambda, behind one call: photograph's
latents in, latents at every slider scale out, and scale 0 is the reconstruction. All but the authors' own
rule are continuous in the scale.
Convention: `sigma` in [0, 1], 1 = noise, velocity = d x_t / d sigma. A new method is one class and one line
in TRAINING_FREE.

    lora          a LoRA trained on the one photograph          PairEdit, arXiv 2506.07992
    euler         the flow run backwards, Euler steps           Liu et al. 2022, arXiv 2209.03003
    rf_solver     the same with second-order steps              RF-Solver, arXiv 2411.04746
    fireflow      second order at first-order cost              FireFlow, arXiv 2412.07517
    rf_inversion  steered to noise and back to the photograph   RF-Inversion, arXiv 2410.10792
    flowedit      no inversion: transport by differences        FlowEdit, arXiv 2412.08629
    flowslider    the same, only what steers it scaled          FlowSlider, arXiv 2604.02088
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from utils.errors import UserError, nearest
from utils.flow.inversion_free import (
    Backwards,
    FlowEdit,
    FlowSlider,
    RFInversion,
    euler_step,
    fireflow_step,
    midpoint_step,
)
from utils.flow.inversion_lora import Lora
from utils.flow.sampling import Fields


class Inversion(Protocol):
    """A way to edit photographs."""

    @property
    def uses_noise(self) -> bool:
        """Whether another noise gives another edit."""
        ...

    def edit(
        self, fields: Fields, x_0: Tensor, sigmas: Tensor, skip: int, scales: Sequence[float], noise: Tensor
    ) -> dict[float, Tensor]:
        """Edit photographs at every slider scale.

        Args:
            fields: the velocity with the adapter "semantic" (and "inversion", for `Lora`) at given scales.
            x_0: clean latents (B, C, h, w) of B photographs.
            sigmas: (N + 1,) falling from 1 to 0.
            skip: step index from which the edit acts, in 0..N; N edits nothing.
            scales: slider scales, of either sign.
            noise: standard normal, like x_0; methods without chance don't look at it.

        Returns:
            {scale: latents (B, C, h, w)}; scale 0 is the reconstruction.
        """
        ...


TRAINING_FREE: dict[str, Callable[[], Inversion]] = {
    "euler": lambda: Backwards(euler_step),
    "rf_solver": lambda: Backwards(midpoint_step),
    "fireflow": lambda: Backwards(fireflow_step),
    "rf_inversion": RFInversion,
    "flowedit": FlowEdit,
    "flowslider": FlowSlider,
}


def build_inversion(name: str, rule: str, weight: float) -> Inversion:
    """The inversion of a config.

    Args:
        name: "lora" or a key of TRAINING_FREE.
        rule: a key of RULES, for "lora".
        weight: `semantic_cfg_scale`, for "lora".

    Raises:
        UserError: for an unknown name, naming those there are.
    """
    if name == "lora":
        return Lora(rule, weight)
    if name not in TRAINING_FREE:
        known = ("lora", *TRAINING_FREE)
        raise UserError(f"inversion: expected one of {', '.join(known)}, found {name}{nearest(name, known)}")
    return TRAINING_FREE[name]()
