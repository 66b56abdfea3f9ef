"""llm.chunked and llm.transport: HTTP/1.1 to a model's server, at every cut, and what becomes of its connections.

Expected bodies: RFC 9112, 7.1 (chunked) and 6.3 (how a body ends).
"""

from __future__ import annotations

import gzip
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.chunked import LINE_BYTES, Chunked
from llm.transport import Transport

STREAM = b"4\r\nWiki\r\n6;ext=1\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\nREST"
BODY = b"Wikipedia in \r\n\r\nchunks."


def decoded(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The body, and what is left over."""
    decoder, body, after = Chunked(), b"", b""
    for piece in pieces:
        if decoder.ended:
            after += piece
        else:
            body += decoder.decode(piece)
    assert decoder.ended
    return body, decoder.rest + after


def test_chunks_whole() -> None:
    """RFC 9112's own example, with an extension and a trailer, in one piece: one piece of body."""
    assert decoded([STREAM]) == (BODY, b"REST")


def test_chunks_bytewise() -> None:
    """One byte at a time."""
    assert decoded([STREAM[at : at + 1] for at in range(len(STREAM))]) == (BODY, b"REST")


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_chunks_at_random_cuts(cuts: list[int]) -> None:
    """Wherever it is cut, also into empty pieces."""
    edges = [0, *sorted(cuts), len(STREAM)]
    assert decoded([STREAM[a:b] for a, b in pairwise(edges)]) == (BODY, b"REST")


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40) | st.just(b"\r\n0\r\n\r\n"), st.booleans()), max_size=9))
def test_chunks_that_come_one_by_one(chunks: list[tuple[bytes, bool]]) -> None:
    """Each in a piece of its own, or cut before its last byte, which the next piece begins with then."""
    pieces = [b""]
    for data, cut in chunks:
        chunk = b"%X\r\n%b\r\n" % (len(data), data)
        pieces[-1] += chunk[:-1] if cut else chunk
        pieces.append(chunk[-1:] if cut else b"")
    assert decoded([*pieces, b"0\r\n\r\n"]) == (b"".join(data for data, _ in chunks), b"")


@pytest.mark.parametrize(
    "stream",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x4\r\nWiki\r\n",
        b"4\r\nWikipedia\r\n",
        b"1" * 16 + b"\r\n",
        b"1" * LINE_BYTES * 2,
    ],
)
def test_what_is_no_chunk(stream: bytes) -> None:
    """It is refused, whole and byte by byte; so is a line without end."""
    with pytest.raises(ValueError, match="chunk"):
        Chunked().decode(stream)
    decoder = Chunked()
    with pytest.raises(ValueError, match="chunk"):  # noqa: PT012 - it is some call of many that raises
        for at in range(len(stream)):
            decoder.decode(stream[at : at + 1])


# The transport

HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nHi\r\n0\r\n\r\n"


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that gives its answers in turn, and closes a connection after one that begins with X. Its URL, and the
    client's port of each request."""
    ports: list[int] = []
    left = list(answers)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while left:
            connection, (_, port) = listener.accept()
            with connection:
                while left and connection.recv(65536):
                    ports.append(port)
                    answer = left.pop(0)
                    connection.sendall(answer.removeprefix(b"X"))
                    if answer.startswith(b"X"):
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", ports
    finally:
        left.clear()
        with socket.socket() as last:
            last.connect_ex(listener.getsockname())
        thread.join()
        listener.close()


def test_a_connection_is_used_again() -> None:
    """After a whole answer, chunked or with a length; not after one whose server said that it closes."""
    length = HEAD + b"Content-Length: 2\r\n\r\nHi"
    closing = HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nHi"
    with (
        answering(WHOLE, length, b"X" + closing, WHOLE) as (url, ports),
        httpx2.Client(transport=Transport()) as client,
    ):
        assert [client.get(url).text for _ in range(4)] == ["Hi"] * 4
    assert ports[0] == ports[1] == ports[2] != ports[3]


def test_a_connection_is_not_used_again_after_a_refusal() -> None:
    """Its server may close it in that very moment, and a POST on it would fail."""
    refusal = HEAD.replace(b"200 OK", b"400 Bad Request") + b"Content-Length: 2\r\n\r\nNo"
    with answering(refusal, WHOLE) as (url, ports), httpx2.Client(transport=Transport()) as client:
        assert [client.post(url).text for _ in range(2)] == ["No", "Hi"]
    assert ports[0] != ports[1]


def test_a_connection_that_its_server_closed_is_not() -> None:
    """It is seen before the request is sent: a POST is not repeated, and does not fail."""
    transport = Transport()
    with answering(b"X" + WHOLE, WHOLE) as (url, ports), httpx2.Client(transport=transport) as client:
        assert client.post(url).text == "Hi"
        ((connection, _),) = next(iter(transport._idle.values()))
        assert connection.sock is not None
        readable, _, _ = select.select([connection.sock], [], [], 10)  # it has heard of the end
        assert readable
        assert client.post(url).text == "Hi"
    assert ports[0] != ports[1]


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nHi\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nHi",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nHi",
        HEAD + b"Content-Length: 3\r\n\r\nHi",
        b"garbage\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_was_cut_is_an_error(answer: bytes) -> None:
    """However its end was announced."""
    with (
        answering(b"X" + answer) as (url, _),
        httpx2.Client(transport=Transport()) as client,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        _ = client.post(url).text


def test_a_field_that_would_end_its_line_is_not_sent() -> None:
    """What stands in a key must not become a request of its own (CWE-113); the next request is sent as ever."""
    with answering(WHOLE) as (url, _), httpx2.Client(transport=Transport()) as client:
        for value in ("x\r\nHost: other", "x\ny", "x\ry", "x\0"):
            with pytest.raises(httpx2.LocalProtocolError):
                client.get(url, headers={"Authorization": value.encode()})
        assert client.get(url).text == "Hi"


def test_a_server_that_is_not_there() -> None:
    """A ConnectError, as httpx2's own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with httpx2.Client(transport=Transport()) as client, pytest.raises(httpx2.ConnectError):
        client.get(f"http://127.0.0.1:{port}/")


def test_a_compressed_answer_is_read() -> None:
    """The client decodes it, as with any transport."""
    body = gzip.compress(b"Hi")
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with answering(answer) as (url, _), httpx2.Client(transport=Transport()) as client:
        assert client.get(url).text == "Hi"


def test_leaving_shuts_the_connection_down() -> None:
    """A server in the middle of its answer reads the end at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, httpx2.Client(transport=Transport()) as client:
        accept: Callable[[], tuple[socket.socket, object]] = listener.accept
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        got: list[bytes] = []

        def serve() -> None:
            connection, _ = accept()
            with connection:
                connection.recv(65536)
                connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nHi\r\n")
                connection.settimeout(10)
                got.append(connection.recv(1))

        thread = threading.Thread(target=serve)
        thread.start()
        with client.stream("POST", url) as response:
            assert next(response.iter_bytes()) == b"Hi"
        thread.join()
    assert got == [b""]
