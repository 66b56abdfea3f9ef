"""What each stream promises, with one client: its first byte, constant memory, and that it holds up no other."""

from __future__ import annotations

import statistics

from bench import limits
from bench.ground import Ground
from bench.limits import Limit
from bench.load import Probe, first_byte_ms, percentile, seconds, together, watched
from tests.harness import eventually

FIRST_BYTES = 20
# Of another request beside any load.
ASKED = "p99 < 10 ms"
_CHAT = b'{"messages":[{"role":"user","content":"Hello"}]}'


def first_bytes(ground: Ground) -> None:
    requests = {
        "/api/stream": _get("/api/stream?chunks=2&interval=0.1"),
        "/api/stream-json": _get("/api/stream-json?table=users"),
        "/api/sse": _get("/api/sse?count=2&interval=0.1"),
        "/api/events": _get("/api/events"),
        "/events": _get("/events"),
        "/api/chat": _post("/api/chat", "application/json", _CHAT),
        "/api/chat?protocol=ui": _post("/api/chat?protocol=ui", "application/json", _CHAT),
        "/api/download": _get(f"/api/download/{ground.file.name}"),
        "/api/video": _get("/api/video/sample"),
        "/api/upload-progress": _get("/api/upload-progress/nobody"),
        "/api/export": _get("/api/export?table=users"),
        "/api/stream-safe": _get("/api/stream-safe?count=2&interval=0.1"),
        "/api/transform": _post("/api/transform", "text/plain", b"hello"),
    }
    port, bare, times = ground.server.port, _get("/bare"), {}
    for path, request in requests.items():
        # In turn, each with the limit.
        times[path] = [(first_byte_ms(port, request), first_byte_ms(port, bare)) for _ in range(FIRST_BYTES)]
    ground.report.table(
        f"On the idle server, {FIRST_BYTES} new connections each", "stream", "median", "max", "asked for"
    )
    for path, pairs in times.items():
        ours = [ms for ms, _ in pairs]
        ground.report.row(f"`{path}`", f"**{statistics.median(ours):.1f} ms**", f"{max(ours):.1f} ms", "< 50 ms")
    said = "an empty WSGI application on the same worker"
    limits.tell(
        ground.report,
        *(
            Limit(f"`{path}`", said, [ours for ours, _ in pairs], [bare for _, bare in pairs], "ms")
            for path, pairs in times.items()
        ),
    )


def memory(ground: Ground) -> None:
    """The limit is a process that does nothing: it does not grow."""
    ground.report.table(
        "One client, one worker", "stream", "growth of resident memory", "asked for", f"time (median of {ground.runs})"
    )
    for name, arguments in ground.streams().items():
        with watched(ground.worker) as growth:
            times = [seconds(*arguments) for _ in range(ground.runs)]
        ground.clear_uploads()
        ground.report.row(name, f"**{growth.mib:.1f} MiB**", "< 32 MiB", f"{statistics.median(times):.2f} s")
    ground.report.say("", "The limit is 0: what does nothing does not grow. What remains are the blocks on their way.")


def company(ground: Ground) -> None:
    """The limit is the row of nothing beside it."""
    ground.report.table(
        "`/healthz` on the same worker",
        "beside",
        "p50",
        "p99",
        "max",
        "asked for",
        "requests",
        "times the p99 beside nothing",
    )
    streams, port = ground.streams(), ground.server.port
    with Probe(port) as idle:
        eventually(lambda: len(idle.times_ms) >= (100 if ground.quick else 500), 30)
    ground.report.row("nothing: the limit", *_figures(idle), "", len(idle.times_ms))
    for name, arguments in streams.items():
        with Probe(port) as probe:
            seconds(*arguments)
        ground.report.row(name, *_figures(probe), ASKED, *_beside(probe, idle))
    crowd = [[ground.url("/api/export?table=users")]] * 4 + list(streams.values())[:2]
    with Probe(port) as probe:
        together(crowd)
    ground.clear_uploads()
    name = "**four exports, an upload and a download at once**"
    ground.report.row(name, *_figures(probe), ASKED, *_beside(probe, idle))


def _beside(probe: Probe, idle: Probe) -> tuple[str, ...]:
    return str(len(probe.times_ms)), f"× {probe.p99_ms / idle.p99_ms:.1f}"


def _figures(probe: Probe) -> tuple[str, str, str]:
    return f"{probe.p50_ms:.1f} ms", f"**{percentile(probe.times_ms, 0.99):.1f} ms**", f"{probe.max_ms:.1f} ms"


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def _post(path: str, content_type: str, body: bytes) -> bytes:
    fields = f"Host: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body
