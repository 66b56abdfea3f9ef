"""How a worker is exchanged for a fresh one, and no stream is cut for it: after so many requests, or when it has grown.

gunicorn's own ``max_requests`` stops a worker first, starts the next one when the last stream of the old one has ended,
and cuts what takes longer than ``graceful_timeout``.

Rules:
- A worker that wants to go asks its master, in a byte of memory that they share, and serves on meanwhile.
- The master starts another one. Only when as many serve as should, the one that asked is relieved; where the new one
  does not come up, the old one goes on.
- A reload does not keep the master from its work: gunicorn's would wait in it until the old workers have ended, for the
  whole grace time, in which a crashed worker is not replaced and no signal is heard.
- Who was relieved drains as at a stop, but without a deadline: SIGTERM and SIGHUP set one.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
from typing import Any

from streaming.memory import own_bytes

BOOTING, SERVING, ASKING, RELIEVED = range(4)
# gunicorn counts its workers, and the oldest have the lowest number.
_AGES = 2**40


class Stage:
    """Where a worker is in its life: known to itself and to its master. Made before the fork."""

    __slots__ = ("_byte",)

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def get(self) -> int:
        return self._byte[0]

    def set(self, stage: int) -> None:
        self._byte[0] = stage


def tell(master: int, stage: Stage, reached: int) -> None:
    """In a worker: say where it is now. The master looks at its workers when it hears SIGCHLD."""
    stage.set(reached)
    os.kill(master, signal.SIGCHLD)


class Wear:
    """When a worker is to go: after ``requests`` (0: never) or with more than ``most_bytes`` of its own (0: any size).

    Each has up to a fifth more requests, drawn for it, or all workers would go in the same moment.
    """

    def __init__(self, requests: int, most_bytes: int) -> None:
        self._requests = requests and requests + random.randint(0, requests // 5)
        # Who is too large from the start would be exchanged for ever.
        self._most_bytes = most_bytes if own_bytes() < most_bytes else 0

    def found(self, served: int) -> str:
        """Return why the worker is to go, "" while it need not."""
        if self._requests and served >= self._requests:
            return f"it has had {served} requests"
        if self._most_bytes and (size := own_bytes()) > self._most_bytes:
            return f"it has grown to {size} bytes"
        return ""


class Relief:
    """The master's side, around the ``manage_workers`` of a gunicorn arbiter: made once, before it runs."""

    def __init__(self, arbiter: Any) -> None:
        self._arbiter = arbiter
        self._manage = arbiter.manage_workers
        self._extra = 0
        # Those that a reload has told to go.
        self._dismissed: set[int] = set()
        self._reloading = False
        self._aged: list[Any] = []
        arbiter.manage_workers = self.manage

    def reloaded(self) -> None:
        """To be called at a reload, when the number of workers is as in the settings and none has been started."""
        self._extra = 0
        self._dismissed = set(self._arbiter.WORKERS)
        self._reloading = True

    def manage(self) -> None:
        """Have a worker for each that leaves; relieve who asked as soon as as many serve as should."""
        while self._aged:
            self._aged.pop().age -= _AGES
        staff = self._arbiter.WORKERS
        self._dismissed &= staff.keys()  # the number of one that has ended may be another's one day
        workers = [worker for pid, worker in staff.items() if pid not in self._dismissed]
        leaving = [worker for worker in workers if _stage(worker) in (ASKING, RELIEVED)]
        # In the reload itself gunicorn tells all old ones to go, as more than there are to be.
        extra = len(leaving) + (0 if self._reloading else len(staff) - len(workers))
        if extra != self._extra:
            self._arbiter.num_workers += extra - self._extra
            self._extra = extra
        self._manage()
        if self._reloading:
            self._reloading = False
            self._hurry()
        serving = sum(_stage(worker) == SERVING for worker in workers)
        if serving >= self._arbiter.num_workers - self._extra:
            for worker in leaving:
                worker.stage.set(RELIEVED)

    def _hurry(self) -> None:
        """Until ``manage`` is called next, let gunicorn's reload take the old workers for new ones, and so be over."""
        self._aged = [worker for pid, worker in self._arbiter.WORKERS.items() if pid in self._dismissed]
        for worker in self._aged:
            worker.age += _AGES


def _stage(worker: Any) -> int:
    """Who is of another worker class than ours has none, and is never relieved."""
    stage: Stage | None = getattr(worker, "stage", None)
    return SERVING if stage is None else stage.get()
