"""How the cost of what passes through grows: the bytes of a file, and the rows of an export."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import bare, exports
from bench import files as file_bench
from bench.ground import Ground
from bench.grown import Grown
from bench.load import watched
from bench.plot import Curve, size
from bench.turns import in_turn, ratio
from tests.harness import LiveServer

# A size is asked for as often as makes so many bytes; a number of rows as often as makes so many rows.
BYTES, ROWS = 300_000_000, 2_000_000
# Python makes so many rows; the rest are copies of them.
MADE_ROWS = 100_000


def milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.2f} ms"


def files(ground: Ground, sizes: tuple[int, ...]) -> Grown:
    """Time of a GET on a connection of its own. The files have no blocks on the disk: it is the way out that counts."""
    folder = ground.folder("growth-files")
    rows: list[tuple[object, ...]] = []
    ours, alone = [], []
    with file_bench.served(folder / "server", folder) as server:
        for each in sizes:
            path = folder / f"{each}.bin"
            with path.open("wb") as out:
                out.truncate(each)
            times = _get_ms(server, path, each)
            path.unlink()  # and out of the page cache
            a, b = map(statistics.median, times)
            ours.append((each, a))
            alone.append((each, b))
            rows.append(
                (size(each), f"**{milliseconds(a)}**", f"{each / a / 1000:,.0f}", milliseconds(b), ratio(*times))
            )
    fixed, speed = milliseconds(min(ms for _, ms in ours)), sizes[-1] / ours[-1][1] / 1000
    return Grown(
        "Files: time of a GET",
        ("bytes of the file", "ms of a GET"),
        "",
        "the time of a GET",
        (Curve("Perennial", tuple(ours)), Curve("sendfile(2) alone", tuple(alone))),
        ("file", "time", "MB/s", "`sendfile(2)` alone", "times that"),
        rows,
        milliseconds,
        size,
        f"The fixed cost of a GET is {fixed}, and the largest file comes at {speed:,.0f} MB/s.",
    )


def _get_ms(server: LiveServer, path: Path, length: int) -> tuple[list[float], list[float]]:
    """Ours, and those of sendfile(2) alone, pair by pair."""
    with bare.serving("send", path) as port:
        ways = {
            "ours": lambda: file_bench.get_s(server.port, f"/api/download/{path.name}", size=length) * 1000,
            "bare": lambda: file_bench.get_s(port, "/", size=length) * 1000,
        }
        runs = max(1, min(40, BYTES // length))
        # Warm, however long it takes: whoever comes first pays for the memory that the machine has from its host.
        times = in_turn(ways, runs)
    return times["ours"], times["bare"]


def rows(ground: Ground, counts: tuple[int, ...]) -> Grown:
    """Rows a second of the first so many of one table in SQLite, and by how much the worker has grown so far."""
    folder = ground.folder("growth-rows")
    made = min(counts[-1], MADE_ROWS)
    exports.fill(folder / "people.db", made, counts[-1] // made)
    points: dict[str, list[tuple[float, float]]] = {}
    table: list[tuple[object, ...]] = []
    with exports.served(folder / "server", f"sqlite:///{folder}/people.db") as server:
        _export_s(server, "csv", counts[0])  # what a worker does once belongs to no row
        with watched(server.pids()[0]) as growth:
            for count in counts:
                speeds = _rows_a_second(server, folder / "people.db", count)
                for name, speed in speeds.items():
                    points.setdefault(name, []).append((count, speed))
                told = (f"**{speed:,.0f}**" for speed in speeds.values())
                table.append((f"{count:,}", *told, f"{growth.mib:.1f} MiB"))
    (folder / "people.db").unlink()
    return Grown(
        "Rows of an export from SQLite: rows a second",
        ("rows", "rows a second"),
        "rows",
        "the speed of a CSV export",
        tuple(Curve(name, tuple(each)) for name, each in points.items()),
        ("rows", *points, "growth of memory so far"),
        table,
        lambda value: f"{value:,.0f} rows a second",
        more=f"Memory grows by {growth.mib:.1f} MiB over all of these exports (asked for: < 16 MiB).",
    )


def _rows_a_second(server: LiveServer, database: Path, count: int) -> dict[str, float]:
    ways = {
        "CSV": lambda: _export_s(server, "csv", count),
        "NDJSON": lambda: _export_s(server, "ndjson", count),
        "SQLite alone: columns read, no line made": lambda: exports.stepped_s(database, count),
    }
    runs = max(1, min(20, ROWS // count))
    times = in_turn(ways, runs, warm=runs > 1)  # the largest have been exported in part already
    return {name: count / statistics.median(each) for name, each in times.items()}


def _export_s(server: LiveServer, format: str, count: int) -> float:
    """A row has more than 20 bytes."""
    return file_bench.get_s(server.port, f"/api/export/people.{format}?limit={count}", size=20 * count)
