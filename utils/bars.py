"""Progress on the terminal; where there is none, a line at the start and one at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar; into a file or a pipe go two lines in its place, and with TQDM_DISABLE set, nothing."""

    def __init__(
        self, iterable: Sequence[Any] | None = None, *, silent: bool = False, **options: Any
    ) -> None:
        """As tqdm's, without `file`; `silent`: nothing is shown, as by all processes but the first."""
        silent = silent or os.environ.get("TQDM_DISABLE", "") not in ("", "0", "false", "False")
        self._lines = not silent and not sys.stderr.isatty()
        super().__init__(iterable, disable=silent or self._lines, **options)
        if self._lines:
            self.desc, self.unit = options.get("desc", "progress"), options.get("unit", "step")
            self.total: float | None = options.get("total", None if iterable is None else len(iterable))
            self.postfix, self._started = "", time.monotonic()
            self.say("")

    def __iter__(self) -> Iterator[Any]:
        """Go through what it was given, counting."""
        if not self._lines:
            yield from super().__iter__()
            return
        for each in self.iterable:
            yield each
            self.n += 1
        self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more."""
        if self._lines:
            self.n += n or 0
            return None
        return super().update(n)

    def close(self) -> None:
        """Take the bar's last look, or say the last line; once."""
        if self._lines:
            self._lines = False
            self.say(f" in {time.monotonic() - self._started:.0f} s")
        super().close()

    def say(self, rest: str) -> None:
        """A line with how far it is."""
        total = "" if self.total is None else f" of {self.total:.12g}"
        noted = f", {self.postfix}" if self.postfix else ""
        print(f"{self.desc}: {self.n:.12g}{total} {self.unit}s{rest}{noted}", file=sys.stderr, flush=True)
