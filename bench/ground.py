"""What the parts of the bench stand on: a server with one worker, a table, a large file, made when first asked for."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from bench import processes
from bench.load import MIB
from bench.report import Report
from stores.seed import make_sample_database
from tests.harness import LiveServer

FOX = b"The quick brown fox jumps over the lazy dog.\n"


class Ground:
    """``quick``: small counts, to see that all parts run; their figures are worth nothing."""

    def __init__(self, folder: Path, report: Report, quick: bool = False) -> None:
        self._ends = ExitStack()
        self.root = folder
        self.report = report
        self.quick = quick
        self.rows = 20_000 if quick else 1_000_000
        self.file_bytes = 16 * MIB if quick else 2**30
        self.runs = 1 if quick else 3
        self.size = f"{self.file_bytes // MIB} MiB" if quick else "1 GiB"

    def folder(self, name: str) -> Path:
        """An empty folder of a part's own."""
        made = self.root / name
        made.mkdir(parents=True)
        return made

    @cached_property
    def database(self) -> Path:
        path = self.root / "users.db"
        make_sample_database(path, rows=self.rows)
        return path

    @cached_property
    def server(self) -> LiveServer:
        """With three views more than the product: bench/empty.py."""
        environ = {"DATABASE_URL": f"sqlite:///{self.database}"}
        return self._ends.enter_context(processes.ours(self.root / "server", environ, "bench.empty:app"))

    @cached_property
    def file(self) -> Path:
        path = self.server.files / "large.bin"
        write(path, self.file_bytes, os.urandom(MIB))
        return path

    @cached_property
    def text(self) -> Path:
        path = self.root / "large.txt"
        write(path, self.file_bytes, FOX * (MIB // len(FOX)))
        return path

    @property
    def pairs(self) -> int:
        """How often whole transfers are compared in turn: a ratio needs more of them than a figure does."""
        return 2 * self.runs - 1

    @property
    def worker(self) -> int:
        return self.server.pids()[0]

    def url(self, path: str) -> str:
        return self.server.url + path

    def streams(self) -> dict[str, list[str]]:
        """What one client asks for, by name: curl's arguments."""
        return {
            f"download of {self.size}": [self.url(f"/api/download/{self.file.name}")],
            f"upload of {self.size}": ["-T", str(self.file), "-X", "POST", self.url("/api/upload-progress")],
            f"export of {self.rows:,} rows, CSV": [self.url("/api/export?table=users")],
            f"export of {self.rows:,} rows, NDJSON": [self.url("/api/stream-json")],
            f"transform of {self.size}": ["-T", str(self.text), "-X", "POST", self.url("/api/transform")],
        }

    def clear_uploads(self) -> None:
        clear(self.server.files / "uploads")

    def close(self) -> None:
        self._ends.close()


def write(path: Path, size: int, block: bytes) -> None:
    with path.open("wb") as out:
        while (left := size - out.tell()) > 0:
            out.write(block[:left])


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
