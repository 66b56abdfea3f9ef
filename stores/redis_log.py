"""A log in Redis (6.2 or later, or Valkey), shared by the workers of many machines.

Rules:
- The truth is in Redis: a hash says what a stream is, a Redis stream holds its events as ``<number>-0``. Each change is
  one script, so it happens whole or not at all; nothing is decided here (redis_scripts/common.lua names the keys).
- One clock, Redis's own, for lifetimes, retention and the times of events: workers' clocks differ.
- What is appended after a restart or a failover gets another life, so the offset of an event that Redis lost is
  unknown, and never taken for that of the event which got its number.
- One primary (with replicas, if you like), no Redis Cluster: a fork and its source are two keys of one script.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from stores import offsets
from stores import redis_answers as answers
from stores.base import START, Append, Appended, Batch, Config, Create, Producer, State
from stores.bells import Bells
from stores.errors import StoreError, UnknownOffset
from stores.redis_bells import Listener
from stores.redis_client import OLDEST, Scripts
from streaming.events import Event

_PIECE = 500
logger = logging.getLogger(__name__)


def prepare(url: str) -> None:
    """Check what can be known before serving; Redis may also come later. Raises SystemExit with one sentence."""
    try:
        scripts = Scripts(url)
    except ValueError as error:
        raise SystemExit(f"STREAMS_URL is no Redis that this server can use: {error}.") from None
    try:
        about = scripts.about()
    except StoreError as error:
        logger.warning("%s Until it does, streams are answered with 503.", error)
        return
    finally:
        scripts.close()
    version = str(about["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise SystemExit(f"The log needs Redis 6.2 or later, and STREAMS_URL names a Redis {version}.")
    if about.get("cluster_enabled"):
        raise SystemExit("The log needs a single Redis primary, and STREAMS_URL names a Redis Cluster.")
    if about.get("maxmemory_policy", "noeviction") != "noeviction":
        logger.warning("Redis may evict streams (maxmemory-policy %s): set noeviction.", about["maxmemory_policy"])


class RedisLog:
    """``stores.base.Log`` in the Redis at ``url``, which need not be there yet."""

    def __init__(self, url: str) -> None:
        self._scripts = Scripts(url)
        self._bells = Bells()
        self._listener = Listener(self._scripts.connection, self._scripts.prefix + "changes", self._bells)

    def create(self, path: str, config: Config, events: Sequence[Event] = (), *, closed: bool = False) -> State:
        asked = {"path": path, "config": answers.asked(config), "closed": int(closed), "life": offsets.new_life()}
        answer = self._change("create", asked, events)
        return answers.state(answer)

    def create_each(self, creates: Sequence[Create]) -> None:
        for path, config, events in creates:
            self.create(path, config, events)

    def append(
        self,
        path: str,
        events: Sequence[Event],
        *,
        create: Config | None = None,
        content_type: str = "",
        producer: Producer | None = None,
        seq: str = "",
        key: str = "",
        close: bool = False,
    ) -> Appended:
        asked = {**_asked(Append(path, events, producer, close)), "content_type": content_type, "seq": seq, "key": key}
        if create:
            asked["create"] = answers.asked(create)
        if key:
            asked["digest"] = answers.digest(events)
        return answers.appended(self._change("append", asked, events))

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        asked = [_asked(append) for append in appends]
        given = [_given(append.events) for append in appends]
        return [
            self._told(each, answer)
            for each, answer in zip(asked, self._scripts.run_each("append", asked, given), strict=True)
        ]

    def state(self, path: str) -> State:
        return answers.state(answers.checked(self._scripts.run("state", {"path": path})))

    def read(self, path: str, after: str, limit: int = 1000, limit_bytes: int = 2**20) -> Batch:
        asked: dict[str, Any] = {"path": path, "limit": limit, "limit_bytes": limit_bytes}
        if after != START:
            asked["offset"] = answers.place(after)
        answer = self._scripts.run("read", asked)
        if answer[0] == b"none":
            offsets.to_number(after, ())
            return Batch((), 0, START, False, 0)
        if answer[0] == b"unknown":
            raise UnknownOffset(f"{after[:40]!r} is no offset of this stream.")
        closed, total, missed = answers.checked(answer)[4:7]
        chain = answers.chain(answer)
        given = iter(answer[7:])
        events = tuple(
            Event(data, type.decode(), offsets.of_number(number, chain))
            for number, type, data in zip(given, given, given, strict=True)
        )
        return Batch(events, missed, offsets.of_number(answer[3], chain), bool(closed), total)

    def since(self, path: str, time_s: float) -> str:
        answer = self._scripts.run("since", {"path": path, "time": time_s * 1_000_000})
        if answer[0] == b"none":
            return START
        return offsets.of_number(answers.checked(answer)[4], answers.chain(answer))

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        return self._bells.wait(path, lambda: self._ready(path, after), timeout_s)

    def close(self, path: str) -> None:
        asked = {"path": path, "create": answers.asked(Config()), "keep": True, "close": True}
        self._change("append", asked | {"content_type": "", "seq": "", "key": "", "life": offsets.new_life()})

    def delete(self, path: str) -> bool:
        answer = self._scripts.run("delete", {"path": path})
        if answer[0] == b"none":
            return False
        answers.checked(answer)
        self._ring(path)
        return True

    def paths(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[str]:
        found: list[str] = []
        # By code point, as Python compares texts: so are their bytes in UTF-8, which Redis compares.
        start = f"({after}" if after and after >= prefix else f"[{prefix}"
        while start and len(found) < limit:
            asked = {"prefix": prefix, "from": start, "limit": min(limit, _PIECE)}
            upto, *paths = self._scripts.run("paths", asked)
            found += [path.decode() for path in paths]
            start = f"({upto.decode()}" if upto else ""
        return found[:limit]

    def expire(self, prefix: str = "", untouched_s: float | None = None) -> int:
        asked: dict[str, Any] = {"prefix": prefix, "limit": _PIECE}
        if untouched_s is not None:
            asked["untouched"] = untouched_s * 1_000_000
        expired, start = 0, "-"
        while start:
            upto, count = self._scripts.run("expire", asked | {"from": start})
            expired += count
            start = f"({upto.decode()}" if upto else ""
        return expired

    def ping(self) -> None:
        self._scripts.ping()

    def waiting(self) -> int:
        return 0  # they wait in Redis

    def dispose(self) -> None:
        self._listener.close()
        self._bells.ring_all()
        self._scripts.close()

    def _change(self, script: str, asked: dict[str, Any], events: Sequence[Event] = ()) -> list[Any]:
        answer = answers.checked(self._scripts.run(script, asked, _given(events)), asked)
        self._ring(asked["path"])
        return answer

    def _told(self, asked: dict[str, Any], answer: list[Any] | StoreError) -> StoreError | None:
        """Return what one of several appends was refused with, if it was."""
        try:
            if isinstance(answer, StoreError):
                return answer
            answers.checked(answer, asked)
        except StoreError as error:
            return error
        self._ring(asked["path"])
        return None

    def _ring(self, path: str) -> None:
        """Wake this worker's waiters when Redis does not: else they would be woken twice, and ask it twice."""
        if not self._listener.hears:
            self._bells.ring(path)

    def _ready(self, path: str, after: str) -> bool:
        answer = self._scripts.run("state", {"path": path})
        if answer[0] == b"none":
            return after != START
        if answer[0] == b"gone":
            return True
        return bool(answer[4]) or offsets.of_number(answer[3], answers.chain(answer)) != after


def _asked(append: Append) -> dict[str, Any]:
    asked: dict[str, Any] = {"path": append.path, "content_type": "", "seq": "", "key": "", "close": append.close}
    asked["life"] = offsets.new_life()
    if producer := append.producer:
        asked["producer"] = {"id": producer.id, "epoch": producer.epoch, "seq": producer.seq}
    return asked


def _given(events: Sequence[Event]) -> list[bytes | str]:
    return [part for event in events for part in (event.type, event.data)]
