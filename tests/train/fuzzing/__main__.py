"""Try cases and print what came of them, by kind, and the traceback of each that is wrong; 1 if any is."""

import argparse
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.train.fuzzing.cases import fresh_seed, run_cases, table


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, help="FUZZ_SEED, else another one every time")
    parser.add_argument("--only", type=int, help="one case alone, by its number")
    args = parser.parse_args()
    seed = fresh_seed() if args.seed is None else args.seed
    numbers = list(range(args.cases)) if args.only is None else [args.only]
    print(f"seed {seed}", flush=True)
    started, outcomes = time.perf_counter(), []
    for outcome in run_cases(seed, numbers):
        outcomes.append(outcome)
        if outcome.fault:
            print(f"--only {outcome.number}: {outcome.kind}\n{outcome.fault[-3000:]}", flush=True)
    print(f"{table(outcomes)}\nseed {seed}, {time.perf_counter() - started:.0f} s")
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
