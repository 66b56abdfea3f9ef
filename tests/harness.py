"""The server as a process for the tests: a real gunicorn. The clients of ``tests.clients`` can be had from here too.

Rules:
- A server runs on a free port of 127.0.0.1, in folders of its own, and ends with its whole process group.
- Nothing here sleeps to wait for something: it polls with a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import ClassVar, TypeVar

from settings import Settings
from tests.clients import Answer, EventStream, RawClient, ServerSentEvent, parse_events
from tests.forkserver import Forked

__all__ = [
    "Answer",
    "EventStream",
    "LiveServer",
    "RawClient",
    "ServerSentEvent",
    "eventually",
    "free_port",
    "listens",
    "parse_events",
]

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def eventually(predicate: Callable[[], T | None], timeout_s: float = 5.0, what: str = "") -> T:
    """Return the first true value of ``predicate``; AssertionError when there is none within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}; last: {value!r}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A port nobody listens on now; another process may take it before its user does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections on the port; it is one of them."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class LiveServer:
    """``gunicorn -c gunicorn.conf.py wsgi:app`` in ``folder``; ``env`` adds settings and gunicorn's variables.

    ``tls``: what its clients trust, where ``env`` makes it speak TLS. ``application``: another than ``wsgi:app``.
    ``code``: where the project is. ``command``: another one, ``{port}`` in it is the port; ``folder`` is where it runs.
    """

    running: ClassVar[list[LiveServer]] = []

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, object] | None = None,
        tls: ssl.SSLContext | None = None,
        application: str = "wsgi:app",
        code: Path = ROOT,
        command: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._code = code
        self._command = command
        self._tls = tls
        self._application = application
        self.log_path = folder / "server.log"
        self.files = folder / "files"
        self.instance = folder / "instance"
        self._overrides = {name: str(value) for name, value in (env or {}).items()}
        self.port = 0
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._begin = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The master's."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 30.0) -> LiveServer:
        """Return when /readyz answers 200; on another port when somebody took the first one meanwhile."""
        if not self.files.exists():
            shutil.copytree(ROOT / "files", self.files, ignore=shutil.ignore_patterns("uploads"))
        self.instance.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            # A restart keeps its port: clients come back to the same address.
            self.port = self.port or free_port()
            self._spawn()
            if self._wait_ready(timeout_s):
                LiveServer.running.append(self)
                return self
            self._end()
            self.port = 0
        raise AssertionError(f"no port was free: {self.tail()}")

    def _spawn(self) -> None:
        # gunicorn would try a port in use for five seconds; the log says it at once.
        arguments, environ = ["-c", "gunicorn.conf.py", self._application], self._environ()
        command = [part.format(port=self.port) for part in self._command]
        own = command or self._code != ROOT or any(name.startswith(("LD_", "PYTHON")) for name in self._overrides)
        with self.log_path.open("ab") as log:
            self._begin = log.tell()
            if not own:
                self._process = Forked(arguments, ROOT, environ, self.log_path)
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(command or ["gunicorn", *arguments])],
                cwd=self.folder if command else self._code,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environ(self) -> dict[str, str]:
        # The developer's own settings (a key!) must not reach a test.
        ours = {each.name for each in fields(Settings)} | {"GUNICORN_CMD_ARGS", "GRACEFUL_TIMEOUT"}
        ours |= {"MAX_REQUESTS", "MAX_WORKER_BYTES"}
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        folders = {"INSTANCE_DIR": str(self.instance), "FILES_DIR": str(self.files)}
        gunicorn = {"HOST": "127.0.0.1", "PORT": str(self.port), "WEB_CONCURRENCY": "1", "PYTHONUNBUFFERED": "1"}
        return inherited | folders | gunicorn | self._overrides

    def _wait_ready(self, timeout_s: float) -> bool:
        """Whether it is ready; False when its port was taken; AssertionError when it ended or did not answer."""

        def known() -> str:
            if not self.alive:
                return "ended"
            if re.search("(Address already|Connection) in use", self._log_since_start()):
                return "taken"
            # Workers are forked once the port is bound: without one, whoever answers is somebody else.
            return "ready" if self.answers() else ""

        try:
            state = eventually(known, timeout_s, "/readyz")
        except AssertionError:
            self._end()
            raise AssertionError(f"the server does not answer on /readyz:\n{self.tail()}") from None
        if state == "ended" and "in use" not in self._log_since_start():
            raise AssertionError(f"the server ended with {self._process and self._process.returncode}:\n{self.tail()}")
        return state == "ready"

    def answers(self) -> bool:
        """Whether a worker is there and serves."""
        return bool(self._command or self.pids()) and self._get_status("/readyz") == 200

    def _get_status(self, path: str) -> int:
        try:
            return self.get(path, timeout_s=2.0)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def get(self, path: str, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a whole answer, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        if self._tls is not None:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=self._tls)
        try:
            connection.request("GET", path, headers=dict(headers or {}) | {"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def streams(self) -> int:
        """How many streams are open, in the worker that answers."""
        return int(json.loads(self.get("/healthz")[1]).get("streams", 0))

    def pids(self) -> list[int]:
        """The workers'."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        if children.exists():
            return [int(pid) for pid in children.read_text().split()]
        rows = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
        pairs = (map(int, row.split()) for row in rows.splitlines())
        return [pid for parent, pid in pairs if parent == self.pid]

    def rss_bytes(self) -> int:
        """Resident memory of all workers."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: int, pid: int = 0) -> None:
        """To the master, or to the worker ``pid``."""
        os.kill(pid or self.pid, number)

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _log_since_start(self) -> str:
        return self.log_path.read_bytes()[self._begin :].decode(errors="replace")

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def wait_log(self, pattern: str, timeout_s: float = 5.0) -> re.Match[str]:
        """The first place where the log matches ``pattern``, line ends included (re.MULTILINE)."""
        return eventually(
            lambda: re.search(pattern, self.log_text(), re.MULTILINE), timeout_s, f"{pattern!r} in the log"
        )

    def wait_exit(self, timeout_s: float = 10.0) -> int:
        """The master's exit status once it has ended; AssertionError when it has not."""
        assert self._process is not None, "the server was not started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end within {timeout_s} s:\n{self.tail()}") from None

    def stop(self, timeout_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL to what is left of its own process group; once is enough."""
        if self.alive:
            self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(timeout_s)
        self._end()

    def kill(self) -> None:
        """SIGKILL to the master and all its workers, as a crash of the machine does; start() may follow."""
        self._end()

    def restart(self) -> None:
        """stop() and start() on the same port and over the same folders."""
        self.stop()
        self.start()

    def _end(self) -> None:
        if self in LiveServer.running:
            LiveServer.running.remove(self)
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
