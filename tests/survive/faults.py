"""What is done to the server in an episode, one of these at a random moment, besides what the proxy does."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable

from tests.harness import eventually
from tests.survive.stage import Stage

NONE_HERE = "this stage has none"
_MOST_STEPPED_S = 12 * 3600  # an upload that nobody goes on with is kept for a day


def _kill_worker(stage: Stage, rng: random.Random) -> None:
    _signal_worker(stage, rng, signal.SIGKILL)


def _end_worker(stage: Stage, rng: random.Random) -> None:
    _signal_worker(stage, rng, signal.SIGTERM)


def _signal_worker(stage: Stage, rng: random.Random, number: int) -> None:
    stage.killed = True
    if pids := stage.server.pids():
        with contextlib.suppress(ProcessLookupError):
            stage.server.signal(number, rng.choice(pids))


def _reload(stage: Stage, _: random.Random) -> None:
    stage.killed = True
    stage.server.signal(signal.SIGHUP)


def _restart(stage: Stage, _: random.Random) -> None:
    """The master is told to end, SIGTERM, and there is a new one."""
    stage.killed = True
    stage.restart()


def _crash(stage: Stage, _: random.Random) -> None:
    """The master and all workers at once."""
    stage.killed = True
    port = stage.server.port
    stage.server.kill()
    stage.server.port = port
    stage.server.start(60.0)


def _kill_master(stage: Stage, _: random.Random) -> None:
    """The master alone: its workers notice that, and go; then there is a new one."""
    stage.killed = True
    port, orphans = stage.server.port, stage.server.pids()
    stage.server.signal(signal.SIGKILL)
    stage.server.wait_exit()
    eventually(lambda: not any(map(_lives, orphans)), 20.0, "the workers of a killed master go")
    stage.server.kill()
    stage.server.port = port
    stage.server.start(60.0)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"  # proc(5): a zombie has ended
    except OSError:
        return False


def _fill_disk(stage: Stage, rng: random.Random) -> None:
    stage.mishaps.full = True
    with stage.disk.full():
        time.sleep(rng.uniform(0.2, 3))


def _fill_disk_and_kill(stage: Stage, rng: random.Random) -> None:
    """Whoever starts finds no room; whoever went left its files in the middle."""
    stage.mishaps.full = True
    with stage.disk.full():
        time.sleep(rng.uniform(0, 1))
        _kill_worker(stage, rng)
        time.sleep(rng.uniform(0.5, 3))


def _step_clock(stage: Stage, rng: random.Random) -> None:
    """By hours, forward or back; the clock stays there."""
    stage.mishaps.stepped = True
    to_s = rng.uniform(-_MOST_STEPPED_S, _MOST_STEPPED_S)
    stage.clock.step(to_s - stage.clock.stepped_s)


def _pause_redis(stage: Stage, rng: random.Random) -> None:
    assert stage.redis is not None
    stage.redis.pause()
    time.sleep(rng.uniform(0.2, 2))
    stage.redis.resume()


def _restart_redis(stage: Stage, rng: random.Random) -> None:
    assert stage.redis is not None
    stage.redis.restart(rng.choice([signal.SIGTERM, signal.SIGKILL]))


def _empty_redis(stage: Stage, rng: random.Random) -> None:
    """FLUSHALL, or a failover to one that has nothing."""
    assert stage.redis is not None
    stage.mishaps.emptied = True
    if rng.random() < 0.5:
        stage.redis.call("FLUSHALL")
    else:
        stage.redis.replace()


def _kill_backends(stage: Stage, _: random.Random) -> None:
    assert stage.postgres is not None
    stage.postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perennial'")


FAULTS: dict[str, Callable[[Stage, random.Random], None]] = {
    "a worker is killed": _kill_worker,
    "a worker is ended": _end_worker,
    "reload": _reload,
    "restart": _restart,
    "crash": _crash,
    "the master is killed": _kill_master,
    "disk full": _fill_disk,
    "disk full, and a worker is killed": _fill_disk_and_kill,
    "the clock steps": _step_clock,
    "Redis stands still": _pause_redis,
    "Redis is restarted": _restart_redis,
    "Redis is empty": _empty_redis,
    "backends are killed": _kill_backends,
}


def missing(stage: Stage) -> dict[str, str]:
    """Return what cannot be done on this stage, and why."""
    found = {name: stage.disk.why for name in FAULTS if name.startswith("disk full") and stage.disk.why}
    found |= {name: NONE_HERE for name in FAULTS if name.startswith(("Redis", "backends")) and not stage.redis}
    return found | ({"the clock steps": stage.clock.why} if stage.clock.why else {})


def draw(stage: Stage, rng: random.Random, only: str = "") -> tuple[str, Callable[[], None]]:
    """Return a fault's name, and what does it; in half of the episodes there is none. ``only``: that one, always."""
    name = only or (rng.choice(list(FAULTS)) if rng.random() < 0.5 else "none")
    if name == "none" or name in missing(stage):
        return "none", lambda: None
    return name, lambda: FAULTS[name](stage, rng)
