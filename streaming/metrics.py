"""What is counted, as Prometheus reads it: of all workers of this server, whichever of them is asked.

Rules:
- Each worker writes its values to a file of its own, and the answer is the sum (streaming/metrics_folder.py). Without
  such a folder, as in a test, there is one process and its values are the answer.
- Labels are few and ours: kinds of streams, ends, queues; never a path, a topic or a caller.
- The streams count plain numbers (streaming/accounts.py), which are taken from there once a second.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from streaming import metrics_folder, runs
from streaming.accounts import Times, tally
from streaming.links import links
from streaming.memory import own_bytes
from streaming.pace import Pace
from streaming.readers import Follow

REGISTRY = CollectorRegistry()

_SAMPLE_S = 1.0
# To look at each of ten thousand streams takes some milliseconds.
_EACH_S = 2.0
_LAG_STEP_S = 0.25
# Of struct tcp_info (linux/tcp.h): of a listener, how many connections wait to be accepted.
_UNACKED = slice(24, 28)


def _counter(name: str, help: str, *labels: str) -> Counter:
    return Counter(f"perennial_{name}", help, labels, registry=REGISTRY)


def _gauge(name: str, help: str, *labels: str, mode: Any = "livesum") -> Gauge:
    return Gauge(f"perennial_{name}", help, labels, registry=REGISTRY, multiprocess_mode=mode)


def _histogram(name: str, help: str, *labels: str) -> Histogram:
    return Histogram(f"perennial_{name}", help, labels, buckets=Times.BOUNDS, registry=REGISTRY)


_OPEN = _gauge("streams_open", "Open streams", "kind")
_ENDED = _counter("streams_ended", "Streams that have ended; failed, slow and stopped ones were cut", "kind", "end")
_BYTES = _counter("stream_bytes", "Bytes of streams that have ended", "kind")
_EVENTS = _counter("stream_events", "Events of streams that have ended", "kind")
_SENT = _counter("sent_bytes", "Bytes of streams, those that are open among them")
_SENT_EVENTS = _counter("sent_events", "Events of streams, those that are open among them")
_RESUMES = _counter("stream_resumes", "Streams that went on with what an earlier one began", "kind")
_RESETS = _counter("stream_resets", "Readers that were told that what they ask for is gone")
_FIRST = _histogram("first_byte_seconds", "From the request to the first byte of a stream that has ended", "kind")
_DELIVERY = _histogram("delivery_seconds", "From the read of new events until the last reader's socket has them")
_DELIVERED = _counter("deliveries", "Broadcasts, times their readers")
_LAG = _gauge("reader_lag_seconds", "How old what the slowest reader of a log is being sent is", mode="livemax")
_BLOCKED = _gauge("slowest_write_seconds", "How long the slowest client has taken no byte", mode="livemax")
_RECEIVED = _counter("received_bytes", "Bytes of request bodies")
_UPLOADS = _counter("uploads", "Uploads by what became of them", "end")
_REFUSED = _counter("refused", "Requests that were answered with an error before the first byte", "status")
_RUNNING = _gauge("runs_running", "Durable streams and answers that are being made")
_RUNS = _counter("runs", "Durable streams that have ended", "end")
_QUEUE = _gauge("queue_depth", "What waits: jobs of threads, writes to the log", "queue")
_ACCEPTS = _gauge("accept_queue_depth", "Connections that wait to be accepted", mode="livemax")
_LOOP = _histogram("loop_lag_seconds", "How late the event loop comes, looked at four times a second")
_MEMORY = _gauge("worker_bytes", "Resident memory of all workers, without what they share with files")
_WORKERS = _gauge("workers", "Workers that live, those that drain among them")


def exposition() -> bytes:
    """Return all that is counted, in Prometheus's text format."""
    if not (folder := metrics_folder.place()):
        take()
        return generate_latest(REGISTRY)
    everybody = CollectorRegistry()
    MultiProcessCollector(everybody, str(folder))
    with metrics_folder.locked(folder):
        return generate_latest(everybody)


def take() -> None:
    """Move what the streams of this worker have counted into the metrics."""
    for counter, counts in ((_BYTES, tally.bytes), (_EVENTS, tally.events), (_RESUMES, tally.resumed)):
        _move(counter, counts)
    _move(_UPLOADS, tally.uploads)
    _move(_RUNS, tally.runs)
    _move(_REFUSED, tally.refused)
    ended, tally.ended = tally.ended, type(tally.ended)()
    for (kind, how), count in ended.items():
        _ENDED.labels(kind, how).inc(count)
    first, tally.first = tally.first, {}
    for kind, times in first.items():
        _observe(_FIRST.labels(kind), times)
    broadcasts, tally.broadcasts = tally.broadcasts, Times()
    _observe(_DELIVERY, broadcasts)
    for counter, name in ((_DELIVERED, "delivered"), (_RESETS, "resets"), (_RECEIVED, "received")):
        counter.inc(getattr(tally, name))
        setattr(tally, name, 0)


def _observe(histogram: Any, times: Times) -> None:
    """Add what was counted; of prometheus-client's own there is only one at a time."""
    for bucket, count in zip(histogram._buckets, times.counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(times.sum_s)


def _move(counter: Counter, counts: dict[str, int]) -> None:
    taken = dict(counts)
    counts.clear()
    for label, count in taken.items():
        counter.labels(label).inc(count)


class Watch:
    """Looks once a second at what cannot be counted when it happens, until ``kill``.

    ``queues``: how much waits in each, by name. ``listeners``: the worker's.
    """

    def __init__(self, queues: Mapping[str, Callable[[], int]], listeners: Sequence[Any]) -> None:
        self._queues = queues
        self._listeners = [each for each in listeners if each.family in (socket.AF_INET, socket.AF_INET6)]
        self._each_at = 0.0
        self._sent = (0, 0)
        _WORKERS.set(1)
        self.greenlets = [gevent.spawn(self._look), gevent.spawn(_measure_loop)]

    def _look(self) -> None:
        while True:
            take()
            for kind, count in tuple(tally.kinds.items()):
                _OPEN.labels(kind).set(count)
            if time.monotonic() >= self._each_at:
                self._look_at_each()
            for name, depth in self._queues.items():
                _QUEUE.labels(name).set(depth())
            _ACCEPTS.set(max(map(_accepts, self._listeners), default=0))
            _RUNNING.set(runs.running())
            _MEMORY.set(own_bytes())
            gevent.sleep(_SAMPLE_S)

    def _look_at_each(self) -> None:
        """Find the slowest, in slices."""
        now, pace, lag = time.monotonic(), Pace(), 0.0
        sent = links.sent(pace)
        # Never below what was there: a stream that ended while the others were counted is in no sum.
        for counter, count, before in zip((_SENT, _SENT_EVENTS), sent, self._sent, strict=True):
            counter.inc(max(count - before, 0))
        self._sent = (max(sent[0], self._sent[0]), max(sent[1], self._sent[1]))
        for account in tuple(tally.open):
            source = account.source
            if isinstance(source, Follow) and not source.caught_up:
                lag = max(lag, now - source.read_at)
            pace.rest()
        _LAG.set(lag)
        _BLOCKED.set(links.slowest_s(now, pace))
        self._each_at = time.monotonic() + _EACH_S


def _measure_loop() -> None:
    while True:
        due = time.monotonic() + _LAG_STEP_S
        gevent.sleep(_LAG_STEP_S)
        _LOOP.observe(max(time.monotonic() - due, 0.0))


def _accepts(listener: Any) -> int:
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (AttributeError, OSError):  # not Linux, or closed: the worker drains
        return 0
    waiting: int = struct.unpack("=I", told[_UNACKED])[0]
    return waiting
