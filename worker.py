"""A gevent worker of gunicorn that drains at once.

gunicorn's own looks once a second whether it should stop, goes on accepting meanwhile, and waits for idle keep-alive
connections until its grace time is over: 5 to 8 seconds in which every stream is cut. This one, measured: 0.1 s, every
EventSource handed over with one reconnect.

Rules:
- The listener is closed before a stream is told to go, or its client would reconnect to this worker.
- Idle keep-alive connections end at once; a connection that was just accepted gets a second for its first request.
- A connection whose requests come without a pause lets the others have their turn; so does one whose body nobody read.
- What is still at work after ``graceful_timeout`` is killed, and its clients see a cut. A worker that was relieved
  (relief.py) has no such time.
- A connection has ``HEADERS_S`` seconds for its TLS handshake, and as many for the head of its first request. Who has
  sent a part of a head by then, or by the end of ``keepalive`` later, gets a 408; who has sent nothing is ended in
  silence, for a client may send its next request in that very moment, and would take the 408 for its answer.
- When there is hardly a place left, the one that has waited longest is ended for the one that comes: who opens
  connections to say nothing on them, or a byte now and then, holds up nobody else.
"""

from __future__ import annotations

import math
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

import relief
from streaming import bodies, first_writes, heads, runs
from streaming.accounts import BEGAN
from streaming.connections import RESPONSE
from streaming.links import links
from streaming.pace import Pace

FIRST_REQUEST_S = 1.0
# Of the grace time, the master's own too: to mark what could not be finished, before it kills.
MARK_S = 1.0
# So many places are kept free, or a tenth of them; and so many that wait are looked through for a fresh one.
_SPARE = 100
_LOOKED_AT = 64
_SIGTERM = 15


class PerennialWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """``worker_class`` for gunicorn.conf.py, which sets ``most_bytes``: relieved when it has more (0: any size)."""

    most_bytes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage = relief.Stage()
        # gunicorn's own way to go after so many requests would cut.
        self.max_requests = sys.maxsize
        self._ends_at = math.inf

    # max_requests, a reload and every signal only set ``alive``; as a property it wakes ``run`` at once.
    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value and (stopping := getattr(self, "_stopping", None)):
            stopping.set()

    def init_signals(self) -> None:
        super().init_signals()
        self._stopping = Event()
        # Connections between two requests: the greenlet, its time-out, and whether it has served a request.
        self._idle: dict[Any, gevent.Timeout] = {}
        self._served: set[Any] = set()
        self._servers: list[StreamServer] = []
        self._spare = max(1, min(_SPARE, self.worker_connections // 10))
        # Python's own handler would run only when the loop next wakes.
        gevent.signal_handler(_SIGTERM, self.handle_exit, _SIGTERM, None)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application: Any = self.wsgi

        def with_response(environ: dict[str, Any], start_response: Any) -> Any:
            environ[BEGAN] = time.monotonic()
            environ[RESPONSE] = start_response.__self__
            first_writes.join(start_response.__self__)
            environ[bodies.IDLE] = self.idle
            del environ["wsgi.early_hints"]  # nothing here sends any, and each open stream would keep its closure
            gevent.getcurrent().body = environ["wsgi.input"]
            return application(environ, start_response)

        self.wsgi: Any = with_response

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM, once or often: from the first one on there is so much time."""
        grace_s: float = self.cfg.graceful_timeout
        self._ends_at = min(self._ends_at, time.monotonic() + max(grace_s - MARK_S, grace_s / 2))
        super().handle_exit(sig, frame)

    def run(self) -> None:
        self._servers = [self._serve(listener) for listener in self.sockets]
        wear = relief.Wear(self.cfg.max_requests, self.most_bytes)
        relief.tell(self.ppid, self.stage, relief.SERVING)
        while self.alive:
            self.notify()
            self._look_at(wear)
            # gevent's wait(timeout) can hang for ever when set() meets the time-out: ask first.
            self._stopping.is_set() or self._stopping.wait(1.0)
        for server in self._servers:
            server.close()
        links.drain()
        self._finish()

    def _look_at(self, wear: relief.Wear) -> None:
        """Ask to be relieved when it is time, and go when that was granted."""
        if self.stage.get() == relief.SERVING and (reason := wear.found(self.nr)):
            self.log.info("Worker asks to be relieved (pid:%s): %s", self.pid, reason)
            relief.tell(self.ppid, self.stage, relief.ASKING)
        elif self.stage.get() == relief.RELIEVED:
            self.log.info("Worker was relieved (pid:%s)", self.pid)
            self.alive = False

    def _serve(self, listener: Any) -> StreamServer:
        listener.setblocking(1)
        # The handshake is made in ``handle``, where it has a deadline.
        tls = {"ssl_context": ssl_context(self.cfg), "do_handshake_on_connect": False} if self.cfg.is_ssl else {}
        # Its name and not itself: a connection accepted just before a drain is handled after the listener is closed.
        named = _Named(listener.getsockname())
        server = StreamServer(listener, handle=partial(self.handle, named), spawn=Pool(self.worker_connections), **tls)
        # Each begins with a request: a hundred at once would be one long turn for all the others.
        server.max_accept = 1 if self.cfg.workers > 1 else 4
        server.start()
        return server

    def _finish(self) -> None:
        """Wait until every connection and run has ended, at most the time there is; then kill what is left."""
        began = time.monotonic()
        while runs.running() or any(len(server.pool) for server in self._servers):
            if time.monotonic() > self._ends_at:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                runs.interrupt(timeout_s=1)
                for server in self._servers:
                    server.stop(timeout=1)
                return
            self._end_idle(fresh_too=time.monotonic() - began > FIRST_REQUEST_S)
            self.notify()
            gevent.sleep(0.02)

    def _end_idle(self, fresh_too: bool) -> None:
        loop = gevent.get_hub().loop
        for greenlet, timeout in list(self._idle.items()):
            if fresh_too or greenlet in self._served:
                loop.run_callback(self._end_one, greenlet, timeout)

    def _end_one(self, greenlet: Any, timeout: gevent.Timeout, at_once: bool = False) -> None:
        if self._idle.get(greenlet) is timeout and (at_once or not heads.has_come(greenlet.client)):
            del self._idle[greenlet]
            greenlet.throw(timeout)

    def _make_room(self) -> None:
        """End the connection that has waited longest: one without a request so far, if there is any of these."""
        waiting = list(islice(self._idle, _LOOKED_AT))
        if chosen := next((each for each in waiting if each not in self._served), next(iter(waiting), None)):
            timeout = self._idle.pop(chosen)
            self._idle[chosen] = timeout  # behind the others: who comes in the same moment ends another one
            gevent.get_hub().loop.run_callback(self._end_one, chosen, timeout, True)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the wait for a connection's next request: it ends silently after ``keepalive`` s, or by a drain."""
        greenlet = gevent.getcurrent()
        # Whose client is quick finds its next request already there, and would never wait (p99 of the others: 1.3 s).
        greenlet.pace.rest()
        # Here and not around ``handle_request``: a frame more is a page more of memory for each parked connection.
        if bodies.is_unread(greenlet.body):
            with self.idle(bodies.DISCARD_S):
                bodies.pass_over(greenlet.body)
        first = greenlet not in self._served
        limit_s = min(self.cfg.keepalive, links.headers_s) if first else self.cfg.keepalive
        with self._deadline(greenlet, limit_s) as begun:
            yield
        if any(begun):
            heads.refuse(greenlet.client)
        self._served.add(greenlet)

    @contextmanager
    def _deadline(self, greenlet: Any, limit_s: float) -> Iterator[list[bool]]:
        """Let this block last so long; what it yields says afterwards, where it was too long, if a head had begun."""
        begun: list[bool] = []
        with gevent.Timeout(limit_s, False) as timeout:
            self._idle[greenlet] = timeout
            try:
                yield begun
            except gevent.Timeout as error:
                if error is timeout and greenlet in self._idle:  # whoever else ends it takes it out first
                    begun.append(heads.begun(error))
                raise
            finally:
                self._idle.pop(greenlet, None)
        timeout.__traceback__ = None  # its frames have it, and only the collector would free both

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        greenlet = gevent.getcurrent()
        if any(server.pool.free_count() < self._spare for server in self._servers):
            self._make_room()
        greenlet.client = client
        greenlet.pace = Pace()
        greenlet.body = None  # of its last request
        try:
            if self._has_shaken_hands(greenlet, client):
                super().handle(listener, client, addr)
        finally:
            self._served.discard(greenlet)

    def idle(self, limit_s: float) -> AbstractContextManager[object]:
        """Around a wait for bytes that nobody wants: it may be ended for who comes, or by a drain."""
        return self._deadline(gevent.getcurrent(), limit_s)

    def _has_shaken_hands(self, greenlet: Any, client: Any) -> bool:
        """Whether there is nothing (more) between the client and its first request."""
        if not isinstance(client, ssl.SSLSocket):
            return True
        try:
            with self._deadline(greenlet, links.headers_s):
                client.do_handshake()
                return True
        except OSError:  # no TLS, a version that is too old, or it has gone
            self.log.debug("a TLS handshake failed", exc_info=True)
        return False


@dataclass(frozen=True, slots=True)
class _Named:
    """All that gunicorn asks a listener."""

    name: Any

    def getsockname(self) -> Any:
        return self.name
