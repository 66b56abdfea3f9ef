"""Servers for the tests, forked from one process that has imported what they import: a start takes a quarter.

Each is gunicorn's own program with an environment, a folder and an output of its own, as if started by itself.

Rules:
- Imported beforehand are packages of others only: none of our modules, and nothing that reads its environment then
  (prometheus_client).
- Who wants another interpreter, other libraries or other code starts a process of its own (``tests.harness``).
- It ends with the process that asked for it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

_PACKAGES = (
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.ggevent",
    "flask",
    "flask.testing",
    "flask_cors",
    "flask_limiter",
    "jwt",
    "limits.storage",
    "markdown_it",
    "msgspec",
    "openai",
    "httpx2",
    "isal.isal_zlib",
    "psycopg",
    "redis",
    "sqlite3",
    "werkzeug.middleware.proxy_fix",
)
_POLL_S = 0.01
_LOCK = threading.Lock()


class Forked:
    """A server's process, as ``subprocess.Popen`` has it."""

    _server: ClassVar[subprocess.Popen[bytes] | None] = None

    def __init__(self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], output: Path) -> None:
        asked = {"arguments": list(arguments), "folder": str(folder), "environ": dict(environ), "output": str(output)}
        self.returncode: int | None = None
        self.pid = int(self._ask(asked))

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status; raises subprocess.TimeoutExpired."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("gunicorn", timeout_s or 0)
            time.sleep(_POLL_S)
        return status

    @classmethod
    def prepare(cls) -> None:
        """Start importing, once in this process."""
        with _LOCK:
            if cls._server is None or cls._server.poll() is not None:
                command = [sys.executable, "-u", "-m", __name__]
                cls._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, question: dict[str, Any]) -> Any:
        self.prepare()
        with _LOCK:
            server = self._server
            assert server is not None
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(question).encode() + b"\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())


def serve() -> None:
    """Answer each line of the input: a server to be started with its pid, a pid with its exit status or null."""
    from gevent import monkey

    # As gunicorn.conf.py does. The original fork and waitpid: gevent's own would make a loop that all would inherit.
    monkey.patch_all()
    for name in _PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    fork, waitpid = (monkey.get_original("os", name) for name in ("fork", "waitpid"))
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "pid" in question:
            pid, status = waitpid(question["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := fork()):
            _become(question)
            runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)
            return
        sys.stdout.write(json.dumps(answer) + "\n")


def _become(asked: dict[str, Any]) -> None:
    """Take over what a new process would have been given."""
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv[:] = ["gunicorn", *asked["arguments"]]
    sys.path[0] = asked["folder"]
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


if __name__ == "__main__":
    serve()
