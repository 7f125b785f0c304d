"""The face world's probe, as what measures images: which attribute a dataset edits, and how to read it."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.measure.instruments import Probe


def attribute_of(dataset: str) -> str | None:
    """The attribute that a dataset edits: its name, without _single; None if the face world has no such."""
    from tinyflux.people import ATTRIBUTES  # torch comes with it

    name = dataset.removesuffix("_single")
    return name if name in ATTRIBUTES else None


def face_probe(dataset: str) -> "Probe | None":
    """The probe, for a dataset named after an attribute; None for another edit, which its pairs judge."""
    from tinyflux.people import COLOURS
    from tinyflux.probe import load_probe
    from tinyflux.render import RESOLUTION
    from utils.measure.instruments import Probe

    attribute = attribute_of(dataset)
    if attribute is None:
        return None
    probe = load_probe()
    changed = COLOURS if attribute == "sketch" else ()
    return Probe(probe.read, probe.features, attribute, changed, _strangers(), RESOLUTION)


@cache
def _strangers() -> float:
    """Mean distance between the probe's features of 32 rendered people."""
    import torch

    from tinyflux.people import sample_people
    from tinyflux.probe import load_probe
    from tinyflux.render import render
    from tinyflux.seeds import HELD_OUT

    return torch.pdist(load_probe().features(render(sample_people(HELD_OUT[:32])))).mean().item()
