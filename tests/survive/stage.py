"""Where an episode happens: a server of two workers with its stores, a model's server, and the proxy before it.

Two stages: SQLite for all, or Redis for the log and PostgreSQL for the tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stores.seed import make_sample_database, users
from tests import postgres_server, redis_server
from tests.fake_openai import CUT, DONE, PING, STALL, FakeOpenAI, Step, finish, sse, token, usage
from tests.harness import LiveServer, eventually
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.survive import truth as truths
from tests.survive.caller import Finding
from tests.survive.proxy import FaultProxy
from tests.survive.truth import ROWS, TOKENS, Truth

STORES = ("embedded", "servers")
SETTINGS = {
    "WEB_CONCURRENCY": 2,
    "LONG_POLL_S": 2,
    "HEARTBEAT_S": 1,
    "CHAT_IDLE_S": 3,
    "CHAT_FIRST_TOKEN_S": 3,
    "CHAT_HEADERS_S": 1,
    "GRACEFUL_TIMEOUT": 4,
    "BODY_TIMEOUT_S": 5,
    "LOG_LEVEL": "WARNING",
}


@dataclass
class Stage:
    server: LiveServer
    proxy: FaultProxy
    model: FakeOpenAI
    truth: Truth
    redis: RedisServer | None = None
    postgres: PostgresServer | None = None
    descriptors: int = 0

    def restart(self) -> None:
        """Like an operator's: SIGTERM, and a new server on the same port."""
        self.server.restart()

    def settled(self) -> None:
        """Raise Finding for what an episode left behind: streams, descriptors."""
        with contextlib.suppress(AssertionError):
            eventually(self._idle, 20.0)
            return
        raise Finding(
            f"left behind: {self._streams()} streams, {self._descriptors()} of {self.descriptors} descriptors"
        )

    def measure(self) -> None:
        """What the workers hold while nothing happens."""
        self.descriptors = max(self._descriptors())

    def _idle(self) -> bool:
        # A few may be kept: connections to the stores, and what a worker opens at the first request of a kind.
        return not any(self._streams()) and max(self._descriptors(), default=0) <= self.descriptors + 24

    def _streams(self) -> list[int]:
        """Of whichever workers answer; asked several times, so that each is."""
        try:
            return [json.loads(self.server.get("/healthz")[1])["streams"] for _ in range(8)]
        except (OSError, ValueError):
            return [-1]

    def _descriptors(self) -> list[int]:
        found = []
        for pid in self.server.pids():
            with contextlib.suppress(OSError):
                found.append(len(os.listdir(f"/proc/{pid}/fd")))
        return found


def script(rng: random.Random) -> tuple[str, dict[str, object]]:
    """How the model behaves in an episode: its name, and what FakeOpenAI is to play."""
    said: list[Step] = [step for each in TOKENS for step in (token(each), rng.choice([0.0, 0.005, 0.02]))]
    cut = rng.randrange(2, len(said))
    whole = [*said, finish(), usage(3, len(TOKENS)), DONE]
    plays: dict[str, tuple[list[Step], int]] = {
        "whole": (whole, 200),
        "cut": ([*said[:cut], CUT], 200),
        "stall": ([*said[:cut], STALL], 200),
        "pings only": ([*said[:cut], *[PING, 0.5] * 20], 200),
        "error object": ([*said[:cut], sse({"error": {"message": "overloaded"}})], 200),
        "garbage": ([*said[:cut], b"data: {not json\n\n"], 200),
        "no finish": ([*said, DONE], 200),
        "clean end": (said, 200),
        "429": ([b'{"error":{"message":"slow down"}}'], 429),
        "500": ([b"oops"], 500),
        "401": ([b'{"error":{"message":"no"}}'], 401),
        "silent": ([STALL], 200),
    }
    name = "whole" if rng.random() < 0.6 else rng.choice(list(plays))
    steps, status = plays[name]
    return name, {"steps": steps, "status": status}


@contextmanager
def stage(stores: str, seed: int) -> Iterator[Stage]:
    """Everything started, on free ports of 127.0.0.1 and in a folder of its own; and all of it ended."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="survive-")))
        model = stack.enter_context(FakeOpenAI())
        environment: dict[str, object] = {**SETTINGS, "OPENAI_BASE_URL": model.url}
        redis, postgres = None, None
        if stores == "servers":
            redis = RedisServer(folder)
            environment["STREAMS_URL"] = redis.start().url
            stack.callback(redis.stop)
            postgres = PostgresServer()
            stack.callback(postgres.stop)
            environment["DATABASE_URL"] = _filled(postgres.start())
        else:
            make_sample_database(folder / "app.db", ROWS)
            environment["DATABASE_URL"] = f"sqlite:///{folder / 'app.db'}"
        server = LiveServer(folder, environment)
        (folder / "files").mkdir()
        truth = truths.make(folder / "files", seed)
        stack.callback(server.stop)
        server.start(60.0)
        proxy = stack.enter_context(FaultProxy(server.port))
        made = Stage(server, proxy, model, truth, redis, postgres)
        eventually(lambda: len(server.pids()) == 2, 20.0)
        time.sleep(1)
        made.measure()
        yield made


def available(stores: str) -> bool:
    return stores == "embedded" or (redis_server.program() is not None and postgres_server.programs() is not None)


def _filled(postgres: PostgresServer) -> str:
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, city text,"
            " balance double precision, note text, created_at text NOT NULL)"
        )
        with cursor.copy("COPY users FROM STDIN") as copy:
            for row in users(ROWS):
                copy.write_row(row)
    return postgres.url()
