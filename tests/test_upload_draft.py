"""The IETF's resumable uploads: the rules of draft-ietf-httpbis-resumable-upload, and of its older versions."""

from __future__ import annotations

import h11
import pytest

from streaming import upload_draft
from streaming.errors import BadRequest, Problem, UnsupportedType


def asked(version: object = 8, **fields: str) -> upload_draft.Asked:
    headers = {name.replace("_", "-").lower(): value for name, value in fields.items()}
    return upload_draft.asked({"upload-draft-interop-version": str(version), **headers})


@pytest.mark.parametrize("version", range(3, 9))
def test_the_versions_that_are_spoken(version: int) -> None:
    """A client that names one of them gets that one."""
    assert (asked(version).version, asked(version).named) == (version, True)


@pytest.mark.parametrize("version", ["", "2", "9", "abc", "8.0", "-8", '"8"'])
def test_a_version_that_nobody_named(version: str) -> None:
    """The newest is spoken, and no 104 is sent (appendix "Draft Version Identification")."""
    request = asked(version)
    assert (request.version, request.named) == (8, False)
    assert upload_draft.interim(request, {"Location": "/x"}) == b""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("?1", True),
        ("?0", False),
        ("?1;a=b", True),
        (" ?0 ", False),
        ("1", None),
        ("?2", None),
        ("true", None),
        ("", None),
    ],
)
def test_a_boolean(text: str, value: bool | None) -> None:
    """RFC 9651, 3.3.6; "other values MUST cause the entire header field to be ignored"."""
    assert asked(Upload_Complete=text).complete is value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("100", 100), ("7;x", 7), ("-1", None), ("1.5", None), ("1e3", None), ("9" * 16, None), ("", None)],
)
def test_an_integer(text: str, value: int | None) -> None:
    """RFC 9651, 3.3.1, at most 15 digits, and not negative here."""
    assert (asked(Upload_Offset=text).offset, asked(Upload_Length=text).length) == (value, value)


def test_version_3_says_the_opposite() -> None:
    """``Upload-Incomplete`` in requests and answers; an append without it is the last (draft -01, 4.4)."""
    assert asked(3, Upload_Incomplete="?0").complete is True
    assert asked(3, Upload_Incomplete="?1").complete is False
    assert asked(3, Upload_Complete="?1").complete is None
    assert upload_draft.completeness(3, True) == {"Upload-Incomplete": "?0"}
    assert upload_draft.appending(asked(3, Upload_Offset="4"), "") == (4, True)


@pytest.mark.parametrize("version", [4, 5, 6, 7, 8])
def test_completeness(version: int) -> None:
    """``Upload-Complete`` since version 4; an append must have it."""
    assert upload_draft.completeness(version, False) == {"Upload-Complete": "?0"}
    with pytest.raises(BadRequest):
        upload_draft.appending(asked(version, Upload_Offset="4"), upload_draft.CONTENT_TYPE)


def test_the_type_of_an_append() -> None:
    """application/partial-upload since version 6 (draft -04), whatever before."""
    fields = {"Upload_Offset": "1", "Upload_Complete": "?0"}
    for version in (3, 4, 5):
        assert upload_draft.appending(asked(version, Upload_Incomplete="?1", **fields), "text/plain") == (1, False)
    for version in (6, 7, 8):
        assert upload_draft.appending(asked(version, **fields), "application/partial-upload") == (1, False)
        with pytest.raises(UnsupportedType):
            upload_draft.appending(asked(version, **fields), "text/plain")


@pytest.mark.parametrize(
    ("said", "offset", "content", "complete", "known", "length"),
    [
        (None, 0, 10, True, None, 10),
        (None, 5, 10, True, None, 15),
        (15, 5, 10, True, 15, 15),
        (None, 5, 10, False, None, None),
        (20, 5, 10, False, None, 20),
        (None, 5, 10, False, 20, 20),
        (None, 5, None, True, None, None),
        (20, 5, None, True, None, 20),
    ],
)
def test_lengths_that_agree(
    said: int | None, offset: int, content: int | None, complete: bool, known: int | None, length: int | None
) -> None:
    """Section "Length": the field, or the offset and the content of the request that completes it."""
    request = asked(Upload_Length=str(said)) if said is not None else asked()
    assert upload_draft.length(request, offset, content, complete, known) == length


@pytest.mark.parametrize(
    ("said", "offset", "content", "complete", "known"),
    [
        (9, 0, 10, True, None),
        (11, 0, 10, True, None),
        (20, 0, 5, False, 21),
        (None, 5, 10, True, 16),
        (12, 5, 10, False, None),
    ],
)
def test_lengths_that_do_not_agree(
    said: int | None, offset: int, content: int | None, complete: bool, known: int | None
) -> None:
    """A 400 of the type inconsistent-upload-length; so is content that goes beyond the length."""
    request = asked(Upload_Length=str(said)) if said is not None else asked()
    with pytest.raises(Problem) as refused:
        upload_draft.length(request, offset, content, complete, known)
    assert refused.value.status == 400
    assert refused.value.type == "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"


def test_a_mismatch_says_both_offsets() -> None:
    """Section "Mismatching Offset": 409, the right offset, and both as members."""
    problem = upload_draft.mismatch(asked(), 12500000, 25000000)
    assert problem.status == 409
    assert problem.type == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
    assert problem.headers == {"Upload-Offset": "12500000", "Upload-Complete": "?0"}
    assert problem.members == {"expected-offset": 12500000, "provided-offset": 25000000}


@pytest.mark.parametrize(
    ("version", "limits"), [(6, "max-size=9, expires=60"), (7, "max-size=9, max-age=60"), (8, "max-size=9, max-age=60")]
)
def test_limits(version: int, limits: str) -> None:
    """``expires`` was renamed to ``max-age`` after draft -05."""
    assert upload_draft.limit(version, 9, 60.9) == {"Upload-Limit": limits}


def test_an_interim_answer_is_http() -> None:
    """A parser that is not ours reads it as what it is, between nothing and the final answer."""
    wire = upload_draft.interim(asked(7), {"Location": "/api/uploads/x", "Upload-Limit": "max-size=1"})
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire + b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    interim, final = client.next_event(), client.next_event()
    assert isinstance(interim, h11.InformationalResponse)
    assert interim.status_code == 104
    assert (b"upload-draft-interop-version", b"7") in interim.headers
    assert (b"location", b"/api/uploads/x") in interim.headers
    assert isinstance(final, h11.Response)


def test_whose_request_it_is() -> None:
    """tus names its version in each request; the draft's creation has a field of its own."""
    assert upload_draft.creates({"upload-complete": "?1"})
    assert upload_draft.creates({"upload-incomplete": "?0"})
    assert not upload_draft.creates({"upload-length": "1"})
    assert not upload_draft.creates({"upload-complete": "?1", "tus-resumable": "1.0.0"})
    assert upload_draft.appends({"content-type": "application/partial-upload"})
    assert not upload_draft.appends({"content-type": "application/offset+octet-stream"})
