"""Ranges and conditions black-box: each row of tests/range_cases.py against a real server, and through nginx.

Expected bytes are cut out of the files by hand; the parts of a multipart answer are read by hand too (RFC 2046, 5.1.1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.harness import Answer, LiveServer, RawClient
from tests.nginx import PROGRAM, nginx, proxy
from tests.range_cases import CASES, CHANGED, LENGTHS, SAME, Case

SECTIONS = sorted({case.section for case in CASES}, key=lambda section: [int(n) for n in section.split(".")])
CONTENT = bytes(range(250)) * 40


@pytest.fixture(scope="module")
def files(server: LiveServer) -> Iterator[dict[str, str]]:
    """The URL of each file of the table."""
    paths = {name: server.files / f"range-{name}.txt" for name in LENGTHS}
    for name, path in paths.items():
        path.write_bytes(CONTENT[: LENGTHS[name]])
        os.utime(path, (CHANGED, CHANGED))
    yield {name: f"/api/download/{path.name}" for name, path in paths.items()}
    for path in paths.values():
        path.unlink()


@pytest.fixture(scope="module")
def behind_nginx(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    with nginx(tmp_path_factory.mktemp("nginx"), proxy(server.port)) as port:
        yield port


def parts_of(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Content-Range, Content-Type and bytes of each part of a multipart/byteranges body."""
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9A-Za-z]{1,70})", answer.header("content-type"))
    assert boundary, answer
    opening, *parts, end = (b"\r\n" + bytes(answer.body)).split(f"\r\n--{boundary[1]}".encode())
    assert (opening, end) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().removeprefix("\r\n").split("\r\n"))
        assert set(fields) == {"Content-Range", "Content-Type"}
        found.append((fields["Content-Range"], fields["Content-Type"], content))
    return found


def wrong(answer: Answer, case: Case, etag: str) -> str:
    """What of an answer is not as the row has it; "" when all is."""
    content = CONTENT[: LENGTHS[case.file]]
    told = {name: answer.header(name) for name in ("content-range", "content-length", "etag", "accept-ranges")}
    if answer.status != case.status or answer.end != "clean":
        return f"{answer.status} {answer.end}, and not {case.status}"
    whole = {"content-range": "", "content-length": str(len(content)), "etag": etag, "accept-ranges": "bytes"}
    if case.status in (200, 206) and answer.header("last-modified") != SAME:
        return f"Last-Modified: {answer.header('last-modified')}"
    if case.status == 200 and (told != whole or answer.body != (b"" if case.method == "HEAD" else content)):
        return f"not the whole: {told}"
    if case.status == 206 and len(case.ranges) == 1:
        first, last = case.ranges[0]
        expected = whole | {
            "content-range": f"bytes {first}-{last}/{len(content)}",
            "content-length": str(last + 1 - first),
        }
        return "" if told == expected and answer.body == content[first : last + 1] else f"not the range: {told}"
    if case.status == 206:
        parts = [
            (f"bytes {a}-{b}/{len(content)}", "text/plain; charset=utf-8", content[a : b + 1]) for a, b in case.ranges
        ]
        expected = whole | {"content-length": str(len(answer.body))}
        return "" if told == expected and parts_of(answer) == parts else f"not the parts: {told}"
    if case.status == 304 and (answer.body or told["etag"] != etag or answer.header("cache-control") != "no-cache"):
        return f"not what a cache needs: {told}"
    if case.status == 412 and answer.body:
        return "a body"
    if case.status == 416 and told["content-range"] != f"bytes */{len(content)}":
        return f"without the length: {told}"
    return ""


def complaints(port: int, files: dict[str, str], cases: list[Case], *, kept: bool = True) -> list[str]:
    """What is wrong with the answers to ``cases``, asked for one after the other.

    ``kept``: on one connection. Other workers than ours end one when they like.
    """
    found = []
    with ExitStack() as stack:
        client = stack.enter_context(RawClient(port))
        etags = {name: client.request("HEAD", url).read_to_end().header("etag") for name, url in files.items()}
        assert all(re.fullmatch('"[!#-~]+"', etag) for etag in etags.values())
        for case in cases:
            client = client if kept else stack.enter_context(RawClient(port))
            fields = [(name, value.replace("{etag}", etags[case.file])) for name, value in case.fields]
            answer = client.request(case.method, files[case.file], fields).read_to_end()
            if what := wrong(answer, case, etags[case.file]):
                found.append(f"{case.section} {case.what}: {what}")
            if not kept:
                client.close()
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_the_server_answers_as_the_rfc_has_it(server: LiveServer, files: dict[str, str], section: str) -> None:
    """Every row of a section, on one connection, so that a body's length and its bytes agree too."""
    assert complaints(server.port, files, [case for case in CASES if case.section == section]) == []


@pytest.mark.parametrize("section", SECTIONS)
def test_a_proxy_changes_nothing(behind_nginx: int, files: dict[str, str], section: str) -> None:
    """The same rows through nginx, but for those that it refuses to pass on."""
    cases = [case for case in CASES if case.section == section and not case.unforwarded]
    assert complaints(behind_nginx, files, cases) == []


@pytest.mark.slow
def test_blocks_answer_as_sendfile_does(live_server: Callable[..., LiveServer], files: dict[str, str]) -> None:
    """Where sendfile cannot be the rules are the same: every row, under a worker of gunicorn that is not ours."""
    other = live_server(GUNICORN_CMD_ARGS="--worker-class gthread --threads 4")
    for name in LENGTHS:
        path = other.files / f"range-{name}.txt"
        path.write_bytes(CONTENT[: LENGTHS[name]])
        os.utime(path, (CHANGED, CHANGED))
    assert complaints(other.port, files, CASES, kept=False) == []
