"""Where an episode happens: a server of two workers with its stores, a model's server, and the proxy before it.

Two stages: SQLite for all, or Redis for the log and PostgreSQL for the tables. What the server keeps lies on a disk of
its own that can be full, and its clock can be set, where the machine lets us have such things.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stores.seed import make_sample_database, users
from tests import postgres_server, redis_server
from tests.fake_openai import CUT, DONE, PING, STALL, FakeOpenAI, Step, finish, sse, token, usage
from tests.harness import LiveServer, eventually
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.survive import holding
from tests.survive import truth as truths
from tests.survive.caller import Finding, Mishaps
from tests.survive.clock import Clock
from tests.survive.disk import Disk
from tests.survive.holding import Holding
from tests.survive.proxy import FaultProxy
from tests.survive.truth import ROWS, TOKENS, Truth

STORES = ("embedded", "servers")
WORKERS = 2
SETTLE_S = 30.0
# A worker that was killed is known to be dead after some ten seconds, and what it held is ended then.
DEAD_S = 60.0
SETTINGS = {
    "WEB_CONCURRENCY": WORKERS,
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
    """``mishaps``: of this episode. ``killed``: whether a process may have been, so that its files were left."""

    server: LiveServer
    proxy: FaultProxy
    model: FakeOpenAI
    truth: Truth
    disk: Disk
    clock: Clock
    redis: RedisServer | None = None
    postgres: PostgresServer | None = None
    mishaps: Mishaps = field(default_factory=Mishaps)
    killed: bool = False
    idle: Holding = field(default_factory=Holding)
    # Since when each is known (time.monotonic).
    dead_marks: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Like an operator's: SIGTERM, and a new server on the same port."""
        self.server.restart()

    def settled(self) -> None:
        """Raise Finding for what an episode left behind."""
        left: list[str] = ["nobody answers"]

        def is_settled() -> bool:
            now = holding.look(self.server, self.disk.folder, self.postgres)
            left[:] = [*now.beyond(self.idle, self.killed), *self._held_for_too_long(now)]
            return not left

        with contextlib.suppress(AssertionError):
            eventually(is_settled, SETTLE_S)
            return
        raise Finding(f"left behind: {'; '.join(left)}")

    def _held_for_too_long(self, now: Holding) -> list[str]:
        """What the dead hold is not waited for in each episode; but nothing of it is there for long."""
        at = time.monotonic()
        self.dead_marks = {mark: self.dead_marks.get(mark, at) for mark in now.marks_of_the_dead()}
        return [f"a lease of the dead on {mark}" for mark, since in self.dead_marks.items() if at - since > DEAD_S]

    def measure(self) -> None:
        """What the workers hold while nothing happens."""
        self.idle = holding.look(self.server, self.disk.folder, self.postgres)


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
        disk, clock = Disk(folder / "disk"), Clock(folder)
        stack.callback(disk.close)
        for name in ("files", "tmp"):
            (disk.folder / name).mkdir()
        model = stack.enter_context(FakeOpenAI())
        environment: dict[str, object] = {**SETTINGS, **clock.environment, "OPENAI_BASE_URL": model.url}
        environment |= {"TMPDIR": disk.folder / "tmp", "STREAM_LOG": disk.folder / "streams.jsonl"}
        redis, postgres = None, None
        if stores == "servers":
            redis = RedisServer(folder, environment=clock.environment)
            environment["STREAMS_URL"] = redis.start().url
            stack.callback(redis.stop)
            postgres = PostgresServer()
            stack.callback(postgres.stop)
            environment["DATABASE_URL"] = _filled(postgres.start())
        else:
            make_sample_database(disk.folder / "app.db", ROWS)
            environment["DATABASE_URL"] = f"sqlite:///{disk.folder / 'app.db'}"
        server = LiveServer(disk.folder, environment, application="tests.survive.witness:app")
        server.log_path = folder / "server.log"
        truth = truths.make(disk.folder / "files", seed)
        stack.callback(server.stop)
        server.start(60.0)
        proxy = stack.enter_context(FaultProxy(server.port))
        made = Stage(server, proxy, model, truth, disk, clock, redis, postgres)
        eventually(lambda: len(server.pids()) == WORKERS, 20.0)
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
