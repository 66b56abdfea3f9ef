"""``python -m tests.survive``: episodes of faults (``episodes``), on several stages side by side.

A stage is set for a hundred episodes, and one that finds something ends there; the others go on. An episode mostly
waits, so there are more stages at once than processors.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.survive import faults
from tests.survive.episodes import KINDS, Asked, Told, survive
from tests.survive.stage import STORES, available

OF_A_STAGE = 100


def parts(asked: Asked, stores: list[str]) -> Iterator[tuple[str, Asked]]:
    """Yield each stage with the episodes that are its own."""
    for n, first in enumerate(range(0, asked.episodes, OF_A_STAGE)):
        count = min(OF_A_STAGE, asked.episodes - first)
        yield stores[n % len(stores)], dataclasses.replace(asked, seed=asked.seed + first, episodes=count)


def survive_all(asked: Asked, stores: list[str], jobs: int) -> Told:
    """Return what was done on all stages, ``jobs`` at a time."""
    told = Told()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(survive, kind, part) for kind, part in parts(asked, stores)]
        for done in as_completed(waiting):
            told.add(part := done.result())
            print(f"{told.episodes} episodes", *part.findings, file=sys.stderr, flush=True)  # noqa: T201
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="make survive ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10_000.0, help="at most so long")
    parser.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1), help="stages at a time")
    parser.add_argument("--stores", choices=STORES, action="append", help="one of the stages only")
    parser.add_argument("--only", choices=sorted(KINDS), default="", help="one kind of stream only")
    parser.add_argument("--fault", choices=sorted(faults.FAULTS), default="", help="this one in every episode")
    args = parser.parse_args()
    stores = [each for each in args.stores or STORES if available(each)]
    print(f"seed {args.seed}, stores {stores}", flush=True)  # noqa: T201
    asked = Asked(args.seed, args.episodes, time.monotonic() + args.seconds, args.only, args.fault)
    told = survive_all(asked, stores, args.jobs)
    print(told, *(f"FOUND: {finding}" for finding in told.findings), sep="\n")  # noqa: T201
    return 1 if told.findings else 0


if __name__ == "__main__":
    sys.exit(main())
