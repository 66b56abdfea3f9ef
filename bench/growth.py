"""How cost grows: six curves, measured from small to large, drawn, and each told in a sentence: where does it bend?

Rules:
- Each curve stands beside its limit where there is one: the same done by bare system calls, in the same run.
- The whole takes some five minutes; a curve that fails says so, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import growth_bodies, growth_events, growth_work
from bench.ground import Ground
from bench.grown import Grown


@dataclass(frozen=True, slots=True)
class Reach:
    """How far each curve goes."""

    subscribers: tuple[int, ...]
    logs: tuple[int, ...]
    files: tuple[int, ...]
    rows: tuple[int, ...]
    chats: tuple[int, ...]
    workers: tuple[int, ...]


FULL = Reach(
    subscribers=(1, 10, 100, 300, 1000, 3000, 10_000),
    logs=(1, 10, 100, 300, 1000),
    files=(*(10**n for n in range(3, 10)), 10 * 2**30),
    rows=(10**3, 10**4, 10**5, 10**6, 10**7),
    chats=(1, 5, 20, 50, 100, 200, 500),
    workers=(1, 2, 3, 4),
)
QUICK = Reach(
    subscribers=(1, 10, 100),
    logs=(1, 5, 20),
    files=(10**3, 10**5, 10**7),
    rows=(10**3, 10**4),
    chats=(1, 4),
    workers=(1, 2),
)
CURVES: dict[str, Callable[[Ground, tuple[int, ...]], Grown]] = {
    "subscribers": growth_events.subscribers,
    "logs": growth_events.logs,
    "files": growth_bodies.files,
    "rows": growth_bodies.rows,
    "chats": growth_work.chats,
    "workers": growth_work.workers,
}


def growth(ground: Ground) -> None:
    reach = QUICK if ground.quick else FULL
    for name, curve in CURVES.items():
        with ground.report.attempt(f"the curve of {name}"):
            curve(ground, getattr(reach, name)).tell(ground.report, name)
