"""Resumable uploads, whatever their protocol: their bytes are taken in, and at the end they become files.

Rules:
- Whoever works on an upload holds it; the newest request gets it (streaming/claims.py).
- What arrived stays, also when its request fails, but for a piece whose checksum is wrong: that is cut off again.
- An offset is told only after ``sync``.
- An upload becomes a file where it is found whole: by the request that completes it, or by the next one, if the worker
  was killed in between.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from stores.base import Log
from stores.bodies import HeldUpload, Resumables, Upload
from stores.errors import NoUpload, PartMissing, StoreError
from streaming import digests, file_names, stored
from streaming.arrivals import Arrivals
from streaming.claims import Claims, Holder
from streaming.digests import Digests
from streaming.errors import BadRequest, Gone, Locked, Problem, public
from streaming.progress import Progress
from streaming.slowness import Slowest

log = logging.getLogger("perennial.uploads")

# How often a client that understands it is told how much is safe.
TELL_S = 5.0
# Parts that were joined may be asked for again by a client that missed the answer.
JOINED_S = 600.0


@dataclass(frozen=True, slots=True)
class Intake:
    """``most``: bytes of an upload; ``slowest``: how slowly a body may come."""

    resumables: Resumables
    claims: Claims
    log: Log
    most: int
    slowest: Slowest
    notifications_keep: int

    @contextlib.contextmanager
    def making(self, upload: Upload, known: bool) -> Iterator[Taken]:
        """Make an upload, held in this block. Raises PartMissing, StoreError.

        ``known``: its client has been told its URL; one that nobody knows is not kept when the block fails.
        """
        with self.claims.taking(upload.id, lambda: self.resumables.create(upload)) as (held, holder):
            taken = Taken(self, held, holder)
            try:
                taken.begin()
                yield taken
            except (Problem, StoreError) as error:
                if not known:
                    taken.delete(public(error))
                raise
        self.join_waiting(upload)

    @contextlib.contextmanager
    def taking(self, id: str) -> Iterator[Taken]:
        """Hold the upload in this block, whoever had it; whole ones have become files. Raises NoUpload, Locked."""
        with self.claims.taking(id, lambda: self.resumables.hold(id)) as (held, holder):
            taken = Taken(self, held, holder)
            taken.settle()
            yield taken
        self.join_waiting(taken.upload)

    def join_waiting(self, upload: Upload) -> None:
        """Make the files that wait for this part, if it was the last one missing."""
        if not upload.partial:
            return
        for id in self.resumables.waiting_for(upload.id):
            # What happens to that one is told to its own client, who asks for it.
            with contextlib.suppress(NoUpload, Gone, Locked), self.taking(id):
                log.info("%s: its parts are looked through", id)

    def sweep(self) -> None:
        """Delete what has expired, and tell those who watch."""
        for id in self.resumables.sweep():
            try:
                Progress(self.log, stored.progress_path(id), None).failed("The upload expired.")
            except StoreError:  # it has gone all the same, and so have the others, who are to be told
                log.exception("%s expired, and that could not be told", id)


class Taken:
    """An upload that this request holds."""

    def __init__(self, intake: Intake, held: HeldUpload, holder: Holder) -> None:
        self._intake = intake
        self._held = held
        self._holder = holder
        self._digest: Digests | None = None
        self.told: dict[str, Any] = {}

    @property
    def upload(self) -> Upload:
        return self._held.upload

    @property
    def offset(self) -> int:
        return self._held.offset

    def begin(self) -> None:
        self._progress().begin()

    def change(self, **changes: Any) -> None:
        if replace(self.upload, **changes) != self.upload:
            self._held.change(replace(self.upload, **changes))

    def receive(
        self,
        environ: MutableMapping[str, Any],
        checks: Digests,
        wrong: Callable[[str], Problem],
        tell: Callable[[int], None] | None = None,
    ) -> None:
        """Append the request's body. Raises what ``Arrivals`` raises, ``wrong(algorithm)``, and StoreError.

        ``tell`` is told now and then how much is safe.
        """
        start = self.offset
        limit = (self._intake.most if self.upload.length is None else self.upload.length) - start
        progress = Progress(self._intake.log, self._path, self.upload.length, start)
        whole = self._whole_digest() if not start else None
        feeds = [each for each in (checks, whole) if each]
        arrivals = Arrivals(environ, limit, self._intake.slowest)
        self._holder.listen(arrivals.let_go)
        told_at = time.monotonic()
        try:
            for _ in arrivals.into(self._held, *feeds):
                progress.moved(self.offset)
                if tell and time.monotonic() - told_at > TELL_S:
                    told_at = time.monotonic()
                    tell(self._held.sync())
        except (Problem, StoreError):
            progress.paused(self.offset)
            raise
        finally:
            arrivals.close()
        if algorithm := checks.mismatch():
            self._held.cut(start)
            progress.paused(start)
            raise wrong(algorithm)
        self._digest = whole

    def sync(self) -> int:
        """Make all durable that has come, and return how much that is: what may be told."""
        return self.upload.size if self.upload.over else self._held.sync()

    def settle(self) -> None:
        """Make a file of the upload if it is whole; ``told`` is then what is told of it."""
        upload = self.upload
        if upload.over:
            self.told = stored.told(upload.finished, upload.size)
        elif upload.parts:
            self._join()
        elif upload.ends and self.offset == upload.length and not upload.partial:
            self._finish()

    def delete(self, sentence: str) -> None:
        """Forget the upload; ``sentence`` tells those who watch why. Once or often."""
        self._held.delete()
        if not self.upload.over:
            with contextlib.suppress(StoreError):  # it was told of when it was deleted first
                self._progress().failed(sentence)

    def _join(self) -> None:
        try:
            if not self._held.join():
                return
        except PartMissing as error:
            self.delete(str(error))
            raise Gone(str(error)) from error
        self._finish()
        for part in self.upload.parts:
            self._intake.resumables.expire_within(part, JOINED_S)

    def _finish(self) -> None:
        whole = self._compare()
        upload = self._held.finish(self.upload.name or file_names.UNNAMED)
        digest = digests.write({upload.wanted: whole.digest(upload.wanted)}) if upload.wanted else ""
        self.told = stored.told(upload.finished, upload.size, digest)
        try:
            self._progress().complete(self.told)
            stored.publish(self._intake.log, self._intake.notifications_keep, self.told)
        except StoreError:
            log.exception("%s was stored, and could not be announced", upload.finished)

    def _compare(self) -> Digests:
        """Return the digests of all bytes. Raises BadRequest, and forgets the upload, when they are others."""
        whole = self._digest
        if whole is None:
            whole = self._whole_digest()
            if whole:
                self._held.read(whole)
        if algorithm := whole.mismatch():
            sentence = f"The upload has another {algorithm} digest than was announced; it was not kept."
            self.delete(sentence)
            raise BadRequest(sentence, headers={"Upload-Complete": "?1"})
        return whole

    def _whole_digest(self) -> Digests:
        announced = digests.parse(self.upload.digest, "Repr-Digest")
        return Digests(announced, wanted=[self.upload.wanted])

    def _progress(self) -> Progress:
        return Progress(self._intake.log, self._path, self.upload.length)

    @property
    def _path(self) -> str:
        return stored.progress_path(self.upload.id)
