"""A Redis as the log needs it: a bounded pool, scripts, and every failure told as a StoreError in bounded time.

Rules:
- No call is tried again here: an append whose answer was lost may have happened. Who repeats it gives it a key.
- Connecting, waiting for an answer and waiting for a place in the pool each have a time-out of their own.
- Scripts are sent by their digest, and whole where Redis does not know them (any more): after a restart, a failover
  or SCRIPT FLUSH.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.exceptions import AuthenticationError, AuthorizationError, NoScriptError, RedisError
from redis.retry import Retry

from stores.errors import StoreBusy, StoreError, StoreFull

SCHEMES = ("redis", "rediss", "unix")
PREFIX = "perennial:"
CONNECT_S = 1.0
ANSWER_S = 2.0
# Calls of one worker that are under way at a time; what comes on top waits POOL_S for its turn.
CONNECTIONS = 32
POOL_S = 2.0
OLDEST: Final = (6, 2)

_FOLDER = Path(__file__).with_name("redis_scripts")
# Redis begins an error with its kind; one raised in a script of Redis 6.2 holds it in the middle.
_PASSING = {"LOADING", "READONLY", "MISCONF", "BUSY", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN"}


def open_pool(url: str) -> tuple[Any, str]:
    """Return a pool that has not connected yet, and the prefix of the keys (``?prefix=``). Raises ValueError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", PREFIX)
    if parts.scheme not in SCHEMES:
        raise ValueError("its scheme must be redis, rediss or unix")
    pool: Any = BlockingConnectionPool.from_url(  # Any: redis has types, but not for what is called here
        urlunsplit(parts._replace(query=urlencode(options))),
        max_connections=CONNECTIONS,
        timeout=POOL_S,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=ANSWER_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # 3 needs nothing here, and a HELLO that some proxies do not speak
        driver_info=None,  # else two more round trips for each connection
    )
    try:
        pool.make_connection()
    except TypeError as error:
        raise ValueError("it has an option that is none") from error
    return pool, prefix


def _load(name: str) -> str:
    parts = ("common", "making", name) if name in ("create", "append") else ("common", name)
    return "".join((_FOLDER / f"{part}.lua").read_text() for part in parts)


class Scripts:
    """The scripts of ``redis_scripts``, run on the Redis at ``url``."""

    def __init__(self, url: str) -> None:
        self.pool, self.prefix = open_pool(url)
        self._client: Any = redis.Redis(connection_pool=self.pool)
        names = [path.stem for path in _FOLDER.glob("*.lua") if path.stem not in ("common", "making")]
        self._texts = {name: _load(name) for name in names}
        # Not for secrecy: it is how Redis names a script.
        self._digests = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in self._texts.items()}

    def run(self, name: str, asked: Mapping[str, Any], events: list[bytes | str] | None = None) -> list[Any]:
        """Return what the script ``name`` answers; nothing else happens in Redis meanwhile. Raises StoreError."""
        given = (0, self.prefix, msgspec.json.encode(asked), *(events or ()))
        with told():
            try:
                answer = self._client.execute_command("EVALSHA", self._digests[name], *given)
            except NoScriptError:
                answer = self._client.execute_command("EVAL", self._texts[name], *given)
        return list(answer)

    def run_each(
        self, name: str, asked: Sequence[Mapping[str, Any]], events: Sequence[list[bytes | str]]
    ) -> list[list[Any] | StoreError]:
        """Return what the script ``name`` answers to each, or fails with, all in one round trip. Raises StoreError."""
        calls = [(0, self.prefix, msgspec.json.encode(one), *more) for one, more in zip(asked, events, strict=True)]
        with told(), self._client.pipeline(transaction=False) as pipeline:
            for given in calls:
                pipeline.execute_command("EVALSHA", self._digests[name], *given)
            answers = pipeline.execute(raise_on_error=False)
        return [self._answer(name, given, answer) for given, answer in zip(calls, answers, strict=True)]

    def _answer(self, name: str, given: tuple[Any, ...], answer: Any) -> list[Any] | StoreError:
        try:
            with told():
                if isinstance(answer, NoScriptError):
                    answer = self._client.execute_command("EVAL", self._texts[name], *given)
                if isinstance(answer, Exception):
                    raise answer
        except StoreError as error:
            return error
        return list(answer)

    def ping(self) -> None:
        with told():
            self._client.execute_command("PING")

    def about(self) -> Mapping[str, Any]:
        """What Redis says of itself (INFO)."""
        with told():
            return dict(self._client.info())

    def connection(self) -> Any:
        """Return a connection that is none of the pool's, and not connected yet."""
        return self.pool.make_connection()

    def close(self) -> None:
        self.pool.disconnect()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tell what goes wrong inside as StoreBusy, StoreFull or StoreError."""
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise StoreError("The log's Redis does not let this server in.") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise StoreBusy("The log's Redis does not answer.") from error
    except RedisError as error:
        raise _refusal(f"{type(error).__name__} {error}") from error


def _refusal(text: str) -> StoreError:
    words = text.replace("-", " ").replace(":", " ").split()
    if "OOM" in words or "OutOfMemoryError" in words:
        return StoreFull("The log's Redis has no memory left.")
    if not _PASSING.isdisjoint(words) or text.startswith(("ReadOnlyError", "BusyLoadingError")):
        return StoreBusy("The log's Redis takes no writes now.")
    return StoreError("The log's Redis failed.")
