"""Trackers: the one that report_to names, or none, and what is said where it is not installed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.mini_runs import learn, make_run, objective_of
from utils.config.schema import Config
from utils.errors import UserError
from utils.jobs.prepare import check_fits


def test_without_a_tracker_the_losses_are_on_disk_alone(tmp_path, mini_flux_loaded, pairs) -> None:
    run = make_run(tmp_path, report_to="none", sample_per_steps=3, count_gen=1)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert run.log_path.is_file()
    assert run.sample_path(3).is_file()
    assert not list(run.folder.rglob("*tfevents*"))


def test_another_tracker_gets_losses_and_samples(tmp_path, mini_flux_loaded, pairs, monkeypatch) -> None:
    from accelerate import tracking

    seen: list[tuple] = []

    class Stub(tracking.GeneralTracker):
        name, requires_logging_directory, main_process_only = "wandb", False, True

        def __init__(self, run_name: str, **settings: object) -> None:
            super().__init__()
            seen.append((run_name, settings))

        @property
        def tracker(self) -> None:
            return None

        def store_init_configuration(self, values: dict) -> None: ...

        def log(self, values: dict, step: int | None = None, **settings: object) -> None:
            seen.append((step, sorted(values)))

        def log_images(self, values: dict, step: int | None = None, **settings: object) -> None:
            seen.append((step, values["samples"].shape[0]))

    run = make_run(tmp_path, report_to="wandb", sample_per_steps=6, log_every=3, count_gen=1)
    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda *_: ["wandb"])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Stub)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    losses = ["loss/content", "loss/semantic"]
    project, settings = seen[0]
    assert (project, settings["name"], settings["resume"]) == ("pairedit", run.name, "allow")
    assert len(settings["id"]) == 16
    assert seen[1:] == [(3, losses), (4, losses), (6, losses), (6, 1)]


def test_a_tracker_that_is_not_installed_is_told_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(Config(), report_to="wandb")
    monkeypatch.setattr("utils.jobs.prepare.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"report_to: expected wandb.*pip install -e '.\[wandb\]'"):
        check_fits(config, None)
