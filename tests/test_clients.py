"""The tests' own yardsticks, held against the standards they are written from."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.clients import EventStream, RawClient, ServerSentEvent, parse_events

# HTML Living Standard, 9.2.6: its own examples, and one case for each rule of the interpretation.
STREAMS = {
    "three lines": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("YHOO\n+2\n10", "")]),
    "comment, id, empty id, one space": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("first event", "1"), ("second event", ""), (" third event", "")],
    ),
    "empty data; the last event is not finished": (b"data\n\ndata\ndata\n\ndata:", [("", ""), ("\n", "")]),
    "with and without the space": (b"data:test\n\ndata: test\n\n", [("test", ""), ("test", "")]),
    "CR, LF, CRLF": (b"data: a\r\r\ndata: b\r\n\r\ndata: c\n\n", [("a", ""), ("b", ""), ("c", "")]),
    "other separators are data": ("data: \u2028\u0085\x0b\x1e\n\n".encode(), [("\u2028\u0085\x0b\x1e", "")]),
    "BOM only at the start": ("\ufeffdata: a\n\n\ufeffdata: b\n\n".encode(), [("a", "")]),
    "id with NUL": (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [("a", "1"), ("b", "1")]),
    "no data, no event": (b"event: x\nid: 7\n\ndata: a\n\n", [("a", "7")]),
    "unknown field": (b"datax: a\n data: b\ndata: c\n\n", [("c", "")]),
}


@pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_events_are_interpreted_as_the_standard_says(stream: bytes, expected: list[tuple[str, str]]) -> None:
    """The events are those of the standard, whether the stream comes whole or byte by byte."""
    events = [ServerSentEvent(data, "message", id) for data, id in expected]
    assert parse_events(stream) == events
    parser = EventStream()
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == events


def test_a_frame_with_only_an_id_sets_the_cursor() -> None:
    """An id without data fires nothing and is what a reconnect sends; retry takes digits only."""
    parser = EventStream()
    assert parser.feed(b"retry: 500\nid: 5\n\nretry: 1s\nretry: \nid: 6\n") == []
    assert (parser.last_event_id, parser.retry_ms) == ("5", 500)


HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "final chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "clean"),
    "no final chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "cut"),
    "inside a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "cut"),
    "full length": (HEAD + b"Content-Length: 3\r\n\r\nabc", "clean"),
    "short length": (HEAD + b"Content-Length: 4\r\n\r\nabc", "cut"),
}


@pytest.mark.parametrize(("answer", "end"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_clean_end_is_told_from_a_cut(answer: bytes, end: str) -> None:
    """A message without its final chunk or its full length is incomplete (RFC 9112, 8)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with RawClient(listener.getsockname()[1]) as client:
            got = client.request("GET", "/").read_to_end()
        thread.join()
    assert (got.status, got.body, got.end) == (200, b"abc", end)
