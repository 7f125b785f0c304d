"""The measuring scripts as they are typed; probe and networks see colours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import MINI_RESOLUTION, TRAIN, Script
from tests.train.measuring import SCALES, paint_slider, run_of
from tinyflux.people import ATTRIBUTES
from utils.measure.encoders import ENCODERS

NO_WEIGHTS = "".join(f"{name}_weights: ''\n" for name in (*ENCODERS, "inception"))


class Probe:
    """Reads the age and the smile off red, everything else off blue; its features are the colour."""

    def read(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        red, _, blue = (images.mean(dim=(2, 3)) / 2 + 0.5).unbind(dim=1)
        return {name: red if name in ("age", "smile") else blue for name in ATTRIBUTES}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture
def measure(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Call a script on the study `mini`, its judge the probe; no outside network has weights."""
    path = site / "config/mini.yaml"
    scales = ",".join(map(str, SCALES))
    own = f"scales: {scales}\nstart_seed_gen: 0\ncount_gen: 3\njudge: probe\n{NO_WEIGHTS}"
    path.write_text(path.read_text().replace("scales: 0,0.5,-1\n", own))
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    monkeypatch.setattr("tinyflux.probe.load_probe", Probe)
    monkeypatch.setattr("tinyflux.judge._strangers", lambda: 1.0)
    monkeypatch.setattr("tinyflux.render.RESOLUTION", MINI_RESOLUTION)  # of what it reads
    return lambda name, *arguments: script(name, "--c=mini", *arguments)


@pytest.fixture
def painted(site: Path) -> Path:
    """The images of the run on `age`, as generation would have written them."""
    folder = run_of("age").seeds_folder
    paint_slider(folder)
    return folder
