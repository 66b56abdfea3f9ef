"""Links by POST /api/links: one path, to read, for a while; never wider nor longer than the token behind them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.tokens import ADMIN, KEY, bearer, signed, static

Make = Callable[..., FlaskClient]
EVENTS = "/api/events?topic=kitchen"


def asked(client: FlaskClient, url: str, token: str, **more: Any) -> TestResponse:
    return client.post("/api/links", json={"url": url, **more}, headers=bearer(token))


def link(client: FlaskClient, url: str, token: str, **more: Any) -> str:
    with asked(client, url, token, **more) as answer:
        assert answer.status_code == 200, answer.data
        assert answer.headers["Cache-Control"] == "no-store"
        return str(answer.json["url"])


def status(client: FlaskClient, url: str, method: str = "GET", **more: Any) -> int:
    with client.open(url, method=method, **more) as answer:
        return answer.status_code


@pytest.fixture
def client(make_client: Make) -> FlaskClient:
    tokens = static(
        ann="read:/topics/* write:/topics/* read:/files/* write:/files/uploads/*", bob="read:/topics/garden"
    )
    return make_client(API_TOKENS=tokens, JWT_KEY=KEY, LINK_S=100)


def test_a_link_reads_its_path_without_a_header(client: FlaskClient) -> None:
    """The URL as it was asked for, with a token behind it; other queries of that path as far as they read the same."""
    url = link(client, EVENTS, "ann")
    assert url.startswith(f"{EVENTS}&token=")
    assert status(client, url) == 200
    assert status(client, url.replace("topic=kitchen", "topic=kitchen&since=1h")) == 200
    assert status(client, EVENTS) == 401
    assert status(client, link(client, "/api/files", "ann")) == 200


def test_a_link_is_no_wider_than_its_path(client: FlaskClient) -> None:
    """Not another path, not another topic of this one, not what its caller may besides, not a page, not a write."""
    token = link(client, EVENTS, "ann").partition("token=")[2]
    for path in ("/api/events?topic=garden", "/api/events?topic=kitchen,garden", "/api/files", "/", "/api/activity"):
        assert status(client, f"{path}{'&' if '?' in path else '?'}token={token}") == 403, path
    # The same resource by another route is another path.
    assert status(client, f"/v1/stream/notifications/kitchen?token={token}") == 403
    assert status(client, f"/api/notifications?topic=kitchen&token={token}", "POST", data=b"x") == 403


def test_a_link_is_no_wider_than_its_token(client: FlaskClient) -> None:
    """What its caller may not read itself it gives to nobody; nor can a link make another."""
    assert asked(client, EVENTS, "bob").status_code == 403
    assert asked(client, "/api/events?topic=garden,kitchen", "bob").status_code == 403
    assert asked(client, EVENTS, "nobody").status_code == 401
    with client.post("/api/links", json={"url": EVENTS}) as answer:
        assert answer.status_code == 401
    token = link(client, EVENTS, "ann").partition("token=")[2]
    assert status(client, f"/api/links?token={token}", "POST", json={"url": EVENTS}) == 403
    # What goes in a link goes nowhere else.
    assert status(client, EVENTS, headers=bearer(token)) == 401


def test_a_link_lives_no_longer_than_its_token(client: FlaskClient) -> None:
    """It ends with the token, with its own time and with LINK_S, whichever comes first."""
    now = time.time()

    def ends_at(token: str, **more: Any) -> float:
        with asked(client, EVENTS, token, **more) as answer:
            return float(answer.json["ends_at"])

    short = signed(read=["/topics/*"], for_s=20)
    assert ends_at(short, seconds=90) <= now + 20
    assert now + 8 <= ends_at("ann", seconds=10) <= now + 12
    assert now + 8 <= ends_at(short, seconds=10) <= now + 12
    with asked(client, EVENTS, "ann", seconds=101) as answer:
        assert (answer.status_code, answer.json["parameter"]) == (400, "seconds")


def test_what_is_ones_own_can_be_linked(client: FlaskClient) -> None:
    """An upload's URL reads its state by a link of its caller; it takes and ends nothing by it."""
    headers = bearer("ann") | {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    with client.post("/api/uploads", headers=headers) as answer:
        place = answer.headers["Location"]
    assert asked(client, place, "bob").status_code == 404
    url, tus = link(client, place, "ann"), {"Tus-Resumable": "1.0.0"}
    assert status(client, url, "HEAD", headers=tus) == 200
    assert status(client, url, "DELETE", headers=tus) == 403
    patch = tus | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert status(client, url, "PATCH", headers=patch, data=b"12345") == 403
    assert status(client, url, "HEAD", headers=tus) == 200


def test_a_link_makes_no_durable_stream(make_client: Make) -> None:
    """``?durable=1`` fills the log, whatever the method."""
    client = make_client(API_TOKENS=static(), JWT_KEY=KEY)
    assert status(client, link(client, "/api/stream?chunks=1", ADMIN)) == 200
    for name in ("durable", "%64urable", "d%75rable"):
        assert status(client, link(client, "/api/stream?chunks=1", ADMIN) + f"&{name}=1") == 403


def test_names_with_spaces_can_be_linked(client: FlaskClient) -> None:
    """A file is called as it is; only a star would mean more than itself."""
    files = client.application.extensions["settings"].FILES_DIR
    (files / "two words.txt").write_text("ä")
    (files / "s*r.txt").write_text("x")
    assert status(client, link(client, "/api/download/two%20words.txt", "ann")) == 200
    assert asked(client, "/api/download/s*r.txt", "ann").status_code == 400


@pytest.mark.parametrize(
    "url",
    ["", "api/sse", "//evil.example/", "https://evil.example/", "/nothing", "/api/transform", "/api/sse#x", "/a b"],
)
def test_what_is_no_url_of_ours_is_refused(client: FlaskClient, url: str) -> None:
    """A 400 that names it: another server's, one where nothing is, one that cannot be read."""
    with asked(client, url, ADMIN) as answer:
        assert (answer.status_code, answer.json["parameter"]) == (400, "url")


NO_LINKS = [b"", b"[]", b'{"url":1}', b"\xff", b'{"url":"/api/sse","seconds":"x"}', b'{"url":"\xff"}']


@pytest.mark.parametrize("body", [*NO_LINKS, b'{"url":"/api/sse","more":' + b"[" * 10_000], ids=range(7))
def test_a_body_that_says_no_link_is_refused(client: FlaskClient, body: bytes) -> None:
    """One sentence that shows how it is said."""
    with client.post("/api/links", data=body, headers=bearer(ADMIN)) as answer:
        assert (answer.status_code, '"url"' in answer.json["detail"]) == (400, True)


def test_without_a_token_or_a_key_there_are_no_links(make_client: Make) -> None:
    """404 where nobody needs one, and where there is nothing to sign with."""
    assert make_client().post("/api/links", json={"url": "/api/sse"}).status_code == 404
    client = make_client(API_TOKENS=static())
    assert asked(client, "/api/sse", ADMIN).status_code == 404


def test_a_link_ends_with_the_entry_of_its_token(make_client: Make) -> None:
    """After a restart without it, or with less, the link reads no more than the token itself."""
    everything = {"JWT_KEY": KEY, "LINK_S": 100}
    url = link(make_client(API_TOKENS=static(ann="read:/topics/*"), **everything), EVENTS, "ann")
    assert status(make_client(API_TOKENS=static(ann="read:/topics/kitchen"), **everything), url) == 200
    assert status(make_client(API_TOKENS=static(ann="read:/topics/garden"), **everything), url) == 403
    assert status(make_client(API_TOKENS=static(bob="*"), **everything), url) == 401


def test_who_signs_elsewhere_cannot_be_another_caller(client: FlaskClient) -> None:
    """A token that is no link says nothing of ``caller``, and a link is good for its own ``path``."""
    headers = bearer("ann") | {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    with client.post("/api/uploads", headers=headers) as answer:
        place = answer.headers["Location"]
    tus = {"Tus-Resumable": "1.0.0"}
    foreign = signed(caller="token:ann")
    assert status(client, place, "HEAD", headers=bearer(foreign) | tus) in (403, 404)
    elsewhere = signed(use="link", caller="token:ann", path="/api/sse", for_s=50)
    assert status(client, f"{place}?token={elsewhere}", "HEAD", headers=tus) == 403
