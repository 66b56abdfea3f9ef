"""What is done now and then: one thing that fails keeps none of the others from its turn."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

import housekeeping
from stores.base import START
from stores.bodies import Upload
from stores.errors import NoStream, StoreFull
from stores.memory import MemoryLog
from stores.resumables import FileResumables
from streaming import stored
from streaming.claims import Claims
from streaming.intake import Intake
from streaming.slowness import Slowest
from tests.full_log import FullLog


@pytest.mark.parametrize("error", [StoreFull("No space is left."), OSError("the folder has gone")])
def test_one_that_fails_is_one(error: Exception) -> None:
    """The others have their turn, in their order, and it is tried again with them."""
    done: list[str] = []

    def fails() -> None:
        done.append("first")
        raise error

    for _ in range(2):
        housekeeping.do_each([fails, lambda: done.append("second")])
    assert done == ["first", "second"] * 2


def test_a_full_disk_is_swept(make_app: Callable[..., Flask]) -> None:
    """The log can forget nothing where nothing can be written; what a killed process left goes all the same."""
    app = make_app()
    files = app.extensions["settings"].FILES_DIR
    parts = [files / folder / ".part-0123456789abcdef" for folder in ("uploads", "videos")]
    for part in parts:
        part.write_bytes(b"of a process that was killed")
        os.utime(part, (0, 0))
    log, app.extensions["log"] = app.extensions["log"], FullLog(MemoryLog())
    app.extensions["log"].full = True
    try:
        housekeeping.do_each(housekeeping.sweeps(app))
    finally:
        app.extensions["log"] = log
    assert [part.exists() for part in parts] == [False, False]


def test_all_expired_uploads_are_told(tmp_path: Path) -> None:
    """Also behind one whose end the log does not take."""
    log = FullLog(MemoryLog())
    intake = Intake(FileResumables(tmp_path, 0), Claims(log), log, 100, Slowest(1.0), 10)
    ids = ["an-expired-upload-1", "an-expired-upload-2"]
    for id in ids:
        intake.resumables.create(Upload(id, "a.txt")).release()
        for path in (tmp_path / ".resumable").glob(f"{id}*"):
            os.utime(path, (0, 0))
    log.refusals = 1
    intake.sweep()
    told = []
    for id in ids:
        try:
            told += [event.type for event in log.read(stored.progress_path(id), START).events]
        except NoStream:
            continue
    assert told == ["failed"]


class Ring:
    """Refers to itself: only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("younger", [0, 10])
def test_old_objects_are_looked_through_now_and_then(younger: int) -> None:
    """Python itself is told not to (gunicorn.conf.py): all of them at once hold up a worker; and only behind work."""
    gc.collect()
    ring = Ring()
    freed = weakref.ref(ring)
    for _ in range(max(younger, 2)):
        gc.collect(1)  # from now on it is an old one
    del ring
    housekeeping.collect()
    assert (freed() is None) == bool(younger)
