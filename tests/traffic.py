"""Mixed clients of one address, who go on until they are told to stop: what a team does with a server all day.

Rules:
- Each is a client as people have them: EventSource, NDJSON, long-polls, the Durable Streams protocol, useChat, tus,
  ``curl --retry``.
- ``errors`` is what one of them would have shown to its user. What a client mends by itself is none.
- Nothing may be lost or doubled: at the end every reader has exactly what was said.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from settings import ROOT
from tests import chat_peers
from tests.clients import RawClient
from tests.survival_clients import DurableLive, EventSource, Lines, Poll, Publisher, Reader, Seen, message

STREAM = "/v1/stream/traffic"
FILE_BYTES = 4 * 2**20
# curl's own words for "try again, whatever it was": what it then exits with is what its user sees.
RETRY = ("--retry", "5", "--retry-all-errors", "--retry-delay", "1")


class Steadfast(random.Random):
    """Of whom a producer that sometimes drops its own connection learns never to."""

    def random(self) -> float:
        return 1.0


class SteadyEvents(EventSource):
    steady = True


class SteadyLines(Lines):
    steady = True


class SteadyPoll(Poll):
    steady = True


class SteadyDurable(DurableLive):
    steady = True


class Traffic:
    """All of them at ``port``; ``files`` is the folder that the server serves, ``folder`` is theirs."""

    def __init__(self, port: int, files: Path, folder: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.errors: list[str] = []
        self.done: dict[str, int] = {}
        self.said = 0
        self._files = files
        self._folder = folder
        self._stopped = threading.Event()
        self._file = os.urandom(FILE_BYTES)
        self._publisher = Publisher(port, 0, Steadfast(0))
        self.readers: list[Reader] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> Traffic:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._files / "traffic.bin").write_bytes(self._file)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("PUT", STREAM, headers={"Content-Type": "application/json"})
            assert connection.getresponse().status == 201
        readers = (
            *(SteadyEvents(self.port, "/api/events?follow=1&topic=traffic", random.Random(n)) for n in range(4)),
            SteadyLines(self.port, "/api/events?follow=1&topic=traffic", random.Random(4)),
            SteadyPoll(self.port, "/api/events?poll=1&topic=traffic", random.Random(5)),
            *(SteadyDurable(self.port, STREAM, random.Random(n)) for n in range(3)),
        )
        self.readers = [reader.start() for reader in readers]
        for name, work in self._work().items():
            thread = threading.Thread(target=self._go_on, args=(name, work), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def _work(self) -> dict[str, Callable[[int], str]]:
        """What is done again and again, by name: each returns what its user was told of a failure, "" without one."""
        work: dict[str, Callable[[int], str]] = {"say": self._say, "tus": self._upload, "slow": self._read_slowly}
        if shutil.which("curl"):
            work |= {"download": self._download, "export": self._export, "text": self._text}
        if not chat_peers.missing():
            work["useChat"] = self._chat
        return work

    def _go_on(self, name: str, work: Callable[[int], str]) -> None:
        for turn in itertools.count():
            if self._stopped.is_set():
                return
            try:
                error = work(turn)
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            if error:
                self.errors.append(f"{name}, turn {turn}: {error}")
            self.done[name] = turn + 1

    def _say(self, turn: int) -> str:
        self._publisher.publish("traffic", message(0, turn), f"traffic-{turn}")
        self._publisher.append(STREAM, [message(0, turn)])
        self.said = turn + 1
        self._stopped.wait(0.1)
        return ""

    def _curl(self, name: str, target: str, *options: str) -> tuple[str, bytes]:
        path = self._folder / name
        command = ["curl", "-sSf", *RETRY, *options, "-o", str(path), self.url + target]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        # What it retries it warns of; only its exit status is a failure.
        return (run.stderr.strip() or "failed") if run.returncode else "", path.read_bytes() if path.exists() else b""

    def _read_slowly(self, turn: int) -> str:
        """Some three seconds for the file, which no buffer on the way can hold."""
        with RawClient(self.port, receive_buffer_bytes=65536, timeout_s=120.0) as client:
            client.request("GET", "/api/download/traffic.bin", [("Connection", "close")])
            while not client.answer.end:
                client.receive()
                self._stopped.wait(0.05)
            return "" if client.answer.body == self._file else repr(client.answer)

    def _download(self, turn: int) -> str:
        error, data = self._curl("download", "/api/download/traffic.bin")
        return error or ("" if data == self._file else f"{len(data)} bytes came, and not those of the file")

    def _export(self, turn: int) -> str:
        error, data = self._curl("export", "/api/export/users.csv?limit=5000&columns=id,name")
        return error or ("" if data.count(b"\r\n") == 5001 else f"{len(data)} bytes of an export")

    def _text(self, turn: int) -> str:
        error, data = self._curl("text", "/api/stream?chunks=10&interval=0.1")
        whole = b"".join(b"Chunk %d\n" % n for n in range(10))
        return error or ("" if data == whole else repr(data))

    def _chat(self, turn: int) -> str:
        seen = chat_peers.ask_client("ai-7", f"{self.url}/api/chat", chat=f"traffic-{turn}")
        return "" if seen["status"] == "ready" and seen["text"] and not seen["error"] else repr(seen)

    def _upload(self, turn: int) -> str:
        path = self._folder / f"upload-{turn % 2}.bin"
        path.write_bytes(content := os.urandom(1_000_000))
        command = [sys.executable, str(ROOT / "tests" / "tus_clients" / "upload.py"), f"{self.url}/api/uploads"]
        name = f"traffic-{turn}.bin"
        options = f'{{"chunk_size": 100000, "retries": 20, "retry_delay": 1, "metadata": {{"filename": "{name}"}}}}'
        run = subprocess.run([*command, str(path), options], capture_output=True, text=True, timeout=300, check=False)
        if run.returncode:
            return run.stderr[-300:]
        stored = self._files / "uploads" / name
        same = hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(content).digest()
        stored.unlink()
        self._stopped.wait(0.5)
        return "" if same else "what was stored is not what was sent"

    def stop(self, timeout_s: float = 120.0) -> None:
        """Let everybody finish what they are at, and the readers come to the end of what was said."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self._publisher.append(STREAM, [{"end": True}], close=True)
        self._publisher.publish("traffic", {"end": True}, "end-of-traffic")
        for reader in self.readers:
            reader.join(timeout_s)
            reader.stop()

    def check(self) -> None:
        """Raise AssertionError for whatever a user saw, and whatever was lost, doubled or cut."""
        assert not self.errors, "\n".join(self.errors[:10])
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
        said: list[Seen] = [(0, n) for n in range(self.said)]
        for reader in self.readers:
            assert not reader.failure, f"{reader}: {reader.failure}"
            assert reader.ended, f"{reader} never came to its end"
            assert reader.seen == said, f"{reader}: {len(reader.seen)} of {len(said)}"
            assert reader.cuts == 0, f"{reader}: {reader.cuts} of its connections were cut"

    def __repr__(self) -> str:
        connections = sum(reader.connections for reader in self.readers)
        return f"{self.said} said, {connections} connections of {len(self.readers)} readers, {self.done}"
