"""What a worker does now and then: forget what has had its time, live on, hear the others, count.

Rules:
- A greenlet each, for as long as the worker lives; what fails is said and tried again.
- They end before the stores do.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Sequence
from typing import Any

import gevent
from flask import Flask

from settings import Settings
from stores.errors import StoreError
from streaming import metrics
from streaming.leases import RENEW_S

_KEEP_S = 60.0
log = logging.getLogger("perennial")


def begin(app: Flask, listeners: Sequence[Any] = ()) -> None:
    """Now and then, for as long as the worker lives: forget what has had its time, and look at what is to be told."""
    settings: Settings = app.extensions["settings"]

    def keep() -> None:
        while True:
            try:
                app.extensions["log"].expire("uploads/", settings.PROGRESS_KEEP_S)
                app.extensions["uploads"].sweep(60 * settings.BODY_TIMEOUT_S)
                app.extensions["intake"].sweep()
                app.extensions["videos"].sweep(60 * settings.BODY_TIMEOUT_S)
                app.extensions["kept"].sweep()
            except (StoreError, OSError):
                log.exception("housekeeping failed, and is tried again")
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


def _jobs() -> int:
    """How many wait for a thread, or are in one."""
    return int(gevent.get_hub().threadpool.task_queue.unfinished_tasks)
