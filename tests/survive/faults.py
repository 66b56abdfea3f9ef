"""What is done to the server in an episode, one of these at a random moment, besides what the proxy does."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable

from tests.survive.stage import Stage


def _kill_worker(stage: Stage, rng: random.Random) -> None:
    if pids := stage.server.pids():
        with contextlib.suppress(ProcessLookupError):
            stage.server.signal(signal.SIGKILL, rng.choice(pids))


def _end_worker(stage: Stage, rng: random.Random) -> None:
    if pids := stage.server.pids():
        with contextlib.suppress(ProcessLookupError):
            stage.server.signal(signal.SIGTERM, rng.choice(pids))


def _reload(stage: Stage, _: random.Random) -> None:
    stage.server.signal(signal.SIGHUP)


def _restart(stage: Stage, _: random.Random) -> None:
    stage.restart()


def _crash(stage: Stage, _: random.Random) -> None:
    """The master and all workers at once."""
    port = stage.server.port
    stage.server.kill()
    stage.server.port = port
    stage.server.start(60.0)


def _pause_redis(stage: Stage, rng: random.Random) -> None:
    assert stage.redis is not None
    stage.redis.pause()
    time.sleep(rng.uniform(0.2, 2))
    stage.redis.resume()


def _restart_redis(stage: Stage, rng: random.Random) -> None:
    assert stage.redis is not None
    stage.redis.restart(rng.choice([signal.SIGTERM, signal.SIGKILL]))


def _kill_backends(stage: Stage, _: random.Random) -> None:
    assert stage.postgres is not None
    stage.postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perennial'")


_OF_ALL: dict[str, Callable[[Stage, random.Random], None]] = {
    "a worker is killed": _kill_worker,
    "a worker is ended": _end_worker,
    "reload": _reload,
    "restart": _restart,
    "crash": _crash,
}
_OF_SERVERS = {
    "Redis stands still": _pause_redis,
    "Redis is restarted": _restart_redis,
    "backends are killed": _kill_backends,
}


def draw(stage: Stage, rng: random.Random) -> tuple[str, Callable[[], None]]:
    """Return a fault's name, and what does it; in half of the episodes there is none."""
    if rng.random() < 0.5:
        return "none", lambda: None
    faults = _OF_ALL | (_OF_SERVERS if stage.redis is not None else {})
    name = rng.choice(list(faults))
    return name, lambda: faults[name](stage, rng)
