"""From noise to an image: the Euler loop, and sweeps of an edit's scale that share what they can.

Works on any velocity field, a FLUX transformer or a lambda. Convention: `sigma` in [0, 1], 1 = noise, and
velocity = d x_t / d sigma, so integrating from sigma = 1 down to sigma = 0 turns noise into an image.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from utils.config.schema import SliderScale

VelocityFn = Callable[[Tensor, Tensor], Tensor]
"""(x_t of shape (B, ...), sigma of shape (B,)) -> velocity, shaped like x_t."""

Fields = Callable[..., VelocityFn]
"""Adapter scales -> velocity field; {} is the bare base model. `Velocity.scaled` is one.

Called with n of them, it gives the field of a batch of n equal parts, each at its own: one forward pass.
"""

Scale = TypeVar("Scale", bound=SliderScale)

Hold = Callable[[Tensor, Tensor], Tensor]
"""(unedited x_t, edited x_t) -> the edited one, corrected; see utils/flow/locality.py."""

OnStep = Callable[[int, Tensor], None]
"""(step_index just done, x_t after it); for progress bars and for looking at what happens on the way."""


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw the starting noise of one image a seed.

    Every seed has a generator of its own, on the CPU: its image then depends neither on the other images of
    the batch nor on the device. It is also what `FluxPipeline(generator=...)` draws for that seed in float32.

    Args:
        seeds: one integer an image.
        shape: of one image's latents, (C, h, w).

    Returns:
        (len(seeds), *shape), float32 on the CPU, standard normal.

    Raises:
        ValueError: `seeds` is empty.
    """
    if not seeds:
        raise ValueError("initial_noise: expected at least one seed, found none")
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def euler_sample(
    velocity: VelocityFn,
    x: Tensor,
    sigmas: Tensor,
    start: int = 0,
    stop: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate the probability-flow ODE with Euler's method, over steps `start` to `stop` - 1.

        x_{i+1} = x_i + (sigma_{i+1} - sigma_i) * velocity(x_i, sigma_i)

    (Liu et al. 2022, "Flow Straight and Fast", arXiv 2209.03003, section 2.) As in diffusers' scheduler, the
    sum is taken in float32 at least, and the state is handed on in the velocity's own dtype.

    Args:
        velocity: the field; called with x_t (B, ...) and sigma (B,).
        x: (B, ...), the state at sigmas[start].
        sigmas: (N + 1,), noise levels in [0, 1], descending for generation; N is the number of steps.
        start: index of the first step taken.
        stop: index one past the last step taken; None takes all N.
        on_step: called after each step with its index and the new state.

    Returns:
        (B, ...), the state at sigmas[stop]; `x` itself when there is no step to take.

    Raises:
        ValueError: not 0 <= start <= stop <= N.
    """
    num_steps = len(sigmas) - 1
    stop = num_steps if stop is None else stop
    if not 0 <= start <= stop <= num_steps:
        raise ValueError(
            f"expected 0 <= start <= stop <= {num_steps} steps, found start={start}, stop={stop}"
        )
    sigmas = sigmas.to(x.device)
    for step_index in range(start, stop):
        sigma = sigmas[step_index]
        v = velocity(x, sigma.expand(len(x)))
        precise = torch.promote_types(v.dtype, torch.float32)
        x = (x.to(precise) + (sigmas[step_index + 1] - sigma) * v).to(v.dtype)
        if on_step is not None:
            on_step(step_index, x)
    return x


def sweep_skips(
    velocity_for: Callable[[Sequence[Scale]], VelocityFn],
    x_start: Tensor,
    sigmas: Tensor,
    skips: Sequence[int],
    scales: Sequence[Scale],
    on_step: OnStep | None = None,
    hold: Hold | None = None,
    onsets: Sequence[int] = (),
) -> dict[int, dict[Scale, Tensor]]:
    """Generate at every slider scale, the edit setting in at step `skip`, for every skip.

    Before `skip` all scales follow the unedited base (scale 0), which keeps the composition; that prefix is
    computed once. All skips share one base trajectory, scale 0 is its end, and the edited scales branch off
    it. At each step all branches go through the model as one batch, and nothing is computed twice:
    `sweep_forwards` gives the number of images.

    Args:
        velocity_for: slider scales -> velocity field of a batch of as many equal parts, one at each.
        x_start: (B, ...), noise at sigmas[0].
        sigmas: (N + 1,) as in `euler_sample`.
        skips: step indices in 0..N; N means the edit never sets in.
        scales: slider scales, of either sign, or one a LoRA in a tuple; a repeated one is computed once.
        on_step: as in `euler_sample`, with the states of all branches at once.
        hold: corrects an edited branch after each step by the unedited one, which then runs to the end.
        onsets: of several LoRAs, the step from which each acts, if that is later than the skip; (): none is.

    Returns:
        {skip: {scale: (B, ...) at sigmas[N]}}, in the order of `skips` and `scales`.

    Raises:
        ValueError: no skip, no scale, or a skip outside 0..N.
    """
    num_steps = len(sigmas) - 1
    if not skips or not scales:
        raise ValueError(f"expected at least one skip and one scale, found skips={skips}, scales={scales}")
    if outside := [skip for skip in skips if not 0 <= skip <= num_steps]:
        raise ValueError(f"expected every skip within 0..{num_steps}, found {outside}")
    edited, zero = _edited(scales), _zero(scales[0])
    base_end = num_steps if len(edited) < len(set(scales)) or (hold and edited) else max(skips)

    base, branches = x_start, dict[tuple[int, Scale], Tensor]()
    for step in range(num_steps):
        if step in skips:
            branches |= {(step, scale): base for scale in edited}
        states = [base] * (step < base_end) + [*branches.values()]
        acting = [_begun(scale, onsets, step) for _, scale in branches]
        velocity = velocity_for([zero] * (step < base_end) + acting)
        states = [
            *euler_sample(velocity, torch.cat(states), sigmas, step, step + 1, on_step).chunk(len(states))
        ]
        if step < base_end:
            base = states.pop(0)
        if hold is not None and branches:
            states = [hold(base, state) for state in states]
        branches = dict(zip(branches, states, strict=True))
    return {skip: {scale: branches.get((skip, scale), base) for scale in scales} for skip in skips}


def sweep(
    velocity_for: Callable[[Sequence[Scale]], VelocityFn],
    x_start: Tensor,
    sigmas: Tensor,
    skip: int,
    scales: Sequence[Scale],
    on_step: OnStep | None = None,
    hold: Hold | None = None,
) -> dict[Scale, Tensor]:
    """Generate at every slider scale for one skip; `sweep_skips` says how. Returns {scale: (B, ...)}."""
    return sweep_skips(velocity_for, x_start, sigmas, [skip], scales, on_step, hold)[skip]


def sweep_forwards(
    num_inference_steps: int, skips: Sequence[int], scales: Sequence[Scale], held: bool = False
) -> int:
    """Count the images, of each seed, that `sweep_skips` sends through the model; `held`: with a `hold`."""
    edited = _edited(scales)
    base = num_inference_steps if len(edited) < len(set(scales)) or (held and edited) else max(skips)
    return base + len(edited) * sum(num_inference_steps - skip for skip in set(skips))


def _zero(scale: Scale) -> Scale:
    """Scale 0, of as many LoRAs."""
    return cast(Scale, (0.0,) * len(scale) if isinstance(scale, tuple) else 0.0)


def _begun(scale: Scale, onsets: Sequence[int], step: int) -> Scale:
    """The scale of several LoRAs with those at 0 that do not act yet."""
    if not onsets or not isinstance(scale, tuple):
        return scale
    own = zip(scale, onsets, strict=True)
    return cast(Scale, tuple(each if step >= onset else 0.0 for each, onset in own))


def _edited(scales: Sequence[Scale]) -> list[Scale]:
    """The scales that are not the base model's, each once."""
    return [scale for scale in dict.fromkeys(scales) if (any(scale) if isinstance(scale, tuple) else scale)]
