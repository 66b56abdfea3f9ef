"""llm.beside: what the loop takes of a model's answer while its greenlet waits, and what wakes the greenlet."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import gevent
import gevent.socket
import msgspec
import pytest

from llm import beside, texts
from llm.beside import Beside
from llm.chunked import Chunked
from llm.texts import Take
from settings import ROOT


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answer:
    """A body on its way: ``send`` it, and ask ``reader`` for what nobody has taken."""

    def __init__(self, take: Take) -> None:
        connection, self.peer = gevent.socket.socketpair()
        self.connection, self.decoder = connection, Chunked()
        self.reader = Beside(connection, self.decoder, take)

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def close(self) -> None:
        self.connection.close()
        self.peer.close()


@pytest.fixture
def taken() -> list[bytes]:
    return []


@pytest.fixture
def answer(taken: list[bytes]) -> Iterator[Answer]:
    """What begins with T is taken."""
    found = Answer(lambda data: data.startswith(b"T") and not taken.append(data))
    yield found
    found.close()


def woken(answer: Answer) -> bytes:
    with gevent.Timeout(10):
        return answer.reader.wait()


def test_what_is_taken_wakes_nobody(answer: Answer, taken: list[bytes]) -> None:
    """It is taken in its order; the first that is not is what the waiting one gets, as it came."""
    waiting = gevent.spawn(woken, answer)
    for data in (b"T1", b"T2", b"T3"):
        answer.send(chunk(data))
        with gevent.Timeout(10):
            while data not in taken:
                gevent.sleep(0.001)
    assert not waiting.ready()
    answer.send(chunk(b"no"))
    assert waiting.get(timeout=10) == b"no"
    assert taken == [b"T1", b"T2", b"T3"]


def test_what_comes_together_is_one_piece(answer: Answer, taken: list[bytes]) -> None:
    """However it was cut on its way, and also where the rest of a chunk comes later."""
    whole = chunk(b"T1") + chunk(b"2") + chunk(b"T3")
    answer.send(whole[:-3])
    waiting = gevent.spawn(woken, answer)
    with gevent.Timeout(10):
        while not taken:
            gevent.sleep(0.001)
    assert taken == [b"T12T"]  # a chunk's beginning is as good as any other piece
    answer.send(whole[-3:])
    assert waiting.get(timeout=10) == b"3"


def test_the_end_wakes(answer: Answer, taken: list[bytes]) -> None:
    """Also one that came with a piece that would have been taken: it is given to who waits, and not taken, too."""
    answer.send(chunk(b"T1") + b"0\r\n\r\n")
    assert woken(answer) == b"T1"
    assert answer.decoder.ended
    assert taken == []


@pytest.mark.parametrize(("data", "error"), [(b"T1", ValueError), (b"", ConnectionError)])
def test_a_broken_answer_wakes(answer: Answer, data: bytes, error: type[Exception]) -> None:
    """What is no chunk, and a connection that ends before the last one."""
    answer.send(data + b"\r\n" if data else b"")
    answer.peer.close()
    with pytest.raises(error):
        woken(answer)


@pytest.mark.parametrize("error", [KeyError("a fault of ours"), BlockingIOError("no fault of the socket's")])
def test_a_fault_in_the_loop_is_the_waiting_ones(error: Exception) -> None:
    """What was received and not taken is gone: whoever waits for it must not wait on."""

    def fail(_: bytes) -> bool:
        raise error

    broken = Answer(fail)
    try:
        broken.send(chunk(b"T1"))
        with pytest.raises(type(error)):
            woken(broken)
    finally:
        broken.close()


def test_who_is_thrown_out_of_his_wait_loses_nothing(answer: Answer, taken: list[bytes]) -> None:
    """In the very moment in which something comes: it is there for the next wait."""

    class Thrown(BaseException):
        pass

    def wait() -> str:
        try:
            return woken(answer).decode()
        except Thrown:
            return "thrown"

    waiting = gevent.spawn(wait)
    gevent.sleep(0)
    answer.send(chunk(b"x1"))
    waiting.kill(Thrown(), block=False)
    beside._ready(answer.reader)  # as the loop does when it sees both at once
    assert waiting.get(timeout=10) == "thrown"
    gevent.sleep(0.01)
    assert woken(answer) == b"x1"
    assert taken == []


@pytest.mark.parametrize(
    ("delta", "more", "text"),
    [
        ({"content": "Hi"}, {}, "Hi"),
        ({"content": 'é\n"', "refusal": None, "tool_calls": None}, {"finish_reason": None, "logprobs": None}, 'é\n"'),
        ({"content": ""}, {}, ""),
        ({"content": None}, {}, ""),
        ({"content": "Hi"}, {"finish_reason": "stop"}, ""),
        ({"content": "Hi", "reasoning": "Hm"}, {}, ""),
        ({"content": "Hi", "reasoning_content": "Hm"}, {}, ""),
        ({"content": "Hi", "tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, {}, ""),
        ({"content": "Hi", "annotations": [{"url_citation": {"url": "x"}}]}, {}, ""),
        ({"refusal": "No"}, {}, ""),
    ],
)
def test_text_and_nothing_else(delta: dict[str, object], more: dict[str, object], text: str) -> None:
    """Only what has no other meaning is text that may be taken."""
    body = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}], "usage": None}
    message = msgspec.json.encode(body)
    assert texts.text([message]) == text
    assert texts.text([message, message]) == text * 2
    for other in ({"usage": {"prompt_tokens": 1}}, {"error": {"message": "x"}}, {"object": "error"}, {"choices": []},
                  {"citations": ["x"]}, {"choices": body["choices"] * 2}):  # fmt: skip
        assert texts.text([message, msgspec.json.encode(body | other)]) == ""
    assert texts.text([b"{"]) == texts.text([b"[DONE]"]) == ""


def test_an_answer_is_the_same_however_it_comes() -> None:
    """Fifty answers of text, thoughts and tool calls, cut anywhere and with pauses: with and without being taken."""
    code = """
        from gevent import monkey; monkey.patch_all()
        import json, random, socket, gevent
        from llm.clients import client_for
        from llm.openai import Limits, complete

        def delta(**fields):
            return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}

        def body(rng):
            kinds = [lambda n: delta(content=f"t{n} "), lambda n: delta(content=f"é{n}\\n"),
                     lambda n: delta(reasoning=f"r{n} "), lambda n: delta(content=f"c{n} ", reasoning=f"q{n} "),
                     lambda n: delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "1"}}])]
            said = [rng.choices(kinds, [9, 3, 1, 1, 1])[0](n) for n in range(rng.randrange(1, 60))]
            said.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            lines = [f"data: {json.dumps(each)}\\n\\n".encode() for each in said] + [b"data: [DONE]\\n\\n"]
            return [b"%x\\r\\n%b\\r\\n" % (len(line), line) for line in lines] + [b"0\\r\\n\\r\\n"]

        def serve(listener, seed):
            rng = random.Random(seed)
            chunks = body(rng)
            connection, _ = listener.accept()
            while b"\\r\\n\\r\\n" not in connection.recv(65536):
                pass
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n"
                               b"Content-Type: text/event-stream\\r\\nConnection: close\\r\\n\\r\\n")
            held = b""
            for chunk in chunks:
                at = rng.choice([0, 0, 0, 1, rng.randrange(len(chunk))])
                if rng.random() < 0.8:
                    connection.sendall(held + chunk[:at])
                    held = chunk[at:]
                    gevent.sleep(rng.choice([0, 0, 0.002]))
                else:
                    held += chunk
            connection.sendall(held)
            connection.close()

        def answer(listener, seed, taking):
            gevent.spawn(serve, listener, seed)
            client = client_for(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "")
            said, count = [], [0]
            def add(event):
                text = event.data.decode()
                if said and event.type in ("text", "reasoning") and said[-1][0] == event.type:
                    said[-1][1] += text
                else:
                    said.append([event.type, text])
            def take(event):
                count[0] += 1
                add(event)
                return True
            for event in complete(client, "m", [], Limits(20, 20), take if taking else None):
                if event is not None:
                    add(event)
            client.close()
            return said, count[0]

        listener = socket.create_server(("127.0.0.1", 0))
        total = 0
        for seed in range(50):
            plain, _ = answer(listener, seed, False)
            taken, count = answer(listener, seed, True)
            assert plain == taken, (seed, plain, taken)
            assert plain[-1][0] == "finish"
            total += count
        print(json.dumps(total))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) > 100
