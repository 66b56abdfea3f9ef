"""Connections to PostgreSQL: a few are kept, and what they do waits in the event loop.

Rules:
- A fresh connection costs 3 to 6 ms, so some that are idle are kept, for a minute at most.
- A connection whose query did not come to its end is cancelled and closed, never used again. Others are made in its
  place before anybody waits for them: with what a fresh server process has to learn of the catalogue, that is half of
  the time to an export's first byte.
- Every wait is for the socket, in the event loop: no thread, and no block of the worker. (psycopg's own waits are
  cooperative when gevent has patched ``select``, as in the server.)
- No driver's sentence reaches a caller: those show SQL, addresses and names.
"""

from __future__ import annotations

import contextlib
import logging
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import psycopg
from gevent.monkey import get_original
from psycopg import errors
from psycopg.pq import TransactionStatus

from stores.errors import StoreBusy, StoreError

log = logging.getLogger("perennial.postgres")

_CONNECT_S = 5
_CANCEL_S = 2.0
_IDLE = 4
_IDLE_S = 60.0
_SPARE = 2  # that are made ahead: the next export may begin before one is

Connection = psycopg.Connection[tuple[Any, ...]]

_SENTENCES: dict[type[psycopg.Error], str] = {
    errors.UndefinedColumn: "The table has changed.",
    errors.UndefinedTable: "The table has changed.",
    errors.QueryCanceled: "The database ended the query: it took too long.",
    errors.CharacterNotInRepertoire: "The database holds text that is no Unicode text.",
    errors.UntranslatableCharacter: "The database holds text that is no Unicode text.",
    errors.InsufficientPrivilege: "The database does not let the server read this table.",
    errors.DiskFull: "The disk of the database is full.",
    errors.IoError: "The disk of the database failed.",
    errors.DataError: "The database could not compute a row.",
}


class Connections:
    """Connections to the database at ``url``; ``warm`` is what one that is made ahead of its use does first."""

    def __init__(self, url: str, warm: Callable[[Connection], object]) -> None:
        self._url = url
        self._warm = warm
        self._idle: list[tuple[float, Connection]] = []
        self._replacing: gevent.Greenlet[..., None] | None = None

    def take(self) -> Connection:
        """Return a connection without a transaction, in autocommit. Raises psycopg.Error."""
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE_S and _usable(connection):
                return connection
            connection.close()
        return self._connected()

    def _connected(self) -> Connection:
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_S,
            client_encoding="utf8",
            fallback_application_name="perennial",
        )

    def give_back(self, connection: Connection) -> None:
        """Keep it if it can be used again, else close it; a query that still runs is ended."""
        if connection.info.transaction_status == TransactionStatus.IDLE and len(self._idle) < _IDLE:
            self._idle.append((time.monotonic(), connection))
        else:
            self.end(connection)

    def end(self, connection: Connection) -> None:
        """Cancel what runs on it, close it, and see to another one."""
        end(connection)
        if len(self._idle) < _SPARE and self._replacing is None:
            self._replacing = gevent.spawn(self._replace)

    def _replace(self) -> None:
        try:
            while len(self._idle) < _SPARE:
                connection = self._connected()
                try:
                    self._warm(connection)
                except BaseException:
                    connection.close()
                    raise
                self._idle.append((time.monotonic(), connection))
        except psycopg.Error:
            log.debug("no connection could be made ahead of its use", exc_info=True)
        finally:
            self._replacing = None

    def dispose(self) -> None:
        if self._replacing is not None:
            self._replacing.kill()
        while self._idle:
            self._idle.pop()[1].close()


def _usable(connection: Connection) -> bool:
    """Whether the server has not closed it meanwhile: then there would be something to read, or an end."""
    poll = get_original("select", "poll")()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def end(connection: Connection) -> None:
    """Cancel what runs on it, and close it: soon, where the event loop itself asks, which may not wait."""
    if gevent.getcurrent() is gevent.get_hub():
        gevent.spawn(_end, connection)
    else:
        _end(connection)


def _end(connection: Connection) -> None:
    try:
        if connection.info.transaction_status == TransactionStatus.ACTIVE:
            # Closing is not enough: a query that sorts would notice at its first row only.
            connection.cancel_safe(timeout=_CANCEL_S)
    except psycopg.Error:
        log.warning("a query could not be cancelled, and its connection is closed")
    finally:
        connection.close()


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what the driver says into a StoreError that shows no SQL and no address."""
    try:
        yield
    except psycopg.Error as error:
        with contextlib.suppress(Exception):
            log.info("PostgreSQL: %s %s", error.sqlstate, str(error).splitlines()[0])
        if isinstance(error, errors.TooManyConnections | errors.CannotConnectNow | errors.LockNotAvailable):
            raise StoreBusy("The database is busy; please try again.") from error
        for kind, sentence in _SENTENCES.items():
            if isinstance(error, kind):
                raise StoreError(sentence) from error
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise StoreError("The database cannot be reached, or has closed the connection.") from error
        raise StoreError("The database could not answer.") from error
