"""What should be there: made before the server starts, by nothing of the server's."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.seed import users

ROWS = 12_000
COLUMNS = ("id", "name", "email", "note")
TOKENS = tuple(f"{n} {'ßé🎉'[n % 3]} " for n in range(80))


@dataclass(frozen=True)
class Truth:
    """``rows``: those of the table users. ``files``: by their name below /api/download or /api/video."""

    rows: list[tuple[Any, ...]]
    file: bytes
    video: bytes

    @property
    def text(self) -> str:
        """What the model says when it comes to its end."""
        return "".join(TOKENS)

    def ndjson(self, first: int, last: int) -> list[Any]:
        return [dict(zip(COLUMNS, row, strict=True)) for row in self.rows[first:last]]

    def csv(self, first: int, last: int) -> list[list[str]]:
        return [["" if value is None else str(value) for value in row] for row in self.rows[first:last]]


def make(files: Path, seed: int) -> Truth:
    """Write the files that are downloaded, and return everything."""
    rng = random.Random(seed)
    kept = [tuple(row[n] for n in (0, 1, 2, 5)) for row in users(ROWS)]
    truth = Truth(kept, rng.randbytes(3_000_017), rng.randbytes(1_500_011))
    (files / "videos").mkdir(parents=True, exist_ok=True)
    (files / "survive.bin").write_bytes(truth.file)
    (files / "videos" / "survive.mp4").write_bytes(truth.video)
    return truth


def records(body: bytes) -> list[list[str]]:
    """The records of a CSV, header first (the standard library's reader)."""
    return list(csv.reader(io.StringIO(body.decode(), newline="")))


def lines(body: bytes) -> list[Any]:
    """The values of NDJSON, without the last line when it is not whole; a heartbeat is an empty line."""
    return [json.loads(line) for line in body.split(b"\n")[:-1] if line]
