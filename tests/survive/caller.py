"""A client that is cut all the time and comes back: what every kind of stream is driven by.

Rules:
- What a client has seen of an answer that was cut is what came before; only a clean end says that it was whole.
- A refusal that says "later" (429, 502, 503, 504) is waited out; any other status is its kind's to judge.
- What a fault has taken from everybody (``Mishaps``) must be told; whoever is told begins anew.
- Nobody waits for ever: what has not come to its end by ``deadline`` is a finding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.clients import Answer, RawClient

PASSING = (429, 502, 503, 504)
IDLE_S = 10.0

Headers = Iterable[tuple[str, str]]


class Finding(AssertionError):
    """Something that must not happen."""


@dataclass
class Mishaps:
    """What has befallen the server in this episode that a client must be told of, and then may have lost.

    ``full``: its disk; ``emptied``: its Redis, which has lost everything; ``stepped``: its clock, so that what had a
    lifetime may be over.
    """

    full: bool = False
    emptied: bool = False
    stepped: bool = False

    @property
    def lifetimes(self) -> bool:
        """Whether what has a lifetime may be gone."""
        return self.emptied or self.stepped


class Caller:
    """``name``: one of its own in this run. ``deadline``: time.monotonic. ``connections``: how many it needed.

    ``finishes``: whether the model comes to its end, so that an answer may.
    """

    def __init__(
        self,
        port: int,
        name: str,
        rng: random.Random,
        deadline: float,
        finishes: bool = True,
        mishaps: Mishaps | None = None,
    ) -> None:
        self.port = port
        self.name = name
        self.rng = rng
        self.deadline = deadline
        self.finishes = finishes
        self.mishaps = mishaps or Mishaps()
        self.connections = 0

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
        enough: Callable[[Answer], bool] = lambda _: False,
    ) -> Answer:
        """One request over a connection of its own. Without an answer at all its status is 0.

        ``enough``: asked after each piece; true ends the reading there. Raises Finding after the deadline.
        """
        self.connections += 1
        if time.monotonic() > self.deadline:
            raise Finding(f"{self.name} has not come to its end: {method} {target}")
        answer = Answer(end="cut")
        try:
            with RawClient(self.port, timeout_s=IDLE_S) as client:
                client.request(method, target, headers, body)
                answer = client.answer
                while not (answer.end or enough(answer) or time.monotonic() > self.deadline):
                    client.receive()
        except OSError:  # refused, reset, silent
            answer.end = answer.end or "cut"
        return answer

    def beside(self, name: str) -> Caller:
        """Return another client of the same work: who publishes what this one reads."""
        return Caller(self.port, f"{self.name} {name}", self.rng, self.deadline, self.finishes, self.mishaps)

    def again(self) -> Caller:
        """Return who begins anew, under another name: what was begun under this one is lost, and that was told."""
        return Caller(self.port, f"{self.name}-again", self.rng, self.deadline, self.finishes, self.mishaps)

    def later(self) -> None:
        """A client comes back after a while."""
        time.sleep(self.rng.uniform(0.02, 0.25))

    def insist(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
        done: Iterable[int] = (200, 201, 204),
    ) -> Answer:
        """Ask until there is a whole answer with a status of ``done``; another than "later" is a Finding."""
        while True:
            answer = self.ask(method, target, headers, body)
            if answer.status in done and answer.end == "clean":
                return answer
            self.passing(answer, *done)
            self.later()

    def passing(self, answer: Answer, *fine: int) -> None:
        """Raise Finding for a status that no client comes back after, and that is not one of ``fine`` either."""
        full = (507,) if self.mishaps.full else ()
        if answer.status not in (0, *PASSING, *full, *fine):
            raise Finding(f"{self.name}: {answer}")


def same(name: str, got: bytes, expected: bytes) -> None:
    """Raise Finding where the bytes differ, with the place."""
    if got != expected:
        at = next(
            (n for n, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), min(len(got), len(expected))
        )
        raise Finding(
            f"{name}: {len(got)} bytes instead of {len(expected)}, other from {at} on: "
            f"{got[max(0, at - 40) : at + 40]!r} instead of {expected[max(0, at - 40) : at + 40]!r}"
        )


def prefix(name: str, got: bytes, expected: bytes) -> None:
    """Raise Finding where ``got`` is not what ``expected`` begins with."""
    same(name, got, expected[: len(got)])
