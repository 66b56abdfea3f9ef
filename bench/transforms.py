"""Transforms: how fast each codec is by itself, how fast the server moves a body, and what that costs others."""

from __future__ import annotations

import gzip
import statistics
import time
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

from bench import bare, limits
from bench.ground import FOX, Ground, write
from bench.limits import Limit
from bench.load import MIB, Probe, first_byte_ms, seconds, watched
from bench.turns import in_turn
from streaming.compression import zstd
from streaming.pipeline import Limits, Pipeline

PIECE_BYTES = 256 * 1024
CODEC_BYTES = 8 * MIB
RUNS = 3
# Of what is sent and read back; that a GiB takes no more memory is measured by bench/promises.py.
BODY_BYTES = 256 * MIB
FIRST_BYTES = 20
_NO_LIMITS = Limits(bytes=2**62, ratio=2**31)
_RIVER = "Ο ποταμός δεν στερεύει ποτέ, der Fluß versiegt nie, sông không bao giờ cạn.\n"


def bodies() -> dict[tuple[str, str], bytes]:
    """What each codec is fed with, by what it is and the transforms' names."""
    fox, river = _filled(FOX), _filled(_RIVER.encode())
    row = '{},"Ada {}, Lovelace",ada{}@example.org,2026-11-23T12:00:00Z\r\n'
    table = b"id,name,email,created_at\r\n" + "".join(row.format(n, n, n) for n in range(CODEC_BYTES // 72)).encode()
    lines = b"".join(Pipeline(["csv-to-ndjson"], _NO_LIMITS).decode(table))
    return {
        ("ASCII", "upper"): fox,
        ("Greek, German, Vietnamese", "upper"): river,
        ("ASCII", "lower"): fox,
        ("Greek, German, Vietnamese", "lower"): river,
        ("Greek, German, Vietnamese", "casefold"): river,
        ("ASCII", "nfc"): fox,
        ("NFC already", "nfc"): river,
        ("NFD", "nfc"): _filled(unicodedata.normalize("NFD", _RIVER).encode()),
        ("ASCII", "lines"): fox,
        ("table of 4 columns", "csv-to-ndjson"): table,
        ("objects of 4 keys", "ndjson-to-csv"): lines,
        ("table of 4 columns", "gzip"): table,
        ("table of 4 columns", "zstd"): table,
        ("table of 4 columns (as unpacked)", "gunzip"): gzip.compress(table, 1),
        ("table of 4 columns (as unpacked)", "unzstd"): zstd.compress(table, 1),
        ("any", "sha256"): fox,
        ("table of 4 columns (as unpacked)", "gunzip,csv-to-ndjson,gzip"): gzip.compress(table, 1),
    }


def _filled(line: bytes) -> bytes:
    return line * (CODEC_BYTES // len(line))


def codec(names: str, body: bytes) -> tuple[float, float]:
    """Megabytes of what is plain (the body, or what is unpacked from it) a second of CPU, and the longest step in ms.

    Both are the best of some runs.
    """
    speeds, longest = [], []
    for _ in range(RUNS):
        pipeline, steps_s = Pipeline(names.split(","), _NO_LIMITS), [time.thread_time()]
        steps = chain(chain.from_iterable(map(pipeline.decode, _pieces(body))), pipeline.flush())
        steps_s.extend(time.thread_time() for _ in steps)
        plain = pipeline._stages[0].made if names.startswith(("gunzip", "unzstd")) else len(body)
        speeds.append(plain / (steps_s[-1] - steps_s[0]) / 1e6)
        longest.append(max(b - a for a, b in pairwise(steps_s)) * 1000)
    return max(speeds), min(longest)


def transforms(ground: Ground) -> None:
    columns = ("transform", "fed with", "MB/s", "longest step")
    ground.report.table("Each codec by itself, CPU of one core", *columns)
    for (kind, names), body in bodies().items():
        speed, longest_ms = codec(names, body)
        ground.report.row(f"`{names}`", kind, f"{speed:.0f}", f"{longest_ms:.1f} ms")
    text = ground.folder("transforms") / "text.txt"
    write(text, CODEC_BYTES if ground.quick else BODY_BYTES, FOX * (MIB // len(FOX)))
    ground.report.table(
        f"{_size(text)} of ASCII sent and read back by curl",
        "transform", "MB/s (median)", "asked for", "memory", "asked for", "another request's p99", "its max",
    )  # fmt: skip
    for names, wanted in (("upper", "≥ 400"), ("lower", ""), ("gzip", ""), ("zstd", ""), ("gzip,gunzip,upper", "")):
        ground.report.row(f"`{names}`", *_moved(ground, text, names, wanted))
    _first_bytes(ground)
    _limits(ground, text)


def _size(text: Path) -> str:
    return f"{text.stat().st_size // MIB} MiB"


def _arguments(ground: Ground, text: Path, names: str) -> list[str]:
    return ["-T", str(text), "-X", "POST", ground.url(f"/api/transform?to={names}")]


def _moved(ground: Ground, text: Path, names: str, wanted: str) -> Iterator[str]:
    arguments = _arguments(ground, text, names)
    with watched(ground.worker) as growth:
        times = [seconds(*arguments) for _ in range(ground.runs)]
        with Probe(ground.server.port) as probe:
            probe.fill(*arguments)
    yield f"**{text.stat().st_size / statistics.median(times) / 1e6:.0f}**"
    yield wanted
    yield f"{growth.mib:.1f} MiB"
    yield "< 32 MiB"
    yield f"**{probe.p99_ms:.1f} ms**"
    yield f"{probe.max_ms:.1f} ms"


def _first_bytes(ground: Ground) -> None:
    """The request has not ended when its answer begins: a first chunk is sent, and no last one."""
    columns = ("transform", "median", "max", "asked for")
    ground.report.table(f"First byte back, {FIRST_BYTES} new connections", *columns)
    for names in ("upper", "gzip", "zstd", "lines"):
        head = f"POST /api/transform?to={names} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        request = head.encode() + b"6\r\nriver\n\r\n"
        times = [first_byte_ms(ground.server.port, request) for _ in range(FIRST_BYTES)]
        ground.report.row(f"`{names}`", f"**{statistics.median(times):.1f} ms**", f"{max(times):.1f} ms", "< 10 ms")


def _limits(ground: Ground, text: Path) -> None:
    """Of the codec, `bytes.upper` on the same pieces; of the whole way, that between `recv` and `send`."""
    fox = _filled(FOX)
    ways = {"ours": lambda: _ms_per_mib(lambda: _decoded(fox)), "bare": lambda: _ms_per_mib(lambda: _uppered(fox))}
    codecs = in_turn(ways, ground.pairs)
    with bare.serving("upper", text) as port:
        peer = ["-T", str(text), "-X", "POST", f"http://127.0.0.1:{port}/"]
        arguments = _arguments(ground, text, "upper")
        times = in_turn({"ours": lambda: seconds(*arguments), "bare": lambda: seconds(*peer)}, ground.pairs)
    limits.tell(
        ground.report,
        Limit(
            "`upper` by itself, a MiB of ASCII", "`bytes.upper` on pieces of 256 KiB", codecs["ours"], codecs["bare"],
            "ms",
        ),
        Limit(
            f"`upper` of {_size(text)}, sent and read back", "`recv(2)`, `bytes.upper`, `send(2)`", times["ours"],
            times["bare"], "s",
        ),
    )  # fmt: skip


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))


def _uppered(body: bytes) -> None:
    for piece in _pieces(body):
        piece.upper()


def _decoded(body: bytes) -> None:
    pipeline = Pipeline(["upper"], _NO_LIMITS)
    for _ in chain(chain.from_iterable(map(pipeline.decode, _pieces(body))), pipeline.flush()):
        pass


def _ms_per_mib(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000 / (CODEC_BYTES / MIB)
