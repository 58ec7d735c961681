"""`python -m tests.simulation --seed N [--trace]`: one run again, or many of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.breaks import BREAKS
from tests.simulation.run import run_one


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1, help="seeds from --seed on")
    parser.add_argument("--trace", action="store_true", help="tell every step")
    parser.add_argument("--harsh", action="store_true", help="all kinds of faults, and more")
    parser.add_argument("--break", dest="without", default="", choices=["", *BREAKS])
    given = parser.parse_args()
    seen: Counter[str] = Counter()
    failed = []
    started = time.process_time()
    for seed in range(given.seed, given.seed + given.count):
        run = run_one(seed, trace=given.trace, harsh=given.harsh, without=given.without)
        seen += run.seen
        for line in run.trace:
            print(line)
        if run.error:
            failed.append(seed)
            print(f"seed {seed}: {run.error}")
    seconds = time.process_time() - started
    print(f"{given.count} seeds, {len(failed)} failed {failed[:20]}, {seconds:.1f} s of CPU")
    for what, count in sorted(seen.items()):
        print(f"{count:8}  {what}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
