"""The folder in which the workers of one server keep what they have counted, so that any of them can tell for all.

Rules:
- Each master has one, in memory where there is such a place; it bears the master's process id, and those of masters
  that were killed are removed by the next one.
- prometheus_client looks at the environment when it is first imported: ``make`` comes before that.
- What a worker that has ended had counted is added to one file of the dead: there are no more files for more reloads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_NAME = "perennial-metrics-"


def make() -> None:
    """In the master, whenever its settings are read: have the folder, and let all that it starts know of it."""
    parent = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
    _remove_orphans(parent)
    folder = parent / f"{_NAME}{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ[_VARIABLE] = str(folder)


def remove() -> None:
    """In the master, at its end."""
    if (folder := place()) and folder.name == f"{_NAME}{os.getpid()}":
        shutil.rmtree(folder, ignore_errors=True)


def place() -> Path | None:
    return Path(os.environ[_VARIABLE]) if os.environ.get(_VARIABLE) else None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let nobody be buried while this block adds up; short: a waiting worker stands still."""
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def bury(pid: int) -> None:
    """In the master, when a worker has ended: keep what it counted, forget how it was."""
    from prometheus_client.mmap_dict import MmapedDict

    if not (folder := place()):
        return
    with locked(folder):
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            dead = MmapedDict(str(folder / f"{kind}_0.db"))
            with contextlib.closing(dead):
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
                    dead.write_value(key, dead.read_value(key)[0] + value, 0.0)
            file.unlink()
        for file in folder.glob(f"gauge_*_{pid}.db"):
            file.unlink()


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_NAME}*"):
        found = re.fullmatch(f"{_NAME}([0-9]+)", folder.name)
        if found and not Path(f"/proc/{found[1]}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
