"""Which run answers what: the runs of a chat, and the run of an idempotency key.

Rules:
- A name (a chat's id, a key) has one small stream; its last event is the run that counts.
- Two that claim a name at once read the same last event, and the second one's append is refused: it looks again, and
  finds what the first one has begun.
- Names come from clients and are nobody's secret: they are hashed, so that none can be a path of another's.
"""

from __future__ import annotations

import hashlib

import msgspec

from stores.base import START, Config, Log
from stores.errors import SequenceRegression
from streaming.events import json_event

INDEX = "chat-index/"
_KEEP = 4


class Entry(msgspec.Struct, frozen=True):
    """``run``: its id; ``asked``: what it was asked, as ``digest`` of it; ``number``: how many runs there have been.

    ``after``: of a key, how many its chat had had before; -1 where that is not known.
    """

    run: str
    asked: str
    number: int = 0
    after: int = -1


_decode = msgspec.json.Decoder(Entry).decode


def digest(*texts: str | bytes) -> str:
    """Return a short digest of the texts, in which none can pass for two."""
    hashed = hashlib.sha256()
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        hashed.update(b"%d:%b" % (len(data), data))
    return hashed.hexdigest()[:32]


class Index:
    """The runs by name, for ``keep_s`` seconds after a name was last asked for."""

    def __init__(self, log: Log, keep_s: float) -> None:
        self._log = log
        self._config = Config("application/json", ttl_s=int(keep_s), keep_events=_KEEP)

    def find(self, name: str) -> Entry | None:
        """Return the run that counts for ``name`` (a ``digest``), None when there is none."""
        events = self._log.read(INDEX + name, START).events
        return _decode(events[-1].data) if events else None

    def claim(self, name: str, entry: Entry, before: Entry | None) -> bool:
        """Let ``entry`` count from now on; False: what counts is no longer ``before``, and nothing was changed."""
        number = before.number + 1 if before else 1
        event = json_event({"run": entry.run, "asked": entry.asked, "number": number, "after": entry.after})
        try:
            self._log.append(INDEX + name, [event], create=self._config, seq=f"{number:012d}")
        except SequenceRegression:
            return False
        return True
