"""The application that is served in an episode: Perennial's own, and at /held what its worker holds at this moment."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import gevent

_greenlets: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()
gevent.Greenlet.add_spawn_callback(_greenlets.add)

from streaming import leases, runs  # noqa: E402  # after it: theirs are counted, too
from streaming.links import links  # noqa: E402
from wsgi import app  # noqa: E402

_served: Any = app.wsgi_app


def witnessed(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ.get("PATH_INFO") != "/held":
        found: Iterable[bytes] = _served(environ, start_response)
        return found
    start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
    return [json.dumps(_held()).encode()]


def _held() -> dict[str, Any]:
    store = app.extensions["log"]
    marks = [path for prefix in ("held/", leases.SLOTS) for path in leases.all_paths(store, prefix)]
    return {
        "pid": os.getpid(),
        "worker": app.extensions["lease"].worker,
        "streams": len(links),
        "runs": runs.running(),
        "marks": marks,
        "greenlets": Counter(_name(each) for each in list(_greenlets) if not each.dead),
        "deleted": [target for target in _open_files() if target.endswith(" (deleted)")],
    }


def _name(greenlet: Any) -> str:
    frame = greenlet.gr_frame
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_code.co_name}" if frame else type(greenlet).__name__


def _open_files() -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return found


app.wsgi_app = witnessed  # type: ignore[method-assign]  # as app.py does
