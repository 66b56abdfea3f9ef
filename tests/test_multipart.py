"""The file in a form, however the form arrives (RFC 7578, RFC 2046)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import BadRequest, TooLarge
from streaming.multipart import FormFile

BOUNDARY = b"AaB03x"
# Holds what looks like a delimiter and is none, and ends in a line end of its own.
CONTENT = b"\r\n--AaB03\r\n--AaB03\n\0\xff--\r\n-\r\n"
FORM = (
    b"--AaB03x\r\n"
    b'content-disposition: form-data; name="field1"\r\n\r\n'
    b"Joe Blow\r\n"
    b"--AaB03x\r\n"
    b'content-disposition: form-data; name="pics"; filename="file1.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\n" + CONTENT + b"\r\n"
    b"--AaB03x\r\n"
    b'content-disposition: form-data; name="after"\r\n\r\n'
    b"more\r\n"
    b"--AaB03x--\r\n"
)


def form(disposition: bytes, content: bytes = b"x") -> bytes:
    head = b"--AaB03x\r\nContent-Disposition: form-data; name=f; " + disposition + b"\r\n\r\n"
    return head + content + b"\r\n--AaB03x--\r\n"


def read(pieces: Iterable[bytes], boundary: bytes = BOUNDARY) -> tuple[str, bytes]:
    file = FormFile(iter(pieces), boundary)
    content = b"".join(file)
    return file.filename, content


def each_byte(data: bytes) -> Iterable[bytes]:
    return (data[n : n + 1] for n in range(len(data)))


def test_the_file_is_found_among_the_fields() -> None:
    """Whole, and byte by byte: its name and its bytes, and nothing of the fields around it."""
    assert read([FORM]) == ("file1.txt", CONTENT)
    assert read(each_byte(FORM)) == ("file1.txt", CONTENT)


def test_a_line_end_is_one_wherever_it_is_cut() -> None:
    """Also behind a bare CR, which no RFC knows: what is taken for the content does not depend on a cut."""
    strange = form(b'filename="a"', b"content").replace(b"\r\n\r\n", b"\r\r\n")
    assert read([strange]) == read(each_byte(strange)) == ("a", b"content")
    early = form(b'filename="a"', b"--AaB03x--more")
    assert read([early]) == read(each_byte(early)) == ("a", b"")


@given(st.lists(st.integers(0, len(FORM)), max_size=8))
def test_the_file_is_found_at_any_cuts(cuts: list[int]) -> None:
    """A delimiter, a header or a line end may be cut anywhere."""
    places = [0, *sorted(cuts), len(FORM)]
    assert read(FORM[a:b] for a, b in pairwise(places)) == ("file1.txt", CONTENT)


# What looks like the beginning of a boundary, and what a boundary's line is made of.
PIECES = st.sampled_from([b"\r", b"\n", b"-", b"--", b"--AaB03", b"--AaB03X", b"\r\n--", b" ", b"x", BOUNDARY])


@given(st.one_of(st.binary(max_size=300), st.lists(PIECES).map(b"".join)), st.integers(1, 50))
def test_any_content_comes_through(content: bytes, size: int) -> None:
    """Whatever the bytes, but for the boundary itself, which a client chooses so that it is not in them."""
    body = form(b'filename="a"', content)
    if b"--" + BOUNDARY not in content:
        assert read(body[at : at + size] for at in range(0, len(body), size)) == ("a", content)


@pytest.mark.parametrize("end", [b"--", b"--\r\n", b"--  \r\n", b"  \r\n"])
@pytest.mark.parametrize("content", [b"", b"x", b"\r", b"\r\n", b"x" * 5000])
def test_no_byte_of_a_boundary_is_content(content: bytes, end: bytes) -> None:
    """The file's last byte is its last byte, wherever the line of the boundary is cut, padded or not."""
    head = b'--AaB03x\r\nContent-Disposition: form-data; name=f; filename="a"\r\n\r\n'
    if end == b"  \r\n":
        end += b"Content-Disposition: form-data; name=g\r\n\r\nfield\r\n--AaB03x--\r\n"
    body = head + content + b"\r\n--AaB03x" + end
    for cut in range(len(head), len(body) + 1):
        assert read([body[:cut], body[cut:]]) == ("a", content)


def test_what_surrounds_the_form_is_read_over() -> None:
    """A preamble and an epilogue are ignored (RFC 2046, 5.1.1), and the body is read to its end."""
    taken = []

    def pieces() -> Iterable[bytes]:
        for piece in (b"preamble\r\n", FORM, b"epilogue ", b"--AaB03x\r\n", b"more"):
            taken.append(piece)
            yield piece

    assert read(pieces()) == ("file1.txt", CONTENT)
    assert len(taken) == 5


def test_an_empty_file_is_a_file() -> None:
    """Its name counts."""
    assert read([form(b'filename="empty.txt"', b"")]) == ("empty.txt", b"")


def test_a_large_file_passes_in_pieces() -> None:
    """No piece is larger than what was sent, and nothing is kept: memory does not grow with the file."""
    block = b"0123456789abcdef" * 4096
    head, _, tail = form(b'filename="big"', b"@").partition(b"@")
    pieces = list(FormFile(iter([head, *[block] * 160, tail]), BOUNDARY))
    assert b"".join(pieces) == block * 160
    assert max(map(len, pieces)) <= len(block) + 100


@pytest.mark.parametrize(
    "body",
    [
        b"--AaB03x--\r\n",
        b'--AaB03x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--AaB03x--\r\n',
        form(b"x=y"),
    ],
    ids=["nothing", "a field", "no filename"],
)
def test_a_form_without_a_file(body: bytes) -> None:
    """It is told, and no field is taken for a file."""
    with pytest.raises(BadRequest, match="no file"):
        read([body])


def test_a_form_with_two_files() -> None:
    """The second one is refused, before any of its bytes comes."""
    two = (
        form(b'filename="1"', b"one").removesuffix(b"--\r\n")
        + b"\r\n"
        + form(b'filename="2"', b"two").split(b"\r\n", 1)[1]
    )
    pieces: list[bytes] = []
    with pytest.raises(BadRequest, match="more than one file"):
        pieces.extend(FormFile(iter([two]), BOUNDARY))
    assert b"".join(pieces) == b"one"


def test_a_form_that_is_cut_off() -> None:
    """At no place is it taken for a whole one, up to the hyphens that say the end."""
    end = FORM.rindex(b"--AaB03x--") + len(b"--AaB03x--")
    for length in range(end - 1):
        for pieces in ([FORM[:length]], each_byte(FORM[:length])):
            with pytest.raises(BadRequest):
                read(pieces)


@pytest.mark.parametrize(
    "body",
    [b"", b"no form at all", b"--Other\r\n\r\n\r\n--Other--\r\n", b"--AaB03x\r\n\r\nno headers\r\n--AaB03x--\r\n"],
)
def test_what_is_no_form(body: bytes) -> None:
    """It is a BadRequest with a sentence, and nobody else's exception."""
    with pytest.raises(BadRequest):
        read([body])
    with pytest.raises(BadRequest):
        read(each_byte(body))


def test_the_fields_are_kept_where_they_are_asked_for() -> None:
    """Those before the file are known with its first piece; a name may come often; without a file they are all."""
    for pieces in ([FORM], each_byte(FORM)):
        file = FormFile(iter(pieces), BOUNDARY, fields_bytes=1000)
        content = iter(file)
        assert CONTENT.startswith(next(content))
        assert file.fields == {"field1": ["Joe Blow"]}
        b"".join(content)
        assert file.fields == {"field1": ["Joe Blow"], "after": ["more"]}
    two = b'--AaB03x\r\nContent-Disposition: form-data; name="a"\r\n\r\n%b\r\n'
    file = FormFile(iter([two % b"1" + two % b"" + b"--AaB03x--\r\n"]), BOUNDARY, 1000, required=False)
    assert list(file) == []
    assert file.fields == {"a": ["1", ""]}


@pytest.mark.parametrize("field", [b"x" * 1001, b"", b"\xff"], ids=["long", "many", "no UTF-8"])
def test_fields_are_bounded(field: bytes) -> None:
    """By all that is kept of them, and by their number; what is no UTF-8 is refused."""
    one = b'--AaB03x\r\nContent-Disposition: form-data; name="a"\r\n\r\n%b\r\n' % field
    file = FormFile(iter([one * (20 if not field else 1) + b"--AaB03x--\r\n"]), BOUNDARY, 1000, required=False)
    with pytest.raises((TooLarge, BadRequest)):
        assert [*file, file.fields] == []


def test_a_header_without_end() -> None:
    """It is given up before it takes memory."""

    def pieces() -> Iterable[bytes]:
        yield b"--AaB03x\r\nContent-Disposition: form-data; filename=a; x="
        for _ in range(100):
            yield b"x" * 2**16
        raise AssertionError("all of it was read")

    with pytest.raises(TooLarge):
        read(pieces())


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (b'filename="a b.txt"', "a b.txt"),
        (b"filename=a.txt", "a.txt"),
        (b'filename="../../etc/passwd"', "../../etc/passwd"),
        (b'filename="C:\\\\x\\\\y.txt"', "C:\\x\\y.txt"),
        ('filename="日本 🙂.txt"'.encode(), "日本 🙂.txt"),  # browsers send UTF-8 as it is (RFC 7578, 4.2)
        (b"filename*=UTF-8''%e2%82%ac%20rates", "€ rates"),
        (b'filename="a%22b.txt"', 'a"b.txt'),  # HTML, multipart/form-data encoding: browsers escape as %22
        (b'filename=""', ""),
    ],
)
def test_a_filename_comes_as_it_was_given(disposition: bytes, filename: str) -> None:
    """Also an evil one: what may be a name is decided where it becomes one."""
    assert read([form(disposition)]) == (filename, b"x")


@pytest.mark.parametrize(
    "disposition", [b'filename="\xff\xfe.txt"', b"filename*=UTF-8''%ff", b"filename*=x", b'filename="a']
)
def test_a_filename_that_cannot_be_read_harms_nothing(disposition: bytes) -> None:
    """The content is right, or the form is refused."""
    with contextlib.suppress(BadRequest):
        assert read([form(disposition)])[1] == b"x"
