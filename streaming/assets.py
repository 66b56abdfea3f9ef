"""The pages' own scripts and styles, under an address that changes with any of their bytes.

Rules:
- All have one hash, in the path before their name: a module that imports ``./stream.js`` finds the one of its own
  state, and no build step writes names into modules.
- What is asked for under another hash is the newest, and is not kept: a page from before a deploy goes on.
- They are few and small: read and compressed once, and served from memory.
- The style sheets stand in the pages, and so does what brings a page's module behind the first paint: asked for by
  itself it held up that paint by a quarter of its time. The policy of pages names them by their hashes (CSP 3, 6.7.3),
  and so no other style or script.
- One sheet is every page's; what only one page has stands in that page, in a sheet of its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

STYLE = "perennial.css"
BEGIN = "begin.js"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; ``packed`` is its gzip, empty where that is no smaller."""

    content_type: str
    data: bytes
    packed: bytes


class Assets:
    """The files below ``folder`` as they are now; ``release`` is their hash.

    ``sheets``: the style sheets of pages, by their names; ``begin``: what brings the modules of pages; ``…_source``:
    how a policy names them.
    """

    def __init__(self, folder: Path) -> None:
        self._assets = {path.relative_to(folder).as_posix(): _asset(path) for path in sorted(folder.rglob("*.*"))}
        names = hashlib.sha256()
        for name, asset in self._assets.items():
            names.update(b"%b\0%b" % (name.encode(), hashlib.sha256(asset.data).digest()))
        self.release = names.hexdigest()[:12]

        texts = {name: asset.data.decode() for name, asset in self._assets.items() if name.endswith((".css", BEGIN))}
        self.begin = texts.pop(BEGIN, "")
        self.begin_source = _source(self.begin)
        self.sheets = texts
        self.style_source = " ".join(map(_source, self.sheets.values()))

    def find(self, name: str) -> Asset | None:
        return self._assets.get(name)

    def url(self, name: str) -> str:
        """Return where a page finds it. Raises KeyError for what is not there: a page of ours names nothing else."""
        self._assets[name]
        return f"/assets/{self.release}/{name}"


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(path: Path) -> Asset:
    data = path.read_bytes()
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = guessed.startswith("text/") or guessed.endswith(("javascript", "+xml"))
    packed = gzip.compress(data, 9, mtime=0)
    return Asset(f"{guessed}; charset=utf-8" if text else guessed, data, packed if len(packed) < len(data) else b"")
