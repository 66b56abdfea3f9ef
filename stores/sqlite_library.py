"""The SQLite library of this process, set up before its first connection.

Rules:
- It does not count its memory: for that it takes a lock at each allocation, of which a row of an export needs several
  (a sixth of its time), and all connections share the lock. SQLite recommends it (sqlite.org/compile.html, 2).
- Meant is the library that Python's own module is linked to; where that does not show its functions, nothing changes.
"""

from __future__ import annotations

import _sqlite3
import ctypes

_MEMSTATUS = 9  # SQLITE_CONFIG_MEMSTATUS (sqlite3.h)


def set_up() -> None:
    """Only while no connection is open in this process: the library is shut down for a moment."""
    if (library := _library()) is not None:
        library.sqlite3_shutdown()
        library.sqlite3_config(_MEMSTATUS, 0)
        library.sqlite3_initialize()


def used_bytes() -> int | None:
    """Return what SQLite counts of its memory, 0 where it does not; None where it does not show that."""
    if (library := _library()) is None:
        return None
    library.sqlite3_memory_used.restype = ctypes.c_int64
    return int(library.sqlite3_memory_used())


def _library() -> ctypes.CDLL | None:
    """The functions of the library behind the module: of its own, or of what it is linked to."""
    path = getattr(_sqlite3, "__file__", None)
    if path is None:
        return None  # built into Python
    library = ctypes.CDLL(path)
    names = ("sqlite3_shutdown", "sqlite3_config", "sqlite3_initialize", "sqlite3_memory_used")
    return library if all(hasattr(library, name) for name in names) else None
