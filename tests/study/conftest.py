"""Reports of a comparison for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.known_reports import SEED, draw, write
from utils.report.figures import Plot


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole report of `three_methods`, with one picture."""
    folder = tmp_path_factory.mktemp("study")
    draw(folder, f"glasses_vmine_v1/images/{SEED}/skip14_scale1.00.png", 90)
    return write(folder).parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Plot]:
    """Nothing is drawn, which takes long; gives the plots by the name of their file."""
    plots: dict[str, Plot] = {}
    monkeypatch.setattr("utils.report.page.plot_bytes", lambda *_: b"")
    monkeypatch.setattr("utils.study.report.save_plot", lambda plot, path: plots.__setitem__(path.name, plot))
    return plots
