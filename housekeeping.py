"""What a worker does now and then: forget what has had its time, live on, hear the others, count.

Rules:
- A greenlet each, for as long as the worker lives; what fails is said and tried again, and keeps nothing else from its
  turn: on a full disk the log forgets nothing, and the sweeps behind it make the room.
- They end before the stores do.
"""

from __future__ import annotations

import atexit
import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gevent
from flask import Flask

from stores.errors import StoreError
from streaming import metrics
from streaming.leases import RENEW_S

_KEEP_S = 60.0
# Of the younger objects: some ten thousand each.
_COLLECTIONS = 10
log = logging.getLogger("perennial")


def begin(app: Flask, listeners: Sequence[Any] = ()) -> None:
    """Now and then, for as long as the worker lives: forget what has had its time, and look at what is to be told."""

    def keep() -> None:
        while True:
            do_each(sweeps(app))
            collect()
            gevent.sleep(_KEEP_S)

    def renew() -> None:
        while True:
            try:
                app.extensions["lease"].renew()
            except StoreError:
                log.exception("the lease was not renewed, and that is tried again")
            gevent.sleep(RENEW_S)

    watch = metrics.Watch({"threads": _jobs, "log": app.extensions["log"].waiting}, listeners)
    for_ever = (keep, renew, app.extensions["chats"].listen, app.extensions["reports"].report)
    keepers = [*(gevent.spawn(each) for each in for_ever), *watch.greenlets]
    atexit.register(gevent.killall, keepers)  # before the stores are disposed of, which was registered earlier


def collect() -> None:
    """Free what refers to itself and has lived for long, where enough has come for that since the last time."""
    if gc.get_count()[-1] >= _COLLECTIONS:
        gc.collect()


def do_each(tasks: Sequence[Callable[[], object]]) -> None:
    """Do all of them, in their order, also behind one that fails."""
    for task in tasks:
        try:
            task()
        except (StoreError, OSError):
            log.exception("housekeeping failed, and is tried again")


def sweeps(app: Flask) -> Sequence[Callable[[], object]]:
    """Return what forgets what has had its time."""
    has, settings = app.extensions, app.extensions["settings"]
    stray_s = 60 * settings.BODY_TIMEOUT_S
    return (
        partial(has["log"].expire, "uploads/", settings.PROGRESS_KEEP_S),
        partial(has["uploads"].sweep, stray_s),
        has["intake"].sweep,
        partial(has["videos"].sweep, stray_s),
        has["kept"].sweep,
    )


def _jobs() -> int:
    """How many wait for a thread, or are in one."""
    return int(gevent.get_hub().threadpool.task_queue.unfinished_tasks)
