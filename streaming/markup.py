"""The project's own documents as HTML, for the page of docs.

Rules:
- Only files of docs/, and HTML in them is text: ``html=False``.
- HTML of ours is split at ``<h2 ``, which cannot be text: there it is ``&lt;h2``.
- A heading's id is made as GitHub makes it, so that the links in the text lead to the same place here and there.
- A document is rendered once, and again when its file has changed.
- What comes behind the first screen is one element, which is filled once the page is painted (static/docs.css).
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

# The first screen of a laptop, in characters of HTML, and in headings beside it.
_FIRST = 1600
FIRST_HEADINGS = 24
_LINK = re.compile(r"([a-z]+)\.md(#.*)?")


@dataclass(frozen=True, slots=True)
class Document:
    """``title``: its first heading; ``headings``: (id, text) of those below it; ``html``: all but the title."""

    title: str
    headings: tuple[tuple[str, str], ...]
    html: str


def document(path: Path) -> Document:
    """Return the document in the file. Raises FileNotFoundError."""
    return _rendered(path, path.stat().st_mtime_ns)


@functools.lru_cache(8)
def _rendered(path: Path, changed_ns: int) -> Document:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(path.read_text())
    title, headings = "", []
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            id, text = slug(inline.content), inline.content.replace("`", "")
            opening.attrSet("id", id)
            title = title or text
            if opening.tag == "h2":
                headings.append((id, text))
        if inline.type == "inline":
            _lead_here(inline)
    body = tokens[3:] if tokens and tokens[0].tag == "h1" else tokens
    return Document(title, tuple(headings), _framed(_in_sections(markdown.renderer.render(body, markdown.options, {}))))


def slug(heading: str) -> str:
    """Return GitHub's id of a heading: in lower case, spaces as hyphens, and without most of what is no letter."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _lead_here(inline: Token) -> None:
    """Let links to other documents lead to their pages."""
    for token in inline.children or ():
        href = str(token.attrGet("href") or "")
        if token.type == "link_open" and (found := _LINK.fullmatch(href)):
            page = "/docs" if found[1] == "http" else f"/docs/{found[1]}"
            token.attrSet("href", page + (found[2] or ""))


def _in_sections(html: str) -> str:
    """Each heading begins a section, which the browser lays out when it comes into sight (static/docs.css)."""
    first, *others = html.split("<h2 ")
    sections = [first, *(f"<section>\n<h2 {each}</section>\n" for each in others)]
    ends = itertools.accumulate(map(len, sections))
    seen = next((number for number, end in enumerate(ends, 1) if end > _FIRST), len(sections))
    rest = "".join(sections[seen:])
    return "".join(sections[:seen]) + (f'<div class="rest">\n{rest}</div>\n' if rest else "")


def _framed(html: str) -> str:
    """A wide table scrolls by itself, and by keyboard; the page does not."""
    frame = '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
    return html.replace("<table>", frame).replace("</table>", "</table></div>")
