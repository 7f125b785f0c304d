"""sd-scripts' flags of steps, epochs and saves, which go before one another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from utils.data.foreign.rows import IDLE, NOT_GIVEN, SAME, TRANSLATED, number, whole
from utils.data.foreign.translation import Translation


def read_steps(found: Translation, rest: Mapping[str, Any]) -> None:
    """How long is trained, in which batches, and when LoRAs are saved."""
    _saves(found, rest, _steps(found, rest))


def _steps(found: Translation, rest: Mapping[str, Any]) -> int:
    """Steps or epochs, and batches; gives the steps, 0 where there are epochs, or none that can be read."""
    try:
        batch, together = (
            whole(rest["train_batch_size"] or 1),
            whole(rest["gradient_accumulation_steps"] or 1),
        )
        steps, epochs = whole(rest["max_train_steps"] or 1600), whole(rest["max_train_epochs"] or 0)
    except ValueError as error:
        found.fault("max_train_steps, max_train_epochs, train_batch_size", str(error))
        return 0
    found.set("train_batch_size", rest["train_batch_size"] or NOT_GIVEN, "batch_size", batch * together)
    if rest["gradient_accumulation_steps"] is not None:
        ours, why = f"batch_size={batch * together}", "one batch"
        found.say("gradient_accumulation_steps", together, TRANSLATED, ours, why)
    if epochs:
        found.set("max_train_epochs", epochs, "train_epochs", epochs, SAME)
        if rest["max_train_steps"] is not None:
            found.say("max_train_steps", steps, IDLE, why="max_train_epochs goes before it")
    else:
        found.set("max_train_steps", rest["max_train_steps"] or NOT_GIVEN, "train_iteration", steps)

    # Warm-up in steps, or as a share of them.
    schedule, warmup = found.values.get("lr_scheduler"), rest["lr_warmup_steps"]
    try:
        share = number(str(warmup or 0).removesuffix("%")) / (100 if str(warmup).endswith("%") else 1)
    except ValueError as error:
        found.fault("lr_warmup_steps", str(error))
        return 0 if epochs else steps
    if share and schedule == "constant":
        found.fault(
            "lr_warmup_steps",
            f"expected 0 with lr_scheduler constant, found {warmup}; {found.tool} refuses it, too",
        )
    elif 0 < share < 1 and epochs:
        found.fault("lr_warmup_steps", f"expected a number of steps, since there are epochs; found {warmup}")
    elif share:
        count = int(share * steps) if share < 1 else int(share)
        found.set("lr_warmup_steps", warmup, "lr_warmup_steps", count, SAME if share >= 1 else TRANSLATED)
    elif warmup is not None:
        found.say("lr_warmup_steps", warmup, SAME, "lr_warmup_steps=0")
    return 0 if epochs else steps


def _saves(found: Translation, rest: Mapping[str, Any], steps: int) -> None:
    """When LoRAs are saved; the last one always is."""
    epochs = found.values.get("train_epochs", 0)
    by = {name: rest[name] for name in ("save_every_n_epochs", "save_every_n_steps", "save_n_epoch_ratio")}
    try:
        counts = {name: whole(value) for name, value in by.items() if value is not None}
    except ValueError as error:
        found.fault("save_every_n_epochs, save_every_n_steps", str(error))
        return
    every, at = counts.get("save_every_n_epochs", 0), counts.get("save_every_n_steps", 0)
    if "save_n_epoch_ratio" in counts:
        if epochs:
            every = max(epochs // max(counts["save_n_epoch_ratio"], 1), 1)
            found.say("save_n_epoch_ratio", by["save_n_epoch_ratio"], TRANSLATED, f"save_per_epochs={every}")
        else:
            found.say("save_n_epoch_ratio", by["save_n_epoch_ratio"], IDLE, why="without max_train_epochs")

    # What saves nothing before the end is said: it is rarely what is meant.
    if epochs and every >= epochs:
        why = f"there are {epochs} epochs: nothing is saved before the end, by {found.tool} neither"
        found.say("save_every_n_epochs", every, IDLE, why=why)
        every = 0
    if steps and at >= steps:
        why = f"there are {steps} steps: nothing is saved before the end, by {found.tool} neither"
        found.say("save_every_n_steps", at, IDLE, why=why)
        at = 0
    if every and at:
        found.fault("save_every_n_epochs", f"expected it or save_every_n_steps, found both, {every} and {at}")
    elif every:
        found.set("save_every_n_epochs", every, "save_per_epochs", every, SAME)
    elif at:
        found.set("save_every_n_steps", at, "save_per_steps", at, SAME)
    elif epochs:
        found.values["save_per_epochs"] = epochs
    else:
        found.values["save_per_steps"] = max(steps, 1)
    _kept(found, rest, every, at)


def _kept(found: Translation, rest: Mapping[str, Any], every: int, at: int) -> None:
    """How many LoRAs of earlier steps are kept."""
    for name, between in (("save_last_n_epochs", every), ("save_last_n_steps", at)):
        if rest[name] is None:
            continue
        if not between:
            found.say(name, rest[name], IDLE, why="nothing is saved before the end by such a number")
        elif name == "save_last_n_epochs":
            found.read(name, rest[name], "save_total_limit", whole)
        else:
            found.read(name, rest[name], "save_total_limit", partial(_among, between))


def _among(between: int, value: Any) -> int:
    """How many saves so many steps hold."""
    return max(whole(value) // between, 1)
