"""Episodes of faults, each from a seed of its own.

An episode: some clients of different kinds at once, through a proxy that cuts, and a fault of the server's; then calm,
in which everybody must come to the end, byte by byte what should be there; then nothing may be left behind.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.survive import bodies, chats, faults, logs, streams
from tests.survive.caller import Caller, Finding, Mishaps
from tests.survive.stage import Stage, script, stage
from tests.survive.truth import Truth

KINDS: dict[str, Callable[[Caller, Truth], None]] = {
    "text": streams.text,
    "ticks": streams.ticks,
    "rows": streams.rows,
    "safe": streams.safe,
    "download": streams.download,
    "video": streams.video,
    "export": streams.export,
    "export-range": streams.export_by_range,
    "transform": streams.transform,
    "events": logs.events,
    "durable": logs.durable,
    "durable-run": logs.durable_run,
    "upload": bodies.upload,
    "tus": bodies.tus,
    "draft": bodies.draft,
    "chat-text": chats.text,
    "chat-data": chats.data,
    "chat-ui": chats.ui,
    "chat-openai": chats.openai,
}
STORM_S = (0.5, 3.0)
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Asked:
    """``seed``: of the first episode, each next one's is one more. ``until``: none begins later (time.monotonic),
    but for the first on a stage that was being set up.

    ``only``: a kind of stream, ``fault``: one of the server's, each for every episode where it is not empty.
    """

    seed: int
    episodes: int
    until: float
    only: str = ""
    fault: str = ""


@dataclass
class Told:
    """What was done. ``missing``: faults that this machine cannot have, and why. ``findings``: each with its seed."""

    episodes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        faults = ", ".join(f"{name} {count}" for name, count in self.faults.most_common())
        done = f"{self.episodes} episodes, {self.connections} connections\nkinds: {kinds}\nfaults: {faults}"
        return "\n".join([done, *(f"not drawn: {name}: {why}" for name, why in self.missing.items())])

    def add(self, other: Told) -> None:
        self.episodes += other.episodes
        self.kinds.update(other.kinds)
        self.faults.update(other.faults)
        self.connections += other.connections
        self.missing |= other.missing
        self.findings += other.findings


def survive(stores: str, asked: Asked) -> Told:
    """On one stage, until an episode finds something or as many are done as were asked for."""
    told = Told()
    if time.monotonic() > asked.until:
        return told
    with stage(stores, asked.seed) as made:
        told.missing = {name: why for name, why in faults.missing(made).items() if why != faults.NONE_HERE}
        while told.episodes < asked.episodes and (not told.episodes or time.monotonic() < asked.until):
            seed = asked.seed + told.episodes
            try:
                _episode(made, seed, asked, told)
            except Finding as finding:
                flags = f" --only {asked.only}" * bool(asked.only) + f" --fault '{asked.fault}'" * bool(asked.fault)
                again = f"--seed {seed} --episodes 1 --stores {stores}{flags}"
                told.findings.append(f"{again}: {finding}\n{made.server.tail(40)}")
                break
            if told.episodes % 20 == 0:
                print(f"{stores}, from {asked.seed}: {told.episodes}", file=sys.stderr, flush=True)  # noqa: T201
    return told


def _episode(stage: Stage, seed: int, asked: Asked, told: Told) -> None:
    rng = random.Random(seed)
    chosen = [asked.only] * 3 if asked.only else rng.sample(list(KINDS), rng.randint(3, 7))
    name, fault = faults.draw(stage, rng, asked.fault)
    stage.mishaps = Mishaps()
    model, plays = script(rng)
    stage.model.plays(*plays["steps"], status=plays["status"])  # type: ignore[misc,arg-type]
    storm_s = rng.uniform(*STORM_S)
    deadline = time.monotonic() + storm_s + PATIENCE_S
    callers = [
        Caller(
            *(stage.proxy.port, f"{kind}-{seed}-{n}", random.Random(rng.random())),
            *(deadline, model == "whole", stage.mishaps),
        )
        for n, kind in enumerate(chosen)
    ]
    before = Counter(stage.proxy.faults)
    try:
        _play(stage, rng, storm_s, fault, dict(zip(callers, chosen, strict=True)), deadline + 30)
        stage.settled()
    except Finding as finding:
        raise Finding(f"{chosen}, the server: {name}, the model: {model}: {finding}") from None
    told.episodes += 1
    told.kinds.update(chosen)
    told.faults.update({name: 1, f"model: {model}": 1})
    told.faults.update(Counter(stage.proxy.faults) - before)
    told.connections += sum(caller.connections for caller in callers)


def _play(
    stage: Stage,
    rng: random.Random,
    storm_s: float,
    fault: Callable[[], None],
    callers: dict[Caller, str],
    until: float,
) -> None:
    """A storm with ``fault`` at some moment in it, and calm after it; return when every client is at its end."""
    findings: list[str] = []

    def run(caller: Caller, kind: str) -> None:
        try:
            KINDS[kind](caller, stage.truth)
        except Exception as error:
            findings.append(f"{kind}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in callers.items()]
    stage.proxy.storm(random.Random(rng.random()))
    for thread in threads:
        thread.start()
    began = time.monotonic()
    time.sleep(rng.uniform(0, storm_s))
    fault()
    time.sleep(max(0.0, began + storm_s - time.monotonic()))
    stage.proxy.calm()
    for thread in threads:
        thread.join(max(0.1, until - time.monotonic()))
    if findings or any(thread.is_alive() for thread in threads):
        raise Finding("; ".join(findings) or "a client hangs")
