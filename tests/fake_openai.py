"""A model's server for the tests: real HTTP on a free port of 127.0.0.1, whose answers are scripted, faults and all.

An answer is a status, headers and steps, played in order: bytes are sent, a number is seconds to wait, ``STALL`` is
silence until the client leaves, ``CUT`` closes the connection without the end of the body. What a well-behaved
server says is built by ``token``, ``finish`` and ``usage`` after OpenAI's API reference (Chat, Streaming).
"""

from __future__ import annotations

import json
import math
import select
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = bytes | float

CUT = -1.0
STALL = math.inf
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], "usage": None})


def token(text: str) -> bytes:
    return delta(content=text)


def finish(reason: str = "stop") -> bytes:
    return delta(reason)


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": counts})


WHOLE: Sequence[Step] = (delta(role="assistant", content=""), token("Hel"), token("lo"), finish(), usage(3, 2), DONE)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them
    request_queue_size = 128  # with the default of 5 those that come together are reset


class FakeOpenAI:
    """``plays`` sets what every further request gets. Usable in ``with``.

    ``requests``: path, headers (names in lower case) and JSON body of what was asked. ``left_at``: when
    (time.monotonic) a client left before its answer was over; None while none has.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left_at: float | None = None
        self._answers: list[tuple[int, Mapping[str, str], Sequence[Step]]] = []
        self.plays(*WHOLE)
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def plays(self, *steps: Step, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._answers = [(status, {"Content-Type": "text/event-stream", **(headers or {})}, steps)]

    def then_plays(self, *steps: Step) -> None:
        """What the requests after the next one get."""
        self._answers.append((200, {"Content-Type": "text/event-stream"}, steps))

    def refuses(self, status: int, message: str, headers: Mapping[str, str] | None = None, **error: Any) -> None:
        body = json.dumps({"error": {"message": message, **error}}).encode()
        self.plays(body, status=status, headers={"Content-Type": "application/json", **(headers or {})})

    def __enter__(self) -> FakeOpenAI:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self) -> tuple[int, Mapping[str, str], Sequence[Step]]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                fake.requests.append((self.path, names, json.loads(body)))
                self.close_connection = True
                status, headers, steps = fake._next()
                if steps[:1] == (STALL,):  # not even the status
                    self._wait(STALL)
                    return
                self.send_response(status)
                for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
                    self.send_header(name, value)
                self.end_headers()
                if all(self._play(step) for step in steps):
                    self.wfile.write(b"0\r\n\r\n")

            def _play(self, step: Step) -> bool:
                """Whether the answer goes on after this step."""
                if isinstance(step, bytes):
                    return not self._wait(0) and self._write(b"%x\r\n%b\r\n" % (len(step), step))
                return step != CUT and not self._wait(step)

            def _write(self, chunk: bytes) -> bool:
                try:
                    self.wfile.write(chunk)
                except OSError:  # it left while this was being written
                    fake.left_at = time.monotonic()
                    return False
                return True

            def _wait(self, seconds: float) -> bool:
                """Whether the client left within ``seconds``: it sends nothing more, so what can be read is its end."""
                left = bool(select.select([self.connection], [], [], None if seconds == STALL else seconds)[0])
                if left:
                    fake.left_at = time.monotonic()
                return left

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
