"""Where a request comes from, as far as a browser says so: the name it was asked under, and the page that asks.

Rules:
- A server on loopback is open to every page of this machine's browser that can be made to name it: a name that is not
  its own is refused, or a page of ``evil.example`` that lets its own name mean 127.0.0.1 would be of one origin with
  this server (DNS rebinding, CWE-350).
- What writes must come from a page of this server, of an origin that may, or from no page at all (CSRF, CWE-352).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_PORT = re.compile(r":[0-9]*$")


def is_loopback(host: str) -> bool:
    """Whether an address or a name can mean nothing but this machine."""
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """Return a Host header's name without its port, in lower case; an IPv6 address keeps its brackets."""
    return (header if header.endswith("]") else _PORT.sub("", header)).lower().rstrip(".")


def is_trusted(header: str, names: Collection[str]) -> bool:
    """Whether the host is one of ``names``; ``.example.org`` is that domain and all below it."""
    host = host_name(header)
    return any(host == name or (name[:1] == "." and (host.endswith(name) or host == name[1:])) for name in names)


def may_write(environ: Mapping[str, Any], origins: Collection[str]) -> bool:
    """Whether a request that changes something may have been made by the page that made it.

    Fetch Metadata says so where there is any; ``Origin`` otherwise. Who sends neither is no page. ``origins`` may, too.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and ("*" in origins or origin.lower() in origins):
        return True
    if (site := environ.get("HTTP_SEC_FETCH_SITE")) is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.lower() == f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}".lower()
