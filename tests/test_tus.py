"""What tus requests ask for: examples and rules of the protocol's text (tus.io/protocols/resumable-upload, 1.0.0)."""

from __future__ import annotations

import base64
import contextlib
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming import tus
from streaming.errors import BadRequest, Problem

MOST = 1000
PREFIX = "/api/uploads/"


def created(headers: dict[str, str], has_body: bool = False) -> tus.Creation:
    return tus.creation(headers, MOST, PREFIX, has_body)


def test_the_creation_of_the_text() -> None:
    """The protocol's own example."""
    metadata = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential"
    asked = created({"upload-length": "100", "upload-metadata": metadata})
    assert asked == tus.Creation(100, metadata, "world_domination_plan.pdf")
    assert tus.parse_metadata(metadata) == {"filename": b"world_domination_plan.pdf", "is_confidential": b""}


def test_the_append_of_the_text() -> None:
    """The protocol's own example, with its checksum."""
    headers = {
        "content-type": "application/offset+octet-stream",
        "upload-offset": "0",
        "upload-checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
    }
    asked = tus.append(headers)
    assert (asked.offset, asked.length) == (0, None)
    # SHA-1 of "hello world"
    assert asked.checksum == {"sha1": bytes.fromhex("2aae6c35c94fcfb415dbe95f408b9ce91ee846ed")}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"upload-length": "-1"}, 400),
        ({"upload-length": "+1"}, 400),
        ({"upload-length": "1_0"}, 400),
        ({"upload-length": "٣"}, 400),
        ({"upload-length": "1.0"}, 400),
        ({"upload-length": "9" * 30}, 400),
        ({"upload-length": "1001"}, 413),
        ({"upload-defer-length": "2"}, 400),
        ({"upload-defer-length": "1", "upload-length": "1"}, 400),
        ({"upload-length": "1", "upload-metadata": "a b c"}, 400),
        ({"upload-length": "1", "upload-metadata": "a YQ==,a YQ=="}, 400),
        ({"upload-length": "1", "upload-metadata": "a ä"}, 400),
        ({"upload-length": "1", "upload-metadata": ","}, 400),
        ({"upload-length": "1", "upload-metadata": "a " + "YWFh" * 3000}, 400),
        ({"upload-length": "1", "upload-concat": "whole"}, 400),
        ({"upload-concat": "final;"}, 400),
        ({"upload-concat": "final;/elsewhere/x"}, 400),
        ({"upload-concat": "final;/api/uploads/x", "upload-length": "1"}, 400),
        ({"upload-concat": "final;/api/uploads/x", "upload-defer-length": "1"}, 400),
    ],
)
def test_a_creation_that_cannot_be(headers: dict[str, str], status: int) -> None:
    """Each is refused with the status that the protocol gives it."""
    with pytest.raises(Problem) as refused:
        created(headers)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"upload-offset": "0"}, 415),
        ({"upload-offset": "0", "content-type": "application/octet-stream"}, 415),
        ({"content-type": tus.CONTENT_TYPE}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "x"}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "0", "upload-length": "x"}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "0", "upload-checksum": "sha3 AAAA"}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "0", "upload-checksum": "sha1"}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "0", "upload-checksum": "sha1 ?"}, 400),
        ({"content-type": tus.CONTENT_TYPE, "upload-offset": "0", "upload-checksum": "SHA1 AAAA"}, 400),
    ],
)
def test_an_append_that_cannot_be(headers: dict[str, str], status: int) -> None:
    """Each is refused with the status that the protocol gives it."""
    with pytest.raises(Problem) as refused:
        tus.append(headers)
    assert refused.value.status == status


def test_a_creation_with_a_body() -> None:
    """It needs the content type of pieces, and a final upload takes none."""
    assert created({"upload-length": "5", "content-type": tus.CONTENT_TYPE}, has_body=True).length == 5
    for headers in ({"upload-length": "5"}, {"upload-concat": "final;/api/uploads/x"}):
        with pytest.raises(Problem):
            created(headers, has_body=True)


def test_a_deferred_length() -> None:
    """``Upload-Defer-Length: 1`` is a length that nobody knows yet."""
    assert created({"upload-defer-length": "1"}).length is None


@pytest.mark.parametrize("version", ["", "0.2.2", "1.0", "1.0.0 "])
def test_another_version(version: str) -> None:
    """412, with the version that is spoken here."""
    with pytest.raises(Problem) as refused:
        tus.check_version({"tus-resumable": version})
    assert refused.value.status == HTTPStatus.PRECONDITION_FAILED
    assert refused.value.headers["Tus-Version"] == "1.0.0"


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("final;/api/uploads/a /api/uploads/b", ("a", "b")),
        ("final; /api/uploads/a  /api/uploads/a", ("a", "a")),
        ("final;https://tus.example.org/api/uploads/a", ("a",)),
        ("final;https://tus.example.org/below/a/path/api/uploads/a?x=1", ("a",)),
        ("final;a b", ("a", "b")),
    ],
)
def test_the_parts_of_a_final_upload(value: str, ids: tuple[str, ...]) -> None:
    """URLs may be absolute or relative, in the order given, one of them often."""
    assert created({"upload-concat": value}).parts == ids


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".htaccess", "htaccess"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("a\0b", "ab"),
        ("Grüße – 川.txt", "Grüße – 川.txt"),
        ("é" * 150, "é" * 100),
        ("", ""),
    ],
)
def test_a_name_is_only_a_name(value: str, name: str) -> None:
    """Whatever the metadata says, no path, no hidden file and no control character comes of it."""
    encoded = base64.b64encode(value.encode()).decode()
    assert created({"upload-length": "1", "upload-metadata": f"filename {encoded}"}).name == name


@given(st.binary(max_size=64))
@example(b"\0.")
def test_a_name_of_any_bytes(value: bytes) -> None:
    """What is no UTF-8 is no reason to fail, and what comes of it can be a file's name."""
    name = tus.file_name({"filename": value})
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= 200


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_metadata_is_read_or_refused(text: str) -> None:
    """Nothing but BadRequest comes of a header."""
    with contextlib.suppress(BadRequest):
        tus.parse_metadata(text)


@given(st.dictionaries(st.from_regex("[!-+\\--~]{1,10}", fullmatch=True), st.binary(max_size=20), max_size=5))
def test_metadata_comes_back(pairs: dict[str, bytes]) -> None:
    """What a client encodes by the text is what is read."""
    header = ",".join(f"{key} {base64.b64encode(value).decode()}".rstrip(" ") for key, value in pairs.items())
    assert tus.parse_metadata(header) == pairs


def test_every_refusal_has_its_status_and_sentence() -> None:
    """One table: each row can be raised, and says one sentence."""
    for name in tus.REFUSALS:
        problem = tus.refusal(name)
        assert 400 <= problem.status < 500
        assert problem.detail.endswith(".")
        assert problem.title


def test_the_time_of_expiry() -> None:
    """RFC 9110, 5.6.7: the protocol's own example."""
    assert tus.expires(1403712000) == {"Upload-Expires": "Wed, 25 Jun 2014 16:00:00 GMT"}
