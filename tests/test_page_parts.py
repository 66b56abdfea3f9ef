"""What pages are made of: assets under their hash, documents as HTML, and the list of durable streams."""

from __future__ import annotations

import base64
import gc
import gzip
import hashlib
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import prepare
from blueprints import pages
from blueprints.pages import DOCUMENTS
from settings import ROOT, Settings
from streaming import markup
from streaming.assets import Assets
from streaming.events import Event

# Assets


def test_the_address_changes_with_any_byte(tmp_path: Path) -> None:
    """One hash for all files: of their names and of their bytes."""
    (tmp_path / "a.js").write_text("one")
    first = Assets(tmp_path)
    assert first.url("a.js") == f"/assets/{first.release}/a.js"
    (tmp_path / "a.js").write_text("two")
    second = Assets(tmp_path)
    (tmp_path / "a.js").rename(tmp_path / "b.js")
    assert len({first.release, second.release, Assets(tmp_path).release}) == 3
    with pytest.raises(KeyError):
        second.url("b.js")


def test_an_asset_is_kept_under_its_own_hash_only(app: Flask, client: FlaskClient) -> None:
    """A year under the hash, not at all under another one; gzip where it is accepted, and the same bytes."""
    url = app.extensions["assets"].url("perennial.css")
    packed = client.get(url, headers={"Accept-Encoding": "gzip"})
    plain = client.get(url, headers={"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data == (ROOT / "static" / "perennial.css").read_bytes()
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert packed.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/assets/000000000000/perennial.css").headers["Cache-Control"] == "no-cache"
    assert client.get("/assets/x/../../app.py").status_code == 404
    assert client.get("/assets/x/nothing.js").status_code == 404


@pytest.mark.parametrize(("path", "own"), [("/", "map"), ("/chat", "chat"), ("/docs", "docs"), ("/upload", "")])
def test_the_style_sheets_stand_in_the_pages(client: FlaskClient, path: str, own: str) -> None:
    """Every page's and the page's own, as they are; the policy names each by its hash (CSP 3, 6.7.3), and nothing else
    is let in: they cannot end their own element."""
    names = ["perennial", own] if own else ["perennial"]
    sheets = [(ROOT / "static" / f"{name}.css").read_text() for name in names]
    answer = client.get(path)
    assert re.findall("<style>(.*?)</style>", answer.text, re.DOTALL) == sheets
    assert "<" not in "".join(sheets)
    allowed = re.search("style-src ([^;]+);", answer.headers["Content-Security-Policy"])
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in sheets}
    assert allowed
    assert hashes <= set(allowed[1].split())
    assert all(each.startswith("'sha256-") for each in allowed[1].split())


def test_what_brings_a_module_stands_in_the_page(app: Flask, client: FlaskClient) -> None:
    """As it is, and under the hash that the policy names: it cannot end its own element."""
    script = (ROOT / "static" / "begin.js").read_text()
    assert "</" not in script
    assert "<!--" not in script
    assert f">{script}</script>" in client.get("/events").text
    assert app.extensions["assets"].begin_source in client.get("/events").headers["Content-Security-Policy"]


def test_pages_name_no_asset_without_its_hash(client: FlaskClient) -> None:
    """What a page loads is all under /assets/."""
    for path in ("/", "/upload", "/docs"):
        text = client.get(path).get_data(as_text=True)
        loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', text)
        assert loaded
        assert all(each.startswith("/assets/") for each in loaded)


def test_a_page_is_packed(client: FlaskClient) -> None:
    """A page comes as gzip where that is accepted, and is the same page."""
    packed = client.get("/docs", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert gzip.decompress(packed.data) == client.get("/docs").data


def test_no_page_is_kept_in_memory(client: FlaskClient) -> None:
    """Each page of a chat has an id of its own: of a hundred of them nothing is left."""

    def ask() -> None:
        with client.get("/chat", headers={"Accept-Encoding": "gzip"}) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"

    ask()
    tracemalloc.start()
    try:
        for _ in range(100):
            ask()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


# Documents


def test_html_in_a_document_is_text(tmp_path: Path) -> None:
    """A tag in Markdown is shown, and a link that runs a script is none."""
    (tmp_path / "a.md").write_text("# A\n\n<script>alert(1)</script> <b>bold</b>\n\n[x](javascript:alert(1))\n")
    html = markup.document(tmp_path / "a.md").html
    assert "<script" not in html
    assert "<b>" not in html
    assert "href" not in html


def test_each_heading_begins_a_section(tmp_path: Path) -> None:
    """With all that follows it up to the next one; nothing is lost, and a tag in the text begins none."""
    (tmp_path / "a.md").write_text("# A\n\nfirst\n\n## B\n\n`<h2 x>`\n\n### C\n\nthird\n\n## D\n\nfourth\n")
    html = markup.document(tmp_path / "a.md").html
    texts = re.split("</?section>", html)
    assert [re.findall("first|h2 x|third|fourth", text) for text in texts if text.strip()] == [
        ["first"],
        ["h2 x", "third"],
        ["fourth"],
    ]
    assert html.count("<section>") == html.count("</section>") == 2
    assert "rest" not in html


def test_what_is_behind_the_first_screen_is_one_element(tmp_path: Path) -> None:
    """All that comes after some 1,600 characters of HTML, from a heading on, in order; nothing is lost."""
    paragraphs = "".join(f"## H{number}\n\n{'word ' * 150}\n\n" for number in range(9))
    (tmp_path / "a.md").write_text(f"# A\n\n{paragraphs}")
    html = markup.document(tmp_path / "a.md").html
    first, rest = html.split('<div class="rest">')
    assert rest.rstrip().endswith("</section>\n</div>")
    assert 1600 < len(first) < 2600
    assert re.findall("H[0-9](?=</h2>)", first + rest) == [f"H{number}" for number in range(9)]
    assert html.count("<section>") == html.count("</section>") == 9


def test_links_lead_to_pages_and_headings(tmp_path: Path) -> None:
    """Other documents are pages here; headings have the ids that GitHub gives them."""
    (tmp_path / "a.md").write_text("# A\n\n## `GET /api/export`\n\n[p](protocols.md#durable-streams) [h](http.md)\n")
    found = markup.document(tmp_path / "a.md")
    assert (found.title, found.headings) == ("A", (("get-apiexport", "GET /api/export"),))
    assert '<h2 id="get-apiexport">' in found.html
    assert 'href="/docs/protocols#durable-streams"' in found.html
    assert 'href="/docs"' in found.html


def test_the_longest_document_is_rendered_before_there_are_workers(settings: Settings) -> None:
    """By the master, which prepares; whoever is forked from it has the page, and nobody waits for it beside streams."""
    markup._rendered.cache_clear()
    prepare(settings)
    rendered = markup._rendered.cache_info().misses
    assert markup.document(ROOT / "docs" / "http.md").title
    assert (rendered, markup._rendered.cache_info().misses) == (1, 1)


def address(name: str) -> str:
    return "/docs" if name == "http" else f"/docs/{name}"


def test_every_document_is_a_page(client: FlaskClient) -> None:
    """All that docs/ holds, each with its own title and with links to the others; and nothing else is one."""
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert names == set(DOCUMENTS)
    for name in names:
        title = (ROOT / "docs" / f"{name}.md").read_text().splitlines()[0].removeprefix("# ")
        with client.get(address(name)) as answer:
            assert (answer.status_code, answer.text.count(f"<h1>{title}</h1>")) == (200, 1), name
            assert all(f'href="{address(other)}"' in answer.text for other in names)
    assert client.get("/docs/nothing").status_code == 404


def test_what_is_no_document_is_not_shown(client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is such a file: only what is listed is a page, and only plain names are pictures."""
    (tmp_path / "docs" / "plots").mkdir(parents=True)
    for name in ("docs/design.md", "docs/secret.md", "docs/plots/chats.svg", "docs/plots/No.svg", "docs/no.svg"):
        (tmp_path / name).write_text("# x")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    statuses = {
        "/docs/design": 200, "/docs/secret": 404, "/docs/plots/chats.svg": 200, "/docs/plots/No.svg": 404,
        "/docs/plots/..%2fno.svg": 404, "/docs/plots/../no.svg": 404, "/docs/plots/%2e%2e/no.svg": 404,
    }  # fmt: skip
    assert {path: client.get(path).status_code for path in statuses} == statuses


def test_every_link_within_the_docs_leads_somewhere(client: FlaskClient) -> None:
    """No link of a document's page to a document or a heading is dead, and no picture is missing."""
    shown = {path: client.get(path).text for path in map(address, DOCUMENTS)}
    links = {(path, href) for path in shown for href in re.findall(r'href="(/docs[^"]*|#[^"]*)"', shown[path])}
    for path, href in links:
        to, _, id = href.partition("#")
        assert not id or f'id="{id}"' in shown[to or path], f"{path}: {href}"
        assert (to or path) in shown, f"{path}: {href}"
    assert any(href.startswith("/docs/") and "#" in href for _, href in links)


# The list of streams


def make(client: FlaskClient, *paths: str) -> None:
    for path in paths:
        assert client.put(f"/v1/stream/{path}", json=[1, 2]).status_code == 201


def listed(client: FlaskClient, query: str = "") -> list[str]:
    return [each["path"] for each in client.get(f"/api/streams{query}").get_json()["streams"]]


def test_streams_are_listed_with_how_they_stand(client: FlaskClient) -> None:
    """Path, type, events, tail, closed and where it was forked from."""
    make(client, "rivers")
    fork = {"Stream-Forked-From": "/v1/stream/rivers", "Stream-Closed": "true"}
    client.put("/v1/stream/forks/a b", headers=fork, content_type="application/json")
    forked, rivers = client.get("/api/streams").get_json()["streams"]
    assert rivers["tail"] == client.head("/v1/stream/rivers").headers["Stream-Next-Offset"]
    assert (rivers["events"], rivers["closed"], rivers["own"], rivers["forked_from"]) == (2, False, False, None)
    assert forked["url"] == "/v1/stream/forks/a%20b"
    assert (forked["closed"], forked["forked_from"]) == (True, "/v1/stream/rivers")


@pytest.mark.parametrize(
    "hidden",
    ["leases/x", "held/x/runs/y", "slots/a/b/c", "activity/reports", "runs/x", "chats/x", "uploads/x", "exports/x"],
)
def test_what_is_the_servers_own_is_not_listed(app: Flask, client: FlaskClient, hidden: str) -> None:
    """Neither what workers tell each other, nor what only its URL lets somebody read."""
    app.extensions["log"].append(hidden, [Event(b"{}")], create=_json())
    make(client, "aaa", "zzz")
    client.post("/api/notifications?topic=kitchen", data="tea")
    assert listed(client) == ["aaa", "notifications/kitchen", "zzz"]
    assert listed(client, f"?prefix={hidden}") == []
    assert hidden not in client.get("/streams").get_data(as_text=True)


def _json() -> Any:
    from stores.base import Config

    return Config("application/json")


def test_the_list_comes_in_pages(client: FlaskClient) -> None:
    """Each stream once, in order, until after is null."""
    names = [f"n/{number:02}" for number in range(7)]
    make(client, *names)
    found, after = [], ""
    while after is not None:
        page = client.get(f"/api/streams?prefix=n/&limit=3{f'&after={after}' if after else ''}").get_json()
        found += [each["path"] for each in page["streams"]]
        after = page["after"]
    assert found == names
    assert client.get("/api/streams?limit=0").status_code == 400
    assert client.get("/api/streams?nothing=1").get_json()["parameter"] == "nothing"


def test_the_page_of_streams_shows_one_without_a_script(client: FlaskClient) -> None:
    """Its state and a link to all of it; what a path holds stays text."""
    make(client, "a<b>c")
    text = client.get("/streams?path=a<b>c").get_data(as_text=True)
    assert "a&lt;b&gt;c" in text
    assert 'href="/v1/stream/a%3Cb%3Ec"' in text
    assert "<b>" not in text
    assert "There is no stream at this path." in client.get("/streams?path=leases/x").get_data(as_text=True)


def test_pictures_of_documents_are_served_beside_them(client: FlaskClient) -> None:
    """What docs/performance.md shows is there for its page too, as it is in docs/, and nothing runs in it."""
    sources = set(re.findall(r'<img src="([^"]+)"', client.get("/docs/performance").text))
    assert sources == {f"plots/{path.name}" for path in (ROOT / "docs" / "plots").glob("*.svg")} != set()
    for source in sources:
        with client.get(f"/docs/{source}") as answer:
            assert answer.data == (ROOT / "docs" / source).read_bytes()
            assert answer.content_type == "image/svg+xml"
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
            assert answer.headers["Cache-Control"] == "no-cache"
