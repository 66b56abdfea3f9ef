"""What all workers are doing now, for whoever looks: each reports while somebody does, and nobody otherwise.

Rules:
- Who looks says so in the log, again and again; every worker hears it, and writes its samples there for a while.
- Nothing depends on a report: one that is late is missing in a sum, and one that is old is no part of it.
"""

from __future__ import annotations

import logging
import time

import gevent
import msgspec

from stores.base import START, Config, Log
from stores.errors import NoStream, StoreError, StreamGone, UnknownOffset
from streaming.activity import Sample, Sampler, total
from streaming.events import Source, json_event, pause

log = logging.getLogger("perennial.activity")

_WATCHED = "activity/watched"
_REPORTS = "activity/reports"
_WATCH_S = 5.0  # whoever looks says so this often; twice as long, and nobody looks any more
_SAMPLE_S = 1.0
_OLD_S = 3.0
_WAIT_S = 30.0
_KEPT = Config("application/json", keep_events=100)


class Report(msgspec.Struct, frozen=True):
    """A worker's sample, as it stands in the log."""

    worker: str
    sample: Sample


_decode = msgspec.json.Decoder(Report).decode


class Reports:
    """This worker's: ``report`` runs in a greenlet as long as it lives, ``watch`` is a source for each who looks."""

    def __init__(self, store: Log, worker: str, sampler: Sampler) -> None:
        self._store = store
        self._worker = worker
        self._sampler = sampler

    def report(self) -> None:
        """Write a sample a second while somebody looks, for ever."""
        after, until = _tail(self._store, _WATCHED), 0.0
        while True:
            try:
                batch = self._store.read(_WATCHED, after)
                if batch.events:
                    after, until = batch.events[-1].id, time.monotonic() + 2 * _WATCH_S
                if time.monotonic() < until:
                    report = Report(self._worker, self._sampler.sample())
                    self._store.append(_REPORTS, [json_event(report)], create=_KEPT)
                    gevent.sleep(_SAMPLE_S)
                else:
                    self._store.wait(_WATCHED, after, _WAIT_S)
            except UnknownOffset:
                after = START
            except StoreError:
                log.warning("what this worker does was not reported", exc_info=True)
                gevent.sleep(_WATCH_S)

    def watch(self) -> Source:
        """Yield what all workers do now, once a second, for as long as somebody looks."""
        after, latest, said_at = _tail(self._store, _REPORTS), dict[str, tuple[float, Sample]](), -_WATCH_S
        while True:
            now = time.monotonic()
            if now - said_at >= _WATCH_S:
                self._store.append(_WATCHED, [json_event({})], create=_KEPT)
                said_at = now
            for event in (batch := self._store.read(_REPORTS, after)).events:
                report = _decode(event.data)
                latest[report.worker] = (now, report.sample)
            after = batch.events[-1].id if batch.events else batch.tail
            latest = {worker: each for worker, each in latest.items() if now - each[0] < _OLD_S}
            if latest:
                yield json_event(total([sample for _, sample in latest.values()]), "activity")
            yield from pause(_SAMPLE_S if latest else 0.1)


def _tail(store: Log, path: str) -> str:
    try:
        return store.state(path).tail
    except (NoStream, StreamGone):
        return START
