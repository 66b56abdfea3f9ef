"""Wake-ups from Redis: one connection of this process hears every change of any stream, and rings its bell.

Rules:
- What is published is a path and nothing more; who is woken reads.
- Redis forgets whom it could not tell. So when the connection was lost all bells are rung once it stands again, and a
  connection that looks alive is asked twice a minute.
- ``threading`` is gevent's after patching; then the listener is a greenlet.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from stores.bells import Bells

PING_S = 15.0
_LOOK_S = 0.1
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 2.0

logger = logging.getLogger(__name__)


class Listener:
    """Rings ``bells`` for each path that is published on ``channel``. ``hears``: whether it is told of them now."""

    def __init__(self, connect: Callable[[], Any], channel: str, bells: Bells) -> None:
        self.hears = False
        self._connect = connect
        self._channel = channel
        self._bells = bells
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-bells", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._stopping.is_set():
            connection = self._connect()
            try:
                self._listen(connection)
            except (RedisError, OSError) as error:
                # Once, not at each try: an outage of an hour is one line.
                if self.hears or retry_s == _FIRST_RETRY_S:
                    logger.warning("no wake-ups from Redis, readers look every tick: %s", type(error).__name__)
            finally:
                retry_s = _FIRST_RETRY_S if self.hears else min(retry_s * 2, _LAST_RETRY_S)
                self.hears = False
                connection.disconnect()
            # Jittered, so that the workers of a machine do not come back in step.
            self._pause(retry_s * random.uniform(0.5, 1.0))

    def _listen(self, connection: Any) -> None:
        connection.connect()
        connection.send_command("SUBSCRIBE", self._channel)
        asked = None  # when a PING was sent that has no answer yet
        heard = time.monotonic()
        while not self._stopping.is_set():
            if connection.can_read(timeout=_LOOK_S):
                self._hear(connection.read_response())
                asked, heard = None, time.monotonic()
            elif asked is None and time.monotonic() - heard > PING_S:
                connection.send_command("PING")
                asked = time.monotonic()
            elif asked is not None and time.monotonic() - asked > PING_S:
                raise TimeoutError("Redis answers no PING")

    def _hear(self, message: list[bytes | int]) -> None:
        kind, told = message[0], message[-1]
        if kind == b"subscribe":
            self.hears = True
            self._bells.ring_all()
        elif kind == b"message" and isinstance(told, bytes):
            self._bells.ring(told.decode())

    def _pause(self, seconds: float) -> None:
        # gevent's Event.wait(timeout) hangs when set() meets the time-out of all its waiters: ask first, always.
        if not self._stopping.is_set():
            self._stopping.wait(seconds)
