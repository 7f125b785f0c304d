"""Run the cases and print one line each, right or wrong; the exit status is 1 if any is wrong."""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from tests.strangers import load_cases


def main(kinds: list[str]) -> int:
    """Run the cases of the modules named, of all if none is."""
    wrong = 0
    for name, case in load_cases().items():
        if kinds and name.partition(":")[0] not in kinds:
            continue
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    case(Path(folder))
                print(f"right  {name}", flush=True)
            except Exception as error:
                wrong += 1
                print(
                    f"WRONG  {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True
                )
            finally:
                os.chdir(here)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
