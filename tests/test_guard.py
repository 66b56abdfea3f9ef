"""Who is let in to what, in memory: every route without a token, with a wrong one, with one of another scope."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from streaming.errors import Unauthorized
from streaming.key_sets import KeySet
from streaming.needs import OPEN
from streaming.signed_tokens import SignedTokens
from tests.tokens import ADMIN, KEY, bearer, encoded, signed, static

Make = Callable[..., FlaskClient]


def status(client: FlaskClient, path: str, token: str = "", method: str = "GET", **more: Any) -> int:
    with client.open(path, method=method, headers=bearer(token) if token else {}, **more) as answer:
        return answer.status_code


def challenge(answer: TestResponse) -> str:
    with answer:
        return answer.headers["WWW-Authenticate"]


# Every route

NO_GRANT = {
    "activity.activity",
    "access.links",
    *(f"pages.{name}" for name in ("home", "events", "chat", "upload", "transform", "openapi")),
    *(f"pages.{name}" for name in ("docs", "other_docs", "plot")),
}
# What a caller names is its own: somebody else's is not there.
OWN = {"uploads.upload_progress_events"}


def test_every_route_asks_for_a_token_and_for_a_grant(make_client: Make) -> None:
    """No route is forgotten, also none that is added later: 401 without a token, 403 with one that grants it not."""
    client = make_client(API_TOKENS=static(ann="read:/nothing write:/nothing"))
    missed = []
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "x.csv", rule.rule)
        for method in (rule.methods or set()) - {"OPTIONS"}:
            without, wrong = status(client, path, method=method), status(client, path, "nobody", method)
            other = status(client, path, "ann", method)
            if rule.endpoint in OPEN:
                continue
            granted = rule.endpoint in NO_GRANT | OWN
            if (without, wrong) != (401, 401) or (other == 403) is granted:
                missed.append((rule.rule, method, without, wrong, other))
    assert missed == []


@pytest.mark.parametrize(
    ("request_line", "scope"),
    [
        ("GET /api/stream?chunks=1", "read:/api/stream"),
        ("GET /api/sse?count=1", "read:/api/sse"),
        ("GET /api/stream-json?limit=0", "read:/tables/users"),
        ("GET /api/stream-safe?count=1", "read:/api/stream-safe"),
        ("GET /api/stream-safe?table=users&limit=0", "read:/tables/users"),
        ("GET /api/export?table=users&limit=0", "read:/tables/users"),
        ("GET /api/export", "read:/tables/*"),
        ("GET /api/export/users.ndjson?limit=0", "read:/tables/users"),
        ("GET /api/export/users.csv-metadata.json", "read:/tables/users"),
        ("GET /api/events", "read:/topics/default"),
        ("GET /api/events?topic=a", "read:/topics/a"),
        ("GET /v1/stream/notifications/a", "read:/topics/a"),
        ("POST /api/notifications?topic=a", "write:/topics/a"),
        ("GET /api/download/a.txt", "read:/files/a.txt"),
        ("GET /api/video/v", "read:/files/videos/v.mp4"),
        ("GET /api/download/videos/v.mp4", "read:/files/videos/*"),
        ("GET /api/files", "read:/files/*"),
        ("GET /files", "read:/files/*"),
        ("PUT /v1/stream/chat/a", "write:/v1/stream/chat/*"),
        ("POST /api/transform", "write:/api/transform"),
        ("POST /api/chat", "write:/api/chat"),
        ("GET /api/chat/a/stream", "read:/api/chat"),
        ("POST /v1/chat/completions", "write:/v1/chat/completions"),
        ("GET /v1/models", "read:/v1/models"),
        ("POST /api/upload-progress", "write:/files/uploads/*"),
        ("POST /api/uploads", "write:/files/uploads/*"),
        ("POST /api/video", "write:/files/videos/*"),
        ("GET /metrics", "read:/metrics"),
    ],
)
def test_what_a_route_needs(make_client: Make, request_line: str, scope: str) -> None:
    """With exactly this grant the request is let in; with the same of the other action, and of the rest, it is not."""
    other = scope.replace("read:", "write:") if scope.startswith("read:") else scope.replace("write:", "read:")
    client = make_client(API_TOKENS=static(ann=scope, bob=f"{other} read:/x write:/x"))
    (client.application.extensions["settings"].FILES_DIR / "a.txt").write_text("a")
    (client.application.extensions["settings"].FILES_DIR / "videos" / "v.mp4").write_text("v")
    method, _, path = request_line.partition(" ")
    body = {"data": b"x"} if method == "POST" else {}
    with client.open(path, method=method, headers=bearer("ann"), **body) as answer:
        # Whatever else it says of what was sent: it was let in.
        assert answer.status_code not in (401, 403), answer.data
    with client.open(path, method=method, headers=bearer("bob"), **body) as answer:
        assert answer.status_code == 403
        assert re.fullmatch(
            'Bearer realm="perennial", error="insufficient_scope", scope="(read|write):/[!-~]*"',
            answer.headers["WWW-Authenticate"],
        )


def test_the_thousandth_topic_is_looked_at_too(make_client: Make) -> None:
    """A forbidden topic does not slip in behind many allowed ones, in a list or in repeated parameters."""
    client = make_client(API_TOKENS=static(ann="read:/topics/a"))
    assert status(client, "/api/events?topic=a,a", "ann") == 200
    assert status(client, "/api/events?topic=" + "a," * 500 + "secret", "ann") == 403
    assert status(client, "/api/events?" + "topic=a&" * 100 + "topic=secret", "ann") == 403
    assert status(client, "/api/stream-json?table=users&table=users", "ann") == 403


def test_a_fork_is_a_read_of_its_source(make_client: Make) -> None:
    """Nobody reads a stream by forking it (Durable Streams, 4.2)."""
    client = make_client(API_TOKENS=static(ann="write:/v1/stream/mine/* read:/v1/stream/mine/*"))
    assert status(client, "/v1/stream/secret", ADMIN, "PUT", data=b"x") == 201
    for source in ("secret", "notifications/default", "%73ecret"):
        headers = bearer("ann") | {"Stream-Forked-From": f"/v1/stream/{source}"}
        with client.put("/v1/stream/mine/fork", headers=headers) as answer:
            assert answer.status_code == 403


@pytest.mark.parametrize(
    "path", ["/api/download/%2e%2e/x", "/api/download/public/..%2fa.txt", "/api/download/public//a.txt"]
)
def test_no_way_around_a_files_pattern(make_client: Make, path: str) -> None:
    """Dots and doubled slashes are below no pattern."""
    client = make_client(API_TOKENS=static(ann="read:/files/public/*"))
    assert status(client, path, "ann") in (403, 404)


# Tokens


def test_who_brings_nothing_is_told_how_and_nothing_more(make_client: Make) -> None:
    """RFC 6750, 3 and 3.1: a bare challenge, without an error code."""
    client = make_client(API_TOKENS=static())
    assert challenge(client.get("/api/stream")) == 'Bearer realm="perennial"'


@pytest.mark.parametrize(
    "header", ["Bearer nobody", "bearer", "Basic YWRtaW46YWRtaW4=", "Bearer a.b.c", "Bearer ..", "Bearer \xff", "x"]
)
def test_a_token_that_is_not_known(make_client: Make, header: str) -> None:
    """401 invalid_token, whatever it looks like."""
    client = make_client(API_TOKENS=static(), JWT_KEY=KEY)
    assert 'error="invalid_token"' in challenge(client.get("/api/stream", headers={"Authorization": header}))


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (signed(for_s=-1), "expired"),
        (signed(exp=None), "no claim exp"),
        (signed(sub=None), "no claim sub"),  # type: ignore[arg-type]  # left out of the claims
        (signed(key="another key of at least thirty-two bytes"), "not valid"),
        (signed(alg="none"), "not valid"),
        (signed(alg="HS512"), "not valid"),
        (signed(alg="RS256"), "not valid"),
        (signed(nbf=time.time() + 3600), "not yet"),
        (signed(read=[7]), "cannot be read"),
        (signed(read=["x"]), "cannot be read"),
        (signed(read={"a": 1}), "cannot be read"),
        (signed(read=['"\u4e2d\r\nX: y']), "cannot be read"),
        (signed(sub="\ud800"), "cannot be read"),
        (signed(exp=1e400), "not valid|cannot be read"),
        (signed(exp="tomorrow"), "not valid"),
        (signed(aud="another"), "not valid|audience"),
        (signed(use="link", read=["*"]), "links only"),
        (signed(read=["*"])[:-1], "not valid"),
        (".".join((encoded(b'{"alg":"none"}'), encoded(b'{"sub":"x","exp":9999999999}'), "")), "not valid"),
    ],
)
def test_a_signed_token_with_a_flaw_is_refused(make_client: Make, token: str, words: str) -> None:
    """The key's algorithm alone, a real end, a subject, claims that can be read (RFC 8725, 3)."""
    answer = make_client(JWT_KEY=KEY).get("/api/stream?chunks=1", headers=bearer(token))
    assert answer.status_code == 401
    assert re.search(words, answer.json["detail"])
    assert token not in answer.text
    # RFC 6750, 3: what a description may have, whatever the token says.
    described = r'Bearer realm="perennial", error="invalid_token", error_description="[ !#-\[\]-~]+"'
    assert re.fullmatch(described, challenge(answer))


@pytest.mark.parametrize(
    "claims",
    [
        {"read": ["/api/stream"]},
        {"read": "/api/stream /x"},
        {"scope": "openid read:/api/stream profile"},
        {"scope": ["read:/api/*"]},
    ],
)
def test_claims_grant_by_read_write_and_scope(make_client: Make, claims: dict[str, Any]) -> None:
    """Lists or words; in ``scope`` other applications' words are passed over."""
    client = make_client(JWT_KEY=KEY)
    assert status(client, "/api/stream?chunks=1", signed(**claims)) == 200
    assert status(client, "/api/transform", signed(**claims), "POST") == 403


def test_audience_and_issuer_are_compared_where_they_are_set(make_client: Make) -> None:
    """Both must be right; one that is missing is wrong."""
    client = make_client(JWT_KEY=KEY, JWT_AUDIENCE="perennial", JWT_ISSUER="https://id.example")
    right: dict[str, Any] = {"aud": ["other", "perennial"], "iss": "https://id.example", "read": ["*"]}
    assert status(client, "/api/stream?chunks=1", signed(**right)) == 200
    for wrong in ({"aud": "other"}, {"aud": None}, {"iss": "https://evil.example"}, {"iss": None}):
        assert status(client, "/api/stream?chunks=1", signed(**right | wrong)) == 401


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_a_key_set_in_a_file_signs(make_client: Make, tmp_path: Path, kind: str) -> None:
    """A token of a key of the set is good; of another key, or of the public key taken for an HMAC's, it is not."""
    key: Any = rsa.generate_private_key(65537, 2048) if kind == "RS256" else ec.generate_private_key(ec.SECP256R1())
    algorithm = jwt.get_algorithm_by_name(kind)
    public = {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k1", "use": "sig"}
    shared = {"kty": "oct", "k": encoded(KEY.encode()), "kid": "k2", "alg": "HS256"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"kty": "??"}, shared, public]}))
    client = make_client(JWT_JWKS=str(tmp_path / "keys.json"))
    claims = {"sub": "ann", "exp": time.time() + 60, "read": ["*"]}
    right = jwt.encode(claims, key, kind, headers={"kid": "k1"})
    assert status(client, "/api/stream?chunks=1", right) == 200
    assert status(client, "/api/stream?chunks=1", jwt.encode(claims, key, kind)) == 200
    assert status(client, "/api/stream?chunks=1", jwt.encode(claims, key, kind, headers={"kid": "k9"})) == 401
    assert status(client, "/api/stream?chunks=1", signed(read=["*"])) == 401
    assert status(client, "/api/stream?chunks=1", signed(key=json.dumps(public), read=["*"])) == 401


def test_a_key_set_that_cannot_be_had_is_a_503(make_client: Make, tmp_path: Path) -> None:
    """Nobody is let in, and nobody is told that his token is wrong."""
    head = encoded(b'{"alg":"RS256"}')
    assert status(make_client(JWT_JWKS=str(tmp_path / "none")), "/api/stream", f"{head}.{head}.{head}") == 503


def test_settings_that_cannot_be_stop_the_start(make_client: Make) -> None:
    """A short key, an unreadable API_TOKENS, and everybody beside somebody: one sentence that names the setting."""
    for changes, name in (
        ({"JWT_KEY": "short"}, "JWT_KEY"),
        ({"API_TOKENS": "ci"}, "API_TOKENS"),
        ({"API_TOKENS": static(), "ALLOW_ANONYMOUS": "1"}, "ALLOW_ANONYMOUS"),
    ):
        with pytest.raises(SystemExit, match=name):
            make_client(**changes)


def test_a_key_set_behind_a_url_is_fetched_once_and_anew_for_a_new_key() -> None:
    """A new key is found some seconds later; made-up key ids make no storm of fetches; what was there stays good."""
    now = 1000.0
    keys: list[dict[str, Any]] = []
    with issuing(keys) as (url, fetched):
        tokens = SignedTokens("", KeySet(url, lambda: now), "", "", 60)
        signers = {name: ed25519.Ed25519PrivateKey.generate() for name in ("a", "b")}

        def known(kid: str, signer: str) -> bool:
            claims = {"sub": "ann", "exp": time.time() + 60}
            token = jwt.encode(claims, signers[signer], "EdDSA", headers={"kid": kid})
            try:
                return tokens.caller(token, False).name == "jwt:ann"
            except Unauthorized:
                return False

        algorithm = jwt.get_algorithm_by_name("EdDSA")
        keys.append({**algorithm.to_jwk(signers["a"].public_key(), as_dict=True), "kid": "a"})
        assert known("a", "a")
        assert not known("a", "b")
        assert not any(known(f"made-up-{n}", "b") for n in range(20))
        assert len(fetched) == 1
        keys.append({**algorithm.to_jwk(signers["b"].public_key(), as_dict=True), "kid": "b"})
        now += 11
        assert known("b", "b")
        assert len(fetched) == 2
    now += 1000  # the issuer is away
    assert known("a", "a")


@contextmanager
def issuing(keys: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that gives out a JWK Set of ``keys``; its URL, and what it was asked for."""
    fetched: list[str] = []

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            body = json.dumps({"keys": keys}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys", fetched
        finally:
            server.shutdown()
            thread.join()


# Links and cookies


def test_a_link_reads_what_it_was_signed_for(make_client: Make) -> None:
    """Its token is good in a URL alone, for reading alone, and no other token is good there."""
    client = make_client(JWT_KEY=KEY, API_TOKENS=static(), LINK_S=100)
    link = signed(use="link", read=["/api/stream"], write=["*"], for_s=60)
    assert status(client, f"/api/stream?chunks=1&token={link}") == 200
    assert status(client, f"/api/sse?count=1&token={link}") == 403
    assert status(client, f"/api/transform?token={link}", method="POST") == 403
    assert status(client, f"/api/stream?chunks=1&token={signed(read=['*'])}") == 401
    assert status(client, f"/api/stream?chunks=1&token={ADMIN}") == 401
    assert status(client, f"/api/stream?chunks=1&token={signed(use='link', read=['*'], for_s=200)}") == 401


def test_a_links_answer_tells_no_other_server_where_it_was(make_client: Make) -> None:
    """Referrer-Policy: no-referrer, beside the answer's own headers."""
    client = make_client(JWT_KEY=KEY)
    link = signed(use="link", read=["*"])
    with client.get(f"/api/stream?chunks=1&token={link}") as answer:
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_login_gives_a_cookie_that_other_pages_cannot_use(make_client: Make) -> None:
    """HttpOnly and SameSite; Secure and __Host- over TLS; plain only on this machine; logout takes it back."""
    client = make_client(API_TOKENS=static(ann="read:/api/stream"))
    with client.post("/api/login", json={"token": "ann"}) as answer:
        assert answer.json == {"caller": "token:ann", "ends_at": None, "read": ["/api/stream"], "write": []}
        assert answer.headers["Set-Cookie"] == "perennial=ann; HttpOnly; Path=/; SameSite=Lax"
    assert status(client, "/api/stream?chunks=1") == 200
    with client.post("/api/logout") as answer:
        assert answer.status_code == 204
    assert status(client, "/api/stream?chunks=1") == 401
    with client.post("/api/login", json={"token": "ann"}, base_url="https://x.example") as answer:
        assert answer.headers["Set-Cookie"] == "__Host-perennial=ann; Secure; HttpOnly; Path=/; SameSite=Lax"
    with client.post("/api/login", json={"token": "ann"}, base_url="http://x.example") as answer:
        assert answer.status_code == 403
    assert status(client, "/api/login", "nobody", "POST") == 401


@pytest.mark.parametrize("body", [b"ann", b'{"token":"\xff"}', b'{"token":"ann","x":' + b"[" * 10_000])
def test_a_login_that_cannot_be_read_is_a_400(make_client: Make, body: bytes) -> None:
    """No JSON, no UTF-8, nested without end: whoever sent it is told, and nothing fails."""
    client = make_client(API_TOKENS=static(ann="*"))
    with client.post("/api/login", data=body, content_type="application/json") as answer:
        assert answer.status_code == 400


def test_a_cookie_of_plain_http_is_none_over_tls(make_client: Make) -> None:
    """Who can write into plain http cannot log a browser in as somebody else over TLS."""
    client = make_client(API_TOKENS=static())
    with client.get("/api/stream", headers={"Cookie": f"perennial={ADMIN}"}, base_url="https://x.example") as answer:
        assert answer.status_code == 401


def test_a_page_asks_for_the_token_itself(make_client: Make) -> None:
    """401 with a form; the form leads back, and never to another server (CWE-601)."""
    client = make_client(API_TOKENS=static(ann="read:/files/*"))
    with client.get("/files?after=a") as answer:
        assert (answer.status_code, answer.mimetype) == (401, "text/html")
        assert 'name="next" value="/files?after=a"' in answer.text
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    with client.post("/api/login", data={"token": "nobody", "next": "/files"}) as answer:
        assert answer.status_code == 401
        assert "not known" in answer.text
    for next, place in (
        ("/files?after=a", "/files?after=a"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
    ):
        with client.post("/api/login", data={"token": "ann", "next": next}) as answer:
            assert (answer.status_code, answer.headers["Location"]) == (303, place)
    assert status(client, "/files") == 200


def test_a_login_from_another_page_is_refused(make_client: Make) -> None:
    """Nobody is logged in as somebody else without knowing (login CSRF)."""
    client = make_client(API_TOKENS=static())
    headers = {"Sec-Fetch-Site": "cross-site"}
    with client.post("/api/login", json={"token": ADMIN}, headers=headers) as answer:
        assert answer.status_code == 403


# Whose it is


def test_a_chat_is_its_callers_own(make_client: Make) -> None:
    """Another caller with the same rights finds no chat of this name, no run of this id, and stops nothing."""
    scope = "write:/api/chat read:/api/chat read:/v1/stream/*"
    client = make_client(API_TOKENS=static(ann=scope, bob=scope), CHAT_HEADERS_S=5.0)
    body = {"id": "c", "messages": [{"role": "user", "content": "Hello"}]}
    with client.post("/api/chat", json=body, headers=bearer("ann")) as answer:
        run, place = answer.headers["X-Run-Id"], answer.headers["Location"]
        assert answer.data
    for name in ("c", run):
        assert status(client, f"/api/chat/{name}/stream", "ann") == 200
        assert status(client, f"/api/chat/{name}/stream", "bob") == 204
        assert status(client, f"/api/chat/{name}/stop", "bob", "POST") == 404
        assert status(client, f"/api/chat/{name}/stop", "ann", "POST") == 200
    assert [status(client, place, name) for name in ("ann", "bob", ADMIN)] == [200, 403, 200]


def test_an_upload_is_its_callers_own(make_client: Make) -> None:
    """Another caller may not see, continue, delete or use as a part what somebody uploads (tus 1.0)."""
    scope = "write:/files/uploads/*"
    client = make_client(API_TOKENS=static(ann=scope, bob=scope))
    tus = {"Tus-Resumable": "1.0.0"}
    partial = {"Upload-Length": "4", "Upload-Concat": "partial"}
    with client.post("/api/uploads", headers=bearer("ann") | tus | partial) as answer:
        url = answer.headers["Location"]
    with client.head(url, headers=bearer("ann") | tus) as answer:
        assert answer.headers["Upload-Offset"] == "0"
    patch = tus | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    for method, headers in (("HEAD", tus), ("PATCH", patch), ("DELETE", tus)):
        assert client.open(url, method=method, headers=bearer("bob") | headers, data=b"x").status_code == 403
    assert client.patch(url, headers=bearer("ann") | patch, data=b"full").status_code == 204
    final = tus | {"Upload-Concat": f"final;{url}"}
    assert client.post("/api/uploads", headers=bearer("bob") | final).status_code == 404
    assert client.post("/api/uploads", headers=bearer("ann") | final).status_code == 201


def test_names_that_two_callers_choose_are_two_things(make_client: Make) -> None:
    """The id of an upload's progress and of a receipt: nobody takes another's, or watches it."""
    scope = "write:/files/uploads/* read:/tables/users"
    client = make_client(API_TOKENS=static(ann=scope, bob=scope))
    for name in ("ann", "bob"):
        path = f"/api/upload-progress?id=same&filename={name}"
        assert status(client, path, name, "POST", data=b"x") == 201
    with client.get("/api/upload-progress/same", headers=bearer("bob")) as answer:
        assert '"filename":"bob"' in answer.text
        assert '"filename":"ann"' not in answer.text
    assert status(client, "/api/export?table=users&limit=1&id=r", "ann") == 200
    assert [status(client, "/api/export/r", name) for name in ("ann", "bob")] == [200, 404]


def test_a_list_of_streams_shows_what_may_be_read(make_client: Make) -> None:
    """Nobody learns the names of others' streams, chats and uploads from a list, or how they stand from a page."""
    client = make_client(API_TOKENS=static(ann="read:/v1/stream/*", bob="read:/v1/stream/mine/*"))
    for path in ("mine/a", "other/b"):
        assert status(client, f"/v1/stream/{path}", ADMIN, "PUT") == 201
    assert status(client, "/api/upload-progress?id=u&filename=f", ADMIN, "POST", data=b"x") == 201

    def listed(token: str, query: str = "") -> list[str]:
        with client.get(f"/api/streams{query}", headers=bearer(token)) as answer:
            assert answer.status_code == 200
            return [each["path"] for each in answer.json["streams"]]

    assert listed("ann") == ["mine/a", "other/b"]
    assert set(listed(ADMIN)) >= {"mine/a", "other/b", "notifications/default"}
    assert listed("bob", "?prefix=mine/") == ["mine/a"]
    for query in ("", "?prefix=other/", "?prefix=m", "?prefix=uploads/"):
        assert status(client, f"/api/streams{query}", "bob") == 403
    assert status(client, "/streams?prefix=mine/&path=other/b", "bob") == 403
    assert status(client, "/streams?prefix=mine/&path=mine/a", "bob") == 200


def test_a_durable_run_is_its_callers_own(make_client: Make) -> None:
    """Its Location is good for who asked for it."""
    scope = "read:/api/stream read:/v1/stream/*"
    client = make_client(API_TOKENS=static(ann=scope, bob=scope))
    with client.get("/api/stream?chunks=2&interval=0&durable=1", headers=bearer("ann")) as answer:
        place = answer.headers["Location"]
        assert answer.data
    assert [status(client, place, name) for name in ("ann", "bob")] == [200, 403]


# Other pages


def test_a_name_that_is_not_the_servers_is_refused(make_client: Make) -> None:
    """On loopback a page of another name cannot be of one origin with this server (DNS rebinding)."""
    open_client = make_client()
    assert status(open_client, "/api/stream?chunks=1", base_url="http://evil.example:8000") == 421
    assert status(open_client, "/api/stream?chunks=1", base_url="http://127.0.0.1:8000") == 200
    assert status(open_client, "/healthz", base_url="http://10.0.0.1") == 200
    named = make_client(TRUSTED_HOSTS="perennial.example, .internal.example")
    assert status(named, "/api/stream?chunks=1", base_url="http://perennial.example") == 200
    assert status(named, "/api/stream?chunks=1", base_url="http://localhost") == 421
    everybody = make_client(ALLOW_ANONYMOUS="1")
    assert status(everybody, "/api/stream?chunks=1", base_url="http://any.example") == 200


WRITES = [
    ("POST", "/api/notifications"),
    ("PUT", "/v1/stream/x"),
    ("POST", "/api/uploads"),
    ("POST", "/api/transform"),
    ("DELETE", "/v1/stream/x"),
    ("GET", "/api/stream?durable=1&chunks=1"),
    ("GET", "/api/stream?%64urabl%65=1&chunks=1"),
    ("PATCH", "/api/uploads/x"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_page_of_another_origin_writes_nothing(make_client: Make, method: str, path: str) -> None:
    """With no token needed and with a cookie that comes by itself (CSRF, CWE-352); a terminal is no page."""
    client = make_client()
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        with client.open(path, method=method, data=b"x", headers=headers) as answer:
            assert answer.status_code == 403
            assert "another origin" in answer.text
    assert status(client, path, method=method, data=b"x") != 403


def test_origins_of_the_list_may_and_see_what_they_need(make_client: Make) -> None:
    """CORS: a preflight, the answer's own headers, and nothing for others (Fetch Standard, 3.3)."""
    client = make_client(CORS_ORIGINS="https://app.example")
    ask = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    preflight = ask | {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "upload-offset, tus-resumable",
    }
    for path in ("/api/uploads/x", "/api/chat", "/v1/stream/x"):
        with client.options(path, headers=preflight) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert "PATCH" in ", ".join(answer.headers.getlist("Access-Control-Allow-Methods"))
            assert "upload-offset" in ", ".join(answer.headers.getlist("Access-Control-Allow-Headers")).lower()
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    tus = ask | {"Tus-Resumable": "1.0.0", "Upload-Length": "4"}
    with client.post("/api/uploads", headers=tus) as answer:
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        # What tus-js-client, @durable-streams/client and the AI SDK's transports read of an answer.
        assert {
            "location",
            "upload-offset",
            "stream-next-offset",
            "stream-closed",
            "x-vercel-ai-ui-message-stream",
        } <= set(exposed)
        said = {name.lower() for name, _ in answer.headers if name.lower().startswith(("upload-", "tus-"))}
        assert said <= set(exposed)
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/uploads", headers=tus | evil).status_code == 403
    assert "Access-Control-Allow-Origin" not in client.get("/api/stream?chunks=1", headers=evil).headers


def test_every_origin_is_none_for_a_cookie(make_client: Make) -> None:
    """With CORS_ORIGINS=* a page needs a token of its own: what comes by itself does not count."""
    client = make_client(CORS_ORIGINS="*", API_TOKENS=static())
    headers = {"Origin": "https://app.example", "Sec-Fetch-Site": "same-site"}
    assert status(client, "/api/login", ADMIN, "POST") == 200
    with client.post("/api/transform", data=b"x", headers=headers) as answer:
        assert answer.status_code == 403
    with client.post("/api/transform", data=b"x", headers=headers | bearer(ADMIN)) as answer:
        assert answer.status_code == 200
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_proxys_headers_count_only_as_configured(make_client: Make) -> None:
    """Nobody says by a header that he came over TLS, unless there is a proxy that says it."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    for proxies, scheme in ((0, "http"), (1, "https")):
        client = make_client(TRUSTED_PROXIES=proxies)
        with client.put(f"/v1/stream/p{proxies}", headers=headers) as answer:
            assert answer.headers["Location"].startswith(f"{scheme}://")


# The command


def test_the_command_makes_tokens_that_the_server_takes(make_client: Make) -> None:
    """make, hash, sign and link; the token on standard output, alone, and its hash for API_TOKENS beside it."""
    run = make_client(JWT_KEY=KEY).application.test_cli_runner().invoke
    made = run(args=["token", "make", "ci", "read:/api/stream"])
    token, entry = made.stdout.strip(), made.stderr.strip().splitlines()[-1].strip()
    assert token not in made.stderr
    assert run(args=["token", "hash"], input=token).stdout.strip() in entry
    by_key = run(args=["token", "sign", "ann", "read:/api/sse", "--for", "1h"]).stdout.strip()
    link = run(args=["token", "link", "ann", "/api/events?topic=a", "--for", "5m"]).stdout.strip()
    client = make_client(API_TOKENS=entry, JWT_KEY=KEY)
    assert status(client, "/api/stream?chunks=1", token) == 200
    assert status(client, "/api/sse?count=1", by_key) == 200
    assert status(client, "/api/stream?chunks=1", by_key) == 403
    assert status(client, link) == 200
    assert status(client, link.replace("topic=a", "topic=b")) == 403


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("make ci everything", "no scope"),
        ("hash", "no token"),
        ("link ann /api/sse --for 2h", "LINK_S"),
        ("link ann /nothing", "nothing at"),
        ("link ann /api/sse --for ever", "no time"),
        ("sign ann *", "no JWT_KEY"),
    ],
)
def test_the_command_says_what_is_wrong(make_client: Make, arguments: str, words: str) -> None:
    """One sentence: a scope that is none, a key that is missing, a link that would live too long."""
    run = make_client(JWT_KEY="" if "JWT_KEY" in words else KEY).application.test_cli_runner().invoke
    told = run(args=["token", *arguments.split()])
    assert told.exit_code == 1
    assert words in told.stderr
