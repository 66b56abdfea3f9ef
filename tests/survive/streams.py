"""Kinds that are read: text, rows, ticks, files and exports. Each function is one client, to its end.

It raises Finding where something is lost, doubled, out of order, or ended clean without being whole.
"""

from __future__ import annotations

import re

from tests.clients import Answer, EventStream
from tests.survive.caller import Caller, Finding, same
from tests.survive.truth import COLUMNS, ROWS, Truth, lines, records


def text(caller: Caller, _: Truth) -> None:
    """/api/stream, continued by ``after``: the last whole line."""
    count = caller.rng.randint(20, 200)
    chunks: list[bytes] = []
    while len(chunks) < count:
        after = f"&after={len(chunks) - 1}" if chunks else ""
        answer = caller.ask("GET", f"/api/stream?chunks={count}&interval=0.01{after}")
        caller.passing(answer, 200)
        if answer.status == 200:
            chunks += bytes(answer.body).split(b"\n")[:-1]
            _whole(caller, answer, len(chunks) == count)
        caller.later()
    same(caller.name, b"\n".join(chunks), b"\n".join(b"Chunk %d" % n for n in range(count)))


def ticks(caller: Caller, _: Truth) -> None:
    """/api/sse by an EventSource: it dies of every status but 200, and is ended by a 204."""
    count = caller.rng.randint(20, 200)
    seen: list[str] = []
    last = ""
    while True:
        returning = (("Last-Event-ID", last),) if last else ()
        answer = caller.ask(
            "GET", f"/api/sse?count={count}&interval=0.01", (("Accept", "text/event-stream"), *returning)
        )
        if answer.status == 204:
            break
        if last and answer.status not in (0, 200):
            raise Finding(f"{caller.name}: an EventSource died of {answer}")
        caller.passing(answer, 200)
        stream = EventStream()
        stream.last_event_id = stream._id = last
        events = stream.feed(bytes(answer.body)) if answer.status == 200 else []
        if any(event.type not in ("message", "stream-error") for event in events):
            raise Finding(f"{caller.name}: {events}")
        seen += [event.id for event in events if event.type == "message"]
        last = stream.last_event_id
        caller.later()
    same(caller.name, " ".join(seen).encode(), " ".join(map(str, range(count))).encode())


def rows(caller: Caller, truth: Truth) -> None:
    """/api/stream-json, continued by the last key."""
    limit = caller.rng.randint(100, ROWS)
    got: list[dict[str, object]] = []
    while True:
        after = f"&after={got[-1]['id']}" if got else ""
        target = f"/api/stream-json?columns={','.join(COLUMNS)}&limit={limit - len(got)}{after}"
        answer = caller.ask("GET", target)
        caller.passing(answer, 200)
        new = lines(bytes(answer.body)) if answer.status == 200 else []
        failed = bool(new) and set(new[-1]) == {"error"}
        got += new[:-1] if failed else new
        if answer.status == 200:
            _whole(caller, answer, len(got) == limit)
            if answer.end == "clean":
                break
        caller.later()
    if got != truth.ndjson(0, limit):
        raise Finding(f"{caller.name}: not the rows of the table")


def safe(caller: Caller, truth: Truth) -> None:
    """/api/stream-safe: a clean end is the whole, or has an error as its last line."""
    count = caller.rng.randint(20, 150)
    items: list[int] = []
    while len(items) < count:
        after = f"&after={items[-1]}" if items else ""
        answer = caller.ask("GET", f"/api/stream-safe?count={count}&interval=0.01{after}")
        caller.passing(answer, 200)
        new = lines(bytes(answer.body)) if answer.status == 200 else []
        items += [each["item"] for each in new if "item" in each]
        if answer.status == 200:
            _whole(caller, answer, len(items) == count or (bool(new) and "error" in new[-1]))
        caller.later()
    same(caller.name, " ".join(map(str, items)).encode(), " ".join(map(str, range(count))).encode())


def download(caller: Caller, truth: Truth) -> None:
    """A file, as ``curl -C -`` and ``wget -c`` get it."""
    same(caller.name, _by_range(caller, "/api/download/survive.bin"), truth.file)


def video(caller: Caller, truth: Truth) -> None:
    """A film, in the ranges of a player that seeks."""
    size = len(truth.video)
    for _ in range(caller.rng.randint(2, 6)):
        first = caller.rng.randrange(size)
        last = min(size - 1, first + int(10 ** caller.rng.uniform(2, 6)))
        answer = caller.insist("GET", "/api/video/survive", (("Range", f"bytes={first}-{last}"),), done=(206,))
        same(caller.name, bytes(answer.body), truth.video[first : last + 1])
    same(caller.name, _by_range(caller, "/api/video/survive"), truth.video)


def _by_range(caller: Caller, target: str) -> bytes:
    """Return what is there, asked for again from where it stopped until an end is clean."""
    got, tag = b"", ""
    while True:
        going_on = (("Range", f"bytes={len(got)}-"), ("If-Range", tag)) if got else ()
        answer = caller.ask("GET", target, going_on)
        caller.passing(answer, 200, 206)
        if answer.status in (200, 206):
            if answer.status == 200 and got:
                raise Finding(f"{caller.name}: nothing has changed, and the range was not given: {answer}")
            got, tag = got + bytes(answer.body), answer.header("etag") or tag
            if answer.end == "clean":
                return got
        caller.later()


def export(caller: Caller, truth: Truth) -> None:
    """A table as CSV, begun anew after each cut, until one end is clean."""
    limit = caller.rng.randint(100, ROWS)
    target = f"/api/export/users.csv?columns={','.join(COLUMNS)}&limit={limit}"
    answer = caller.insist("GET", target)
    if records(bytes(answer.body)) != [list(COLUMNS), *truth.csv(0, limit)]:
        raise Finding(f"{caller.name}: not the rows of the table")


def export_by_range(caller: Caller, truth: Truth) -> None:
    """The same with its length, continued by ranges straight from the database."""
    limit = caller.rng.randint(100, ROWS)
    target = f"/api/export/users.csv?columns={','.join(COLUMNS)}&limit={limit}&length=exact"
    if records(_by_range(caller, target)) != [list(COLUMNS), *truth.csv(0, limit)]:
        raise Finding(f"{caller.name}: not the rows of the table")


def transform(caller: Caller, truth: Truth) -> None:
    """A body back in capitals, begun anew after each cut, until one end is clean."""
    size = int(10 ** caller.rng.uniform(1, 6.4))
    body = re.sub(rb"[^a-zA-Z0-9 ]", b"x", truth.file[:size])
    answer = caller.insist("POST", "/api/transform?to=upper", (("Content-Type", "text/plain"),), body)
    same(caller.name, bytes(answer.body), body.upper())


def _whole(caller: Caller, answer: Answer, whole: bool) -> None:
    if answer.end == "clean" and not whole:
        raise Finding(f"{caller.name}: ended clean, and was not whole: {answer}")
