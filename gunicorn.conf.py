"""What long streams need of gunicorn, each with its reason. What is read from the environment stands in
docs/operations.md; further flags can be given in GUNICORN_CMD_ARGS.
"""

from __future__ import annotations

from gevent import monkey

# First of all: a name imported from the standard library before this would block the whole worker, in silence.
monkey.patch_all()

import contextlib  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
# A reload is a deploy: this file is read anew by the master, and what it has of our code is the old one.
for _name, _module in tuple(sys.modules.items()):
    _file = Path(getattr(_module, "__file__", None) or "/")
    if _name != __name__ and _file.is_relative_to(ROOT) and "site-packages" not in _file.parts:
        del sys.modules[_name]
# They refer to each other: the master, and each worker that is forked from it, grew by 4 MiB a reload.
gc.collect()

import access_log  # noqa: E402
import flags  # noqa: E402
import processors  # noqa: E402
import settings  # noqa: E402
from stores import sqlite_library  # noqa: E402
from streaming import metrics_folder  # noqa: E402

flags.configured()
sqlite_library.set_up()
metrics_folder.make()

# The log in memory lives and dies with its worker: there is one, and it is not exchanged.
in_memory = settings.from_environment().STREAMS_URL == "memory:"
host = os.environ.get("HOST", "127.0.0.1")
port = os.environ.get("PORT", "8000")
bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
workers = processors.workers(int(os.environ.get("WEB_CONCURRENCY", "1")), in_memory)
worker_class = "worker.PerennialWorker"

# Well above MAX_STREAMS and MAX_UPLOADS: beyond it clients connect and get no answer, while the application says 503
# first. Near it, connections that only wait are ended for those that come (worker.py).
worker_connections = 12_000
# Above the usual 60 s of a proxy's own keep-alive: the side that closes first must be the proxy, or it meets resets.
keepalive = 75
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT", "30"))
# The worker is relieved then (relief.py), with a fifth of its own; gunicorn's way would cut streams.
max_requests = 0 if in_memory else int(os.environ.get("MAX_REQUESTS", "0"))
most_bytes = 0 if in_memory else int(os.environ.get("MAX_WORKER_BYTES", "2147483648"))
# The heartbeat file: in memory, or a slow disk makes the master kill a healthy worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
# gevent's socket.sendfile copies 8 KiB at a time and never yields; streaming/files.py sends 256 KiB blocks in slices.
sendfile = False
# Which proxies are trusted is said by TRUSTED_PROXIES alone.
forwarded_allow_ips = ""
# A second way into the server that nothing here needs.
control_socket_disable = True
accesslog = "-"
access_log_format = access_log.FORMAT
logger_class = "access_log.AccessLog"


def on_starting(server: Any) -> None:
    """Once, in the master, before any worker: files that two workers must not make at the same time."""
    flags.refuse(server.cfg)
    import app
    import relief
    from streaming import exposure

    wanted = settings.from_environment()
    # systemd's sockets are looked at when they are there, in when_ready.
    exposure.refuse(wanted, server.cfg.address)
    # Another class of workers knows nothing of it, and has gunicorn's own way to go.
    server.relief = relief.Relief(server) if server.cfg.worker_class_str == worker_class else None
    _raise_descriptors(server, 2 * wanted.MAX_STREAMS)
    app.prepare(wanted)


def on_reload(server: Any) -> None:
    """Once, in the master, while the old workers still serve: the new ones are there the sooner."""
    import app

    app.read_docs()
    if server.relief:
        server.relief.reloaded()


def _raise_descriptors(server: Any, needed: int) -> None:
    """A stream is a descriptor, or two: as many as the system lets us have, and a line where that may not do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < needed:
        server.log.warning(
            "A worker may have %d descriptors, and MAX_STREAMS may need %d: raise the limit (ulimit -n, LimitNOFILE).",
            allowed,
            needed,
        )


def when_ready(server: Any) -> None:
    """Before any worker: who is told now that he may not listen has served nobody."""
    from streaming import exposure

    exposure.refuse(settings.from_environment(), [listener.sock.getsockname() for listener in server.LISTENERS])
    for address in server.LISTENERS:
        server.log.info("Perennial is at %s", address)


def child_exit(server: Any, worker: Any) -> None:
    metrics_folder.bury(worker.pid)


def on_exit(server: Any) -> None:
    metrics_folder.remove()


def post_worker_init(worker: Any) -> None:
    """The connections inherit the listener's options."""
    worker.most_bytes = most_bytes
    for listener in worker.sockets:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            _tune(listener)
    import housekeeping
    from streaming import lost

    worker.log.error_log.addFilter(lost.is_told)
    housekeeping.begin(worker.app.wsgi(), worker.sockets)
    # What is loaded by now stays: a full collection of it stalled every stream for 38 ms.
    gc.collect()
    gc.freeze()
    # Each open stream is some hundred objects that stay: looked through every 700, they cost 200 of the 1,250 µs of a
    # connect. All of them at once, for 10,000 streams, hold up the worker for 250 ms: now and then only (housekeeping).
    gc.set_threshold(10_000, 3, 2**31 - 1)
    # No format here names a thread, and for each line gevent would make a record of its greenlet's: 14 of its 41 µs.
    logging.logThreads = False
    # Threads make exports and hash uploads: Python takes its lock from them for the event loop only after so long, and
    # with four exports at once the loop waited for several turns of 5 ms.
    sys.setswitchinterval(0.0005)


def _tune(listener: Any) -> None:
    # A client that lost its power sends no FIN: these two and the watcher of streaming/wire.py notice it together.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    # A stalled reader holds 35 KB of kernel memory instead of 4 MB, at the same speed.
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16 * 1024)
