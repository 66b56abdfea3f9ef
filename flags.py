"""What gunicorn may be told that streams cannot live with: refused at the start, in a sentence that says what to do.

Rules:
- What works is let be, also where it is slower: gunicorn's own gevent worker and its threads stream by the generator
  path, and TLS does. What would hang, cut or corrupt later is refused now.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

# gunicorn's master gives up at this, where any other end of a worker is followed by the next worker.
_APP_LOAD_ERROR = 4
_CONFIGURED = "PERENNIAL_CONFIGURED"
_STREAM = ("worker.PerennialWorker", "gevent", "gthread")


def configured() -> None:
    """In gunicorn.conf.py: let the workers know that their server was started with it."""
    os.environ[_CONFIGURED] = "1"


def refuse(cfg: Any) -> None:
    """Raise SystemExit with a sentence when gunicorn's settings ``cfg`` are none for streams."""
    if cfg.worker_class_str not in _STREAM:
        raise SystemExit(
            f"A worker of the class {cfg.worker_class_str} does not carry many streams at once: leave --worker-class "
            "out, or take gevent or gthread."
        )
    if cfg.preload_app:
        raise SystemExit(
            "--preload opens the stores before the workers are forked, who would share them: leave it out."
        )
    if "h2" in cfg.http_protocols:
        raise SystemExit(
            "gunicorn serves the streams of one HTTP/2 connection one after another: leave h2 out of --http-protocols, "
            "and let nginx speak HTTP/2 to browsers (deploy/nginx.conf)."
        )


def refuse_bare() -> None:
    """In wsgi.py: raise SystemExit where it is served without gunicorn.conf.py, and what streams need is not there.

    Who only imports it (a test, a script, a command of Flask's) serves nobody.
    """
    context = click.get_current_context(silent=True)
    by_flask = context is not None and context.info_name == "run"
    by_gunicorn = os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/")
    if not by_flask and (not by_gunicorn or _CONFIGURED in os.environ):
        return
    sentence = "Start it with `make run`, or gunicorn -c gunicorn.conf.py wsgi:app: streams need what is set there."
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201  # a traceback would hide it
    raise SystemExit(_APP_LOAD_ERROR)
