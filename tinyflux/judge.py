"""The face world's probe, as what measures images: which attribute a dataset edits, and how to read it."""

from functools import cache
from typing import TYPE_CHECKING

from utils.errors import UserError, nearest

if TYPE_CHECKING:
    from utils.measure.judges import Probe


def attribute_of(dataset: str) -> str:
    """The attribute that a dataset edits: its name, without _single.

    Raises:
        UserError: the face world has no such attribute.
    """
    from tinyflux.people import ATTRIBUTES  # torch comes with it

    name = dataset.removesuffix("_single")
    if name not in ATTRIBUTES:
        raise UserError(
            f"datasets: expected names of attributes that the probe reads (and _single), found {dataset!r}"
            f"{nearest(name, ATTRIBUTES)}; there are: {', '.join(ATTRIBUTES)}; for other edits: judge=clip"
        )
    return name


def face_probe(dataset: str) -> "Probe":
    """The probe, for a dataset named after an attribute; raises `UserError` for another."""
    from tinyflux.people import COLOURS
    from tinyflux.probe import load_probe
    from utils.measure.judges import Probe

    probe, attribute = load_probe(), attribute_of(dataset)
    changed = COLOURS if attribute == "sketch" else ()
    return Probe(probe.read, probe.features, attribute, changed, _strangers())


@cache
def _strangers() -> float:
    """Mean distance between the probe's features of 32 rendered people."""
    import torch

    from tinyflux.people import sample_people
    from tinyflux.probe import load_probe
    from tinyflux.render import render
    from tinyflux.seeds import HELD_OUT

    return torch.pdist(load_probe().features(render(sample_people(HELD_OUT[:32])))).mean().item()
