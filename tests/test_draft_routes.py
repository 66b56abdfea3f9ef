"""The IETF's resumable uploads at /api/uploads, black-box against a real server, in every interop version."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid

import pytest

from tests.harness import Answer, LiveServer, RawClient, eventually

PARTIAL = ("Content-Type", "application/partial-upload")
Headers = list[tuple[str, str]]


def version(number: int) -> tuple[str, str]:
    return "Upload-Draft-Interop-Version", str(number)


def said(number: int, complete: bool) -> tuple[str, str]:
    """Version 3 says the opposite, in another field."""
    return ("Upload-Incomplete", f"?{int(not complete)}") if number == 3 else ("Upload-Complete", f"?{int(complete)}")


def ask(server: LiveServer, method: str, path: str, headers: Headers, body: bytes | None = None) -> Answer:
    with RawClient(server.port) as client:
        return client.request(method, path, headers, body).read_to_end()


def disposed(name: str) -> tuple[str, str]:
    return "Content-Disposition", f'inline; filename="{name}"'


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex}.bin"


@pytest.mark.parametrize("number", range(3, 9))
def test_an_upload_in_pieces(server: LiveServer, name: str, number: int) -> None:
    """Made empty, appended twice, asked after each: then the answer is that of the file."""
    made = ask(server, "POST", "/api/uploads", [version(number), said(number, False), disposed(name)], b"")
    assert made.status == 201
    url = made.header("location")
    ((status, interim),) = made.interim
    assert status == 104
    assert dict(interim)["location"] == url
    assert dict(interim)["upload-draft-interop-version"] == str(number)
    for at, piece in ((0, b"hello "), (6, b"wor")):
        headers = [version(number), said(number, False), ("Upload-Offset", str(at)), PARTIAL]
        answer = ask(server, "PATCH", url, headers, piece)
        assert (answer.status, answer.header("upload-offset")) == (204, str(at + len(piece)))
        head = ask(server, "HEAD", url, [version(number)])
        assert (head.status, head.header("upload-offset")) == (204, str(at + len(piece)))
        assert head.header(said(number, False)[0]) == said(number, False)[1]
        assert head.header("cache-control") == "no-store"
    headers = [version(number), said(number, True), ("Upload-Offset", "9"), PARTIAL]
    last = ask(server, "PATCH", url, headers, b"ld")
    assert (last.status, last.header(said(number, True)[0])) == (201, said(number, True)[1])
    assert last.json == {"received": 11, "filename": name, "url": f"/api/download/uploads/{name}"}
    assert server.get(last.json["url"]) == (200, b"hello world")
    head = ask(server, "HEAD", url, [version(number)])
    assert (head.header("upload-offset"), head.header("upload-length")) == ("11", "11")
    assert head.header(said(number, True)[0]) == said(number, True)[1]


def test_an_upload_in_one_request(server: LiveServer, name: str) -> None:
    """The whole at once: 104 with where it could be continued, then what became of it."""
    answer = ask(server, "POST", "/api/uploads", [version(8), said(8, True), disposed(name)], b"hello")
    assert answer.status == 201
    assert [status for status, _ in answer.interim] == [104]
    assert answer.header("upload-complete") == "?1"
    assert answer.header("content-location") == answer.json["url"]
    assert server.get(answer.json["url"]) == (200, b"hello")


@pytest.mark.parametrize("header", [None, ("Upload-Draft-Interop-Version", "2"), ("Upload-Draft-Interop-Version", "9")])
def test_no_104_for_who_did_not_ask(server: LiveServer, header: tuple[str, str] | None) -> None:
    """Whoever named no version that is spoken here may take it for the final answer."""
    answer = ask(server, "POST", "/api/uploads", [said(8, True), *([header] if header else [])], b"hello")
    assert (answer.status, answer.interim) == (201, [])


def test_an_empty_upload(server: LiveServer, name: str) -> None:
    """Complete and without content is an empty file; so is an empty append that completes nothing."""
    answer = ask(server, "POST", "/api/uploads", [version(8), said(8, True), disposed(name)], b"")
    assert server.get(answer.json["url"]) == (200, b"")
    url = ask(server, "POST", "/api/uploads", [version(8), said(8, False)], b"").header("location")
    headers = [version(8), said(8, True), ("Upload-Offset", "0"), PARTIAL]
    assert ask(server, "PATCH", url, headers, b"").json["received"] == 0


def test_completeness_is_said_and_not_counted(server: LiveServer) -> None:
    """With all its bytes an upload is incomplete until its client says that it is not."""
    headers = [version(8), said(8, False), ("Upload-Length", "5")]
    url = ask(server, "POST", "/api/uploads", headers, b"hello").header("location")
    head = ask(server, "HEAD", url, [version(8)])
    assert (head.header("upload-offset"), head.header("upload-length")) == ("5", "5")
    assert head.header("upload-complete") == "?0"
    last = ask(server, "PATCH", url, [version(8), said(8, True), ("Upload-Offset", "5"), PARTIAL], b"")
    assert (last.status, last.header("upload-complete")) == (201, "?1")


def test_a_final_answer_that_was_lost(server: LiveServer, name: str) -> None:
    """It is given again for an empty append that completes; anything else is too late."""
    url = ask(server, "POST", "/api/uploads", [version(8), said(8, True), disposed(name)], b"hello").header("location")
    again = ask(server, "PATCH", url, [version(8), said(8, True), ("Upload-Offset", "5"), PARTIAL], b"")
    assert (again.json["filename"], again.header("upload-complete")) == (name, "?1")
    late = ask(server, "PATCH", url, [version(8), said(8, True), ("Upload-Offset", "5"), PARTIAL], b"x")
    assert (late.status, late.json["type"].rpartition("#")[2]) == (400, "completed-upload")
    assert server.get(f"/api/download/uploads/{name}") == (200, b"hello")


def test_another_offset(server: LiveServer) -> None:
    """409 with the right one, the problem type and both offsets; nothing is appended."""
    url = ask(server, "POST", "/api/uploads", [version(8), said(8, False)], b"hello").header("location")
    answer = ask(server, "PATCH", url, [version(8), said(8, True), ("Upload-Offset", "4"), PARTIAL], b"o world")
    assert (answer.status, answer.header("upload-offset"), answer.header("upload-complete")) == (409, "5", "?0")
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["type"] == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
    assert (answer.json["expected-offset"], answer.json["provided-offset"]) == (5, 4)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([said(8, False), ("Upload-Offset", "0")], b"x", 415),
        ([said(8, False), PARTIAL], b"x", 400),
        ([("Upload-Offset", "0"), PARTIAL], b"x", 400),
        ([said(8, True), ("Upload-Offset", "0"), PARTIAL], b"x", 400),  # 1 byte of the 10 that were said
        ([said(8, False), ("Upload-Offset", "0"), ("Upload-Length", "11"), PARTIAL], b"x", 400),
        ([said(8, False), ("Upload-Offset", "0"), PARTIAL], b"x" * 11, 400),
        ([said(8, False), ("Upload-Offset", "0"), PARTIAL, ("Content-Digest", "sha-256=:AAAA:")], b"x", 400),
    ],
)
def test_an_append_that_is_refused(server: LiveServer, headers: Headers, body: bytes, status: int) -> None:
    """Each with its status, and the offset stays what it was."""
    made = ask(server, "POST", "/api/uploads", [version(8), said(8, False), ("Upload-Length", "10")], b"")
    url = made.header("location")
    assert ask(server, "PATCH", url, [version(8), *headers], body).status == status
    assert ask(server, "HEAD", url, [version(8)]).header("upload-offset") == "0"


def test_more_than_was_said(server: LiveServer) -> None:
    """Found out while it is chunked: the upload is no more (section "Length")."""
    made = ask(server, "POST", "/api/uploads", [version(8), said(8, False), ("Upload-Length", "4")], b"")
    url = made.header("location")
    with RawClient(server.port) as client:
        head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nUpload-Complete: ?1\r\n"
        head += f"Content-Type: {PARTIAL[1]}\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = client.send(head.encode(), "PATCH").send_chunk(b"hello").send_chunk(b"").read_to_end()
    assert answer.status == 400
    assert answer.json["type"].rpartition("#")[2] == "inconsistent-upload-length"
    assert ask(server, "HEAD", url, [version(8)]).status == 404


def test_the_limits(server: LiveServer) -> None:
    """OPTIONS, the 104 and every answer tell them; ``max-age`` is ``expires`` in version 6."""
    options = ask(server, "OPTIONS", "/api/uploads", [])
    assert options.header("upload-limit") == "max-size=10737418240"
    made = ask(server, "POST", "/api/uploads", [version(8), said(8, False)], b"x")
    assert "max-size=10737418240" in dict(made.interim[0][1])["upload-limit"]
    head = ask(server, "HEAD", made.header("location"), [version(8)])
    assert head.header("upload-limit").startswith("max-size=10737418240, max-age=86")
    head = ask(server, "HEAD", made.header("location"), [version(6)])
    assert head.header("upload-limit").startswith("max-size=10737418240, expires=86")
    too_long = ask(server, "POST", "/api/uploads", [version(8), said(8, False), ("Upload-Length", "10737418241")], b"")
    assert (too_long.status, "max-size" in too_long.header("upload-limit")) == (413, True)


def test_an_upload_that_is_cancelled(server: LiveServer) -> None:
    """204, and then there is none."""
    url = ask(server, "POST", "/api/uploads", [version(8), said(8, False)], b"x").header("location")
    assert ask(server, "DELETE", url, []).status == 204
    assert ask(server, "HEAD", url, []).status == 404


def test_a_cut_creation_goes_on(server: LiveServer, name: str) -> None:
    """With the URL of the 104: what had arrived is kept, and the rest completes it."""
    content = os.urandom(500_000)
    with RawClient(server.port) as client:
        head = "POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nUpload-Complete: ?1\r\n"
        head += "Upload-Draft-Interop-Version: 8\r\n"
        head += f"Content-Disposition: {disposed(name)[1]}\r\nContent-Length: {len(content)}\r\n\r\n"
        client.send(head.encode() + content[:300_000], "POST")
        client.read_until(lambda answer: answer.interim)
        url = dict(client.answer.interim[0][1])["location"]
        part = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
        eventually(lambda: part.stat().st_size == 300_000)
        client.reset()
    head = ask(server, "HEAD", url, [version(8)])
    assert (head.header("upload-offset"), head.header("upload-length")) == ("300000", "500000")
    headers = [version(8), said(8, True), ("Upload-Offset", "300000"), PARTIAL]
    assert ask(server, "PATCH", url, headers, content[300_000:]).status == 201
    assert server.get(f"/api/download/uploads/{name}") == (200, content)


def test_a_cut_creation_that_nobody_can_go_on_with(server: LiveServer) -> None:
    """Without a 104 its URL was told to nobody: nothing is kept."""
    before = set((server.files / "uploads").rglob("*"))
    with RawClient(server.port) as client:
        client.send(
            b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nUpload-Complete: ?1\r\nContent-Length: 9\r\n\r\nhalf",
            "POST",
        )
        eventually(lambda: len(set((server.files / "uploads").rglob("*")) - before) >= 2)
    eventually(lambda: set((server.files / "uploads").rglob("*")) - before <= {server.files / "uploads/.resumable"})


def test_digests_of_the_whole(server: LiveServer, name: str) -> None:
    """Repr-Digest of the creation is compared when it is complete, Want-Repr-Digest answered with it."""
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(b'hello world').digest()).decode()}:"
    for content, status in ((b"hello world", 201), (b"hello_world", 400)):
        headers = [
            version(8),
            said(8, False),
            disposed(name),
            ("Repr-Digest", digest),
            ("Want-Repr-Digest", "sha-256=1"),
        ]
        url = ask(server, "POST", "/api/uploads", headers, content[:6]).header("location")
        headers = [version(8), said(8, True), ("Upload-Offset", "6"), PARTIAL]
        last = ask(server, "PATCH", url, headers, content[6:])
        assert (last.status, last.header("upload-complete")) == (status, "?1")
        if status == 201:
            assert last.header("repr-digest") == digest
        else:
            assert ask(server, "HEAD", url, [version(8)]).status == 404
    assert server.get(f"/api/download/uploads/{name}") == (200, b"hello world")


@pytest.mark.parametrize("file_name", ["../../etc/x-{}", "{}\\..\\y", ".{}"])
def test_a_name_is_only_a_name(server: LiveServer, file_name: str) -> None:
    """Whatever Content-Disposition says, the file lies in the folder of uploads and is not hidden."""
    unique = uuid.uuid4().hex
    headers = [version(8), said(8, True), disposed(file_name.format(unique))]
    told = ask(server, "POST", "/api/uploads", headers, b"x").json
    assert "/" not in told["filename"]
    assert not told["filename"].startswith(".")
    assert server.get(told["url"])[0] == 200
