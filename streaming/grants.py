"""What a caller may do: ``read`` and ``write`` on path patterns, and who it is.

Rules:
- A pattern is a path, a path that ends with ``/*`` for everything below it, or ``*`` for everything.
- ``read`` does not come with ``write``, nor ``write`` with ``read``.
- A path with a segment ``.``, ``..`` or an empty one in its middle is below no pattern: what it means is not said.
- What a caller made itself has its mark in the name: it may read and write that without a grant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Action = Literal["read", "write"]

ALL = "*"
_PATTERN = re.compile(r"/[^\s*]*(?:/\*)?|/\*|\*")
# In a list, where no space parts two of them.
_LISTED = re.compile(r"/[^*\x00-\x1f\x7f]*(?:/\*)?|/\*|\*")


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs: to do ``action`` to ``path``. ``id`` is the name in which an owner's mark would be."""

    action: Action
    path: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.action}:{self.path}"


@dataclass(frozen=True, slots=True)
class Grants:
    """The patterns that may be read, and those that may be written."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def cover(self, action: Action, path: str) -> bool:
        patterns = self.read if action == "read" else self.write
        if ALL in patterns:
            return True
        plain = {".", ".."}.isdisjoint(segments := path.split("/")) and "" not in segments[1:-1]
        return plain and any(_below(path, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``name`` tells it from every other one; ``ends_at``: when its token expires (time.time), None: never.

    ``grants``: besides what is its own. ``link``: for which path the link is that it came by ("": any); None: by none.
    """

    name: str
    grants: Grants
    ends_at: float | None = None
    link: str | None = None

    @property
    def mark(self) -> str:
        return hashlib.sha256(b"owner:" + self.name.encode()).hexdigest()[:16]

    def may(self, need: Need) -> bool:
        return (bool(need.id) and owns(self.mark, need.id)) or self.grants.cover(need.action, need.path)


def owns(mark: str, id: str) -> bool:
    """Whether the id was made for the caller of this mark."""
    return bool(mark) and f"-{mark}-" in f"-{id}-"


def scopes(texts: Iterable[str]) -> Grants:
    """Return what ``read:<pattern>``, ``write:<pattern>`` and ``*`` (both of everything) grant. Raises ValueError."""
    read, write = [], []
    for text in texts:
        action, _, pattern = text.partition(":") if text != ALL else ("*", "", ALL)
        if action not in ("read", "write", "*"):
            raise ValueError(f"{text!r} is no scope: read:<pattern> and write:<pattern> are")
        if action != "write":
            read.append(checked(pattern))
        if action != "read":
            write.append(checked(pattern))
    return Grants(tuple(read), tuple(write))


def checked(pattern: str, listed: bool = False) -> str:
    """Return ``pattern`` when it is one; in a list it may have spaces. Raises ValueError."""
    if not (_LISTED if listed else _PATTERN).fullmatch(pattern):
        raise ValueError(f"{pattern!r} is no pattern: a path, a path that ends with /*, or * alone")
    return pattern


def _below(path: str, pattern: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("/*") else path == pattern
