"""The SHA-256 of a file for those who ask for it: ``Repr-Digest`` (RFC 9530).

Rules:
- It is that of the whole file, also where a range of it is sent.
- It is computed once for each state of a file, in a thread, however many ask at the same time, and kept.
- A file that changed while it was read has no digest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import OrderedDict

import gevent
from gevent.lock import BoundedSemaphore

# A worker keeps so many, at some 200 bytes each.
KEPT = 10_000
_BLOCK_BYTES = 2**20
# RFC 9530, 4 and RFC 8941, 3.2: a dictionary of integers, of which the last of the same name counts.
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)(?:=(-?[0-9]{1,15}))?((?:;[^,\"]*)?)[ \t]*")


def wants_sha256(field: str) -> bool:
    """Whether a Want-Repr-Digest accepts sha-256: with a weight from 1 to 10."""
    weights: dict[str, str] = {}
    for member in field.split(","):
        if not (found := _MEMBER.fullmatch(member)):
            return False  # what cannot be parsed is ignored as a whole (RFC 8941, 4.2)
        weights[found[1]] = found[2] or ""
    return 1 <= int(weights.get("sha-256") or 0) <= 10


class Fingerprints:
    """The digests of files, by device, inode, size and time of the last change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], str] = OrderedDict()
        # One file at a time: several would be the whole machine, and who asks for the same one finds it when it comes.
        self._turn = BoundedSemaphore(1)

    def repr_digest(self, file: int) -> str | None:
        """Return the value of Repr-Digest for an open descriptor, None when it has none. Waits cooperatively."""
        state = _state(file)
        if state not in self._kept:
            with self._turn:
                if state not in self._kept and (digest := _in_thread(file)) and _state(file) == state:
                    self._kept[state] = f"sha-256=:{base64.b64encode(digest).decode()}:"
        if state not in self._kept:
            return None
        self._kept.move_to_end(state)
        kept = self._kept[state]
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept


def _in_thread(file: int) -> bytes | None:
    job = gevent.get_hub().threadpool.spawn(_sha256, file, os.fstat(file).st_size)
    try:
        digest: bytes | None = job.get()
    finally:
        job.wait()  # until then the thread reads from the descriptor, whose number must stay the file's
    return digest


def _state(file: int) -> tuple[int, ...]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _sha256(file: int, size: int) -> bytes | None:
    digest, offset = hashlib.sha256(), 0
    try:
        while offset < size and (block := os.pread(file, min(_BLOCK_BYTES, size - offset), offset)):
            digest.update(block)
            offset += len(block)
    except OSError:
        return None
    return digest.digest() if offset == size else None
