"""``python -m tests.survive``: episodes of faults, each from a seed of its own, until one finds something.

An episode: some clients of different kinds at once, through a proxy that cuts, and a fault of the server's; then calm,
in which everybody must come to the end, byte by byte what should be there; then nothing may be left behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.survive import bodies, chats, faults, logs, streams
from tests.survive.caller import Caller, Finding, Mishaps
from tests.survive.stage import STORES, Stage, available, script, stage
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
# Of one stage; then the next one is set.
OF_A_STAGE = 100


@dataclass
class Told:
    """What a run did."""

    episodes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        faults = ", ".join(f"{name} {count}" for name, count in self.faults.most_common())
        done = f"{self.episodes} episodes, {self.connections} connections\nkinds: {kinds}\nfaults: {faults}"
        return "\n".join([done, *(f"not drawn: {name}: {why}" for name, why in self.missing.items())])


def episode(stage: Stage, seed: int, told: Told, only: str = "", always: str = "") -> None:
    """``only``: a kind of stream, ``always``: a fault. Raises Finding, whose text begins with the seed."""
    rng = random.Random(seed)
    chosen = [only] * 3 if only else rng.sample(list(KINDS), rng.randint(3, 7))
    name, fault = faults.draw(stage, rng, always)
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
    findings: list[str] = []

    def run(kind: str, caller: Caller) -> None:
        try:
            KINDS[kind](caller, stage.truth)
        except Exception as error:
            findings.append(f"{kind}: {type(error).__name__}: {error}")

    before = Counter(stage.proxy.faults)
    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(chosen, callers, strict=True)]
    _weather(stage, rng, storm_s, threads, fault)
    for thread in threads:
        thread.join(max(0.1, deadline + 30 - time.monotonic()))
    try:
        if findings or any(thread.is_alive() for thread in threads):
            raise Finding("; ".join(findings) or "a client hangs")
        stage.settled()
    except Finding as finding:
        raise Finding(
            f"--seed {seed} --episodes 1{_flags(stage, only, always)}: {chosen}, the server: {name}, "
            f"the model: {model}: {finding}\n{stage.server.tail(40)}"
        ) from None
    told.episodes += 1
    told.kinds.update(chosen)
    told.faults.update({name: 1, f"model: {model}": 1})
    told.faults.update(Counter(stage.proxy.faults) - before)
    told.connections += sum(caller.connections for caller in callers)


def _flags(stage: Stage, only: str, always: str) -> str:
    """What else the same episode is asked for with."""
    stores = " --stores " + ("servers" if stage.redis else "embedded")
    return stores + (f" --only {only}" if only else "") + (f" --fault '{always}'" if always else "")


def _weather(
    stage: Stage, rng: random.Random, storm_s: float, threads: list[threading.Thread], fault: Callable[[], None]
) -> None:
    """Begin the storm and start ``threads`` in it; do ``fault`` at some moment; return when it is calm."""
    stage.proxy.storm(random.Random(rng.random()))
    for thread in threads:
        thread.start()
    began = time.monotonic()
    time.sleep(rng.uniform(0, storm_s))
    fault()
    time.sleep(max(0.0, began + storm_s - time.monotonic()))
    stage.proxy.calm()


def survive(seed: int, episodes: int, seconds: float, stores: list[str], only: str = "", always: str = "") -> Told:
    """At most so many episodes and so long. The first episode's seed is ``seed``, each next one's is one more."""
    told = Told()
    until = time.monotonic() + seconds
    while told.episodes < episodes and time.monotonic() < until:
        kind = stores[told.episodes // OF_A_STAGE % len(stores)]
        with stage(kind, seed) as made:
            told.missing |= {name: why for name, why in faults.missing(made).items() if why != faults.NONE_HERE}
            for _ in range(OF_A_STAGE):
                if told.episodes >= episodes or time.monotonic() >= until:
                    break
                episode(made, seed + told.episodes, told, only, always)
                if told.episodes % 20 == 0:
                    print(f"{told.episodes} episodes", file=sys.stderr, flush=True)  # noqa: T201
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="make survive ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10_000.0, help="at most so long")
    parser.add_argument("--stores", choices=STORES, action="append", help="one of the stages only")
    parser.add_argument("--only", choices=sorted(KINDS), default="", help="one kind of stream only")
    parser.add_argument("--fault", choices=sorted(faults.FAULTS), default="", help="this one in every episode")
    asked = parser.parse_args()
    stores = [each for each in asked.stores or STORES if available(each)]
    print(f"seed {asked.seed}, stores {stores}", flush=True)  # noqa: T201
    try:
        print(survive(asked.seed, asked.episodes, asked.seconds, stores, asked.only, asked.fault))  # noqa: T201
    except Finding as finding:
        print(f"FOUND: {finding}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
