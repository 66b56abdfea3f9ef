"""The WSGI application: ``gunicorn -c gunicorn.conf.py wsgi:app``."""

from __future__ import annotations

import flags

flags.refuse_bare()

from app import create_app  # noqa: E402  # who is refused need not wait for it

app = create_app()
