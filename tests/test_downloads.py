"""Downloads and videos as routes: what they say, what they take, and that the direct way is no other than Flask's."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, request_started
from flask.testing import FlaskClient

from settings import Settings, from_environment
from tests.harness import LiveServer, RawClient

# ISO/IEC 14496-12, 4.3: size, "ftyp", major brand, minor version.
FILM = b"\0\0\0\x10ftypisom\0\0\2\0" + bytes(1000)


def put(settings: Settings, name: str, content: bytes = b"content") -> str:
    path = settings.FILES_DIR / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"/api/download/{name}"


# Downloads


@pytest.mark.parametrize("name", ["page.html", "image.svg", "feed.xml", "page.xhtml"])
def test_what_could_act_is_an_attachment_in_a_sandbox(app: Flask, settings: Settings, name: str) -> None:
    """Neither its scripts nor anything it would load runs under this server's name (CSP 3, 6.3.3)."""
    with app.test_client().get(put(settings, name)) as response:
        assert response.headers["Content-Disposition"].startswith("attachment;")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = [rule.strip() for rule in response.headers["Content-Security-Policy"].split(";")]
        assert set(policy) == {"default-src 'none'", "sandbox"}


def test_a_digest_is_told_on_request_only(app: Flask, settings: Settings) -> None:
    """RFC 9530: of the whole representation, also with a range and with HEAD."""
    client, url = app.test_client(), put(settings, "a.txt", b"0123456789")
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(b'0123456789').digest()).decode()}:"
    asked = {"Want-Repr-Digest": "sha-256=1"}
    with client.get(url) as plain, client.get(url, headers=asked) as whole, client.head(url, headers=asked) as head:
        assert "Repr-Digest" not in plain.headers
        assert whole.headers["Repr-Digest"] == head.headers["Repr-Digest"] == digest
    with client.get(url, headers=asked | {"Range": "bytes=0-1"}) as part:
        assert (part.status_code, part.headers["Repr-Digest"]) == (206, digest)


def test_the_future_is_not_told(app: Flask, settings: Settings) -> None:
    """A Last-Modified after the Date of the answer would be a lie (RFC 9110, 8.8.2.1)."""
    url = put(settings, "a.txt")
    os.utime(settings.FILES_DIR / "a.txt", (4_000_000_000, 4_000_000_000))
    with app.test_client().get(url) as response:
        assert parsedate_to_datetime(response.headers["Last-Modified"]).timestamp() <= time.time()


# The direct way


def test_both_ways_answer_alike(app: Flask, settings: Settings) -> None:
    """Status, headers and body are the same whether Flask has seen the request or not; a query makes the difference."""
    client, url = app.test_client(), put(settings, "ä b.txt", b"0123456789")
    seen: list[str] = []
    with client.get(url) as direct:
        etag = direct.headers["ETag"]
    asked: list[dict[str, str]] = [
        {},
        {"Range": "bytes=2-3"},
        {"Range": "bytes=20-"},
        {"If-None-Match": etag},
        {"If-Match": '"x"'},
    ]
    direct_answers = [_answer(client, url, fields) for fields in asked]
    app.before_request_funcs.setdefault(None, []).append(lambda: seen.append(url))
    assert [_answer(client, url, fields) for fields in asked] == direct_answers
    assert [answer[0] for answer in direct_answers] == [200, 206, 416, 304, 412]
    assert len(seen) == len(asked)


def _answer(client: FlaskClient, url: str, fields: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    with client.get(url, headers=fields) as response:
        return response.status_code, dict(response.headers), response.data


@pytest.mark.parametrize("hook", ["before_request", "teardown_request", "after_request", "url_value_preprocessor"])
@pytest.mark.parametrize("where", ["app", "blueprint"])
def test_who_hooks_into_flask_sees_every_request(app: Flask, settings: Settings, hook: str, where: str) -> None:
    """A login or a counter that somebody adds is never passed by."""
    seen: list[Any] = []

    def see(*args: Any) -> Any:
        seen.append(args)
        return args[0] if hook == "after_request" else None

    hooks = getattr(app, f"{hook}s" if hook.startswith("url") else f"{hook}_funcs")
    hooks.setdefault(None if where == "app" else "downloads", []).append(see)
    with app.test_client().get(put(settings, "a.txt")) as response:
        assert response.data == b"content"
    assert len(seen) == 1


def test_a_receiver_of_flasks_signals_sees_every_request(app: Flask, settings: Settings) -> None:
    """As instrumentation listens to them."""
    seen: list[Flask] = []

    def see(sender: Flask, **_: Any) -> None:
        seen.append(sender)

    with request_started.connected_to(see), app.test_client().get(put(settings, "a.txt")) as response:
        assert response.data == b"content"
    assert seen == [app]


def test_a_login_holds_for_files(app: Flask, settings: Settings) -> None:
    """What a before_request refuses is refused."""
    app.before_request_funcs.setdefault(None, []).append(lambda: abort(401))
    with app.test_client().get(put(settings, "a.txt")) as response:
        assert response.status_code == 401


@pytest.mark.parametrize("name", ["own ", "nginx", ""])
def test_an_unknown_sender_stops_the_start(name: str) -> None:
    """With a sentence that names the setting and what it may be."""
    with pytest.raises(SystemExit, match="SEND_FILES must be one of own, flask, x-accel-redirect, x-sendfile"):
        from_environment({"SEND_FILES": name})


def test_x_sendfile_names_the_file(app: Flask, settings: Settings) -> None:
    """For Apache and lighttpd: the absolute path, percent-encoded, and no bytes."""
    url = put(settings, "ä b.txt")
    app.extensions["settings"] = replace(settings, SEND_FILES="x-sendfile")
    with app.test_client().get(url) as response, app.test_client().head(url) as head:
        assert head.headers["X-Sendfile"] == str(settings.FILES_DIR).replace(" ", "%20") + "/%C3%A4%20b.txt"
        assert head.headers["Content-Disposition"].endswith("filename*=UTF-8''%C3%A4%20b.txt")
        assert (response.status_code, response.data) == (200, b"")


# Videos


def test_a_posted_video_plays_under_its_id(client: FlaskClient, settings: Settings) -> None:
    """201 with its URL; from then on ranges of it are answered, and nothing else is left in the folder."""
    told = client.post("/api/video?id=new-film", data=FILM)
    assert (told.status_code, told.headers["Location"]) == (201, "/api/video/new-film")
    assert told.json == {"id": "new-film", "received": len(FILM), "url": "/api/video/new-film"}
    with client.get("/api/video/new-film", headers={"Range": "bytes=4-7"}) as response:
        assert (response.status_code, response.data, response.content_type) == (206, b"ftyp", "video/mp4")
    assert [path.name for path in (settings.FILES_DIR / "videos").iterdir()] == ["new-film.mp4"]


def test_a_video_without_an_id_gets_one(client: FlaskClient) -> None:
    """One that the route for playing takes."""
    told = client.post("/api/video", data=FILM)
    assert told.json is not None
    with client.get(told.json["url"]) as response:
        assert response.data == FILM


def test_a_video_is_never_replaced(client: FlaskClient, settings: Settings) -> None:
    """409, and the first one stays as it was."""
    assert client.post("/api/video?id=film", data=FILM).status_code == 201
    refused = client.post("/api/video?id=film", data=FILM + b"other")
    assert (refused.status_code, refused.content_type) == (409, "application/problem+json")
    assert (settings.FILES_DIR / "videos" / "film.mp4").read_bytes() == FILM


def test_two_videos_of_one_id_at_once(client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is whole first has it; the other is a 409, and was never there under another name."""
    tried: list[str] = []

    def link(source: Path, target: Path, link: Callable[..., None] = os.link) -> None:
        tried.append(target.name)
        link(source, target)

    class Overtaken(io.BytesIO):
        """A body, at whose end another one of the same id has become whole."""

        def readinto(self, buffer: Any) -> int:
            if not (count := super().readinto(buffer)) or self.tell() == len(FILM):
                (settings.FILES_DIR / "videos" / "film.mp4").write_bytes(FILM + b"other")
            return count

    monkeypatch.setattr(os, "link", link)
    environ = {"CONTENT_LENGTH": str(len(FILM)), "wsgi.input": Overtaken(FILM)}
    refused = client.post("/api/video?id=film", environ_overrides=environ)
    assert (refused.status_code, refused.json["parameter"], tried) == (409, "id", ["film.mp4"])
    assert [path.name for path in (settings.FILES_DIR / "videos").iterdir()] == ["film.mp4"]
    assert (settings.FILES_DIR / "videos" / "film.mp4").read_bytes() == FILM + b"other"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"<script>alert(1)</script>", 415), (b"ftyp", 415), (b"\0\0\0\x10fty", 415), (b"\0" * 100, 415)],
)
def test_what_is_no_film_is_refused(client: FlaskClient, settings: Settings, body: bytes, status: int) -> None:
    """Whatever its Content-Type claims, and nothing of it is kept."""
    refused = client.post("/api/video?id=film", data=body, content_type="video/mp4")
    assert (refused.status_code, refused.content_type) == (status, "application/problem+json")
    assert list((settings.FILES_DIR / "videos").iterdir()) == []


def test_a_film_arrives_in_any_pieces(server: LiveServer) -> None:
    """Also byte by byte at its beginning; one that ends early is not kept."""
    with RawClient(server.port) as client:
        client.send(
            b"POST /api/video?id=drops HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "POST"
        )
        for at in range(12):
            client.send_chunk(FILM[at : at + 1])
        client.send_chunk(FILM[12:]).send_chunk(b"")
        assert client.read_to_end().status == 201
        assert client.request("GET", "/api/video/drops").read_to_end().body == FILM
    with RawClient(server.port) as client:
        client.send(
            b"POST /api/video?id=half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + FILM, "POST"
        )
        client.half_close()
        assert client.read_to_end().status == 400
    assert [
        path.name for path in (server.files / "videos").iterdir() if "half" in path.name or "part" in path.name
    ] == []
    (server.files / "videos" / "drops.mp4").unlink()


def test_a_video_can_be_downloaded(client: FlaskClient, settings: Settings) -> None:
    """download=1 is an attachment under its name, with ranges as ever."""
    put(settings, "videos/film.mp4", FILM)
    with client.get("/api/video/film?download=1", headers={"Range": "bytes=4-7"}) as response:
        assert (response.status_code, response.data) == (206, b"ftyp")
        assert response.headers["Content-Disposition"] == "attachment; filename=film.mp4"
    with client.get("/api/video/film?download=0") as response:
        assert response.headers["Content-Disposition"] == "inline"


# The list


def test_files_are_listed_page_by_page(client: FlaskClient, settings: Settings) -> None:
    """Each with what is needed to fetch it; ``after`` leads to the next page, and is null at the end."""
    for name in ("a.txt", "b ü.csv", "uploads/c.bin", "videos/film.mp4", "videos/no film.mp4", ".hidden"):
        put(settings, name)
    first = client.get("/api/files?limit=3").json
    assert first is not None
    assert [each["name"] for each in first["files"]] == ["a.txt", "b ü.csv", "uploads/c.bin"]
    second = client.get("/api/files", query_string={"after": first["after"]}).json
    assert second is not None
    assert [each["name"] for each in second["files"]] == ["videos/film.mp4", "videos/no film.mp4"]
    assert second["after"] is None
    files = first["files"] + second["files"]
    for each in files:
        with client.get(each["url"]) as response:
            assert (response.status_code, len(response.data)) == (200, each["size"])
            assert response.content_type == each["type"]
    assert [each.get("video") for each in files] == [None, None, None, "/api/video/film", None]
    assert client.get("/api/files?limit=5").json["after"] is None  # type: ignore[index]


def test_a_listed_time_is_that_of_the_file(client: FlaskClient, settings: Settings) -> None:
    """As ISO 8601 in UTC."""
    put(settings, "a.txt")
    os.utime(settings.FILES_DIR / "a.txt", (1_700_000_000, 1_700_000_000))
    assert client.get("/api/files").json["files"][0]["modified"] == "2023-11-14T22:13:20Z"  # type: ignore[index]


def test_markup_in_a_name_stays_text(client: FlaskClient, settings: Settings) -> None:
    """On the page, and nothing of it leads elsewhere."""
    put(settings, "<img src=x onerror=alert(1)>&.txt")
    page = client.get("/files").get_data(as_text=True)
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;.txt" in page
    assert "/api/download/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%26.txt" in page
