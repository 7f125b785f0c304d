"""What strangers bring: inputs that once went wrong, each with what is right. One line each:

python -m tests.strangers              # all
python -m tests.strangers pictures     # those of one module here

A case is a function that makes the input in an empty folder and asserts what must come of it. `make test`
runs them, too (tests/test_strangers.py). A module for each kind.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

Case = Callable[[Path], None]
"""Makes its input in the folder it is given; raises for what is wrong."""

CASES: dict[str, Case] = {}
"""'module: what must hold' -> its case."""


def case(says: str) -> Callable[[Case], Case]:
    """Register a case under its module's name and the sentence of what must hold."""

    def registered(function: Case) -> Case:
        name = f"{function.__module__.rpartition('.')[2]}: {says}"
        if name in CASES:
            raise ValueError(f"expected a sentence of its own for each case, found {name!r} twice")
        CASES[name] = function
        return function

    return registered


def load_cases() -> dict[str, Case]:
    """All cases of the modules beside this file."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"{__name__}.{module.name}")
    return CASES
