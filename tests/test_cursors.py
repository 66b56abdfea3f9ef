"""Parameters with their bounds, and the cursor of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from streaming.cursors import Parameters, last_event_id
from streaming.errors import BadRequest

app = Flask(__name__)


def asked(query: str, read: Callable[[Parameters], object]) -> object:
    with app.test_request_context("/?" + query):
        return read(Parameters("n"))


def integer(query: str) -> object:
    return asked(query, lambda it: it.integer("n", 7, -5, 100))


def number(query: str) -> object:
    return asked(query, lambda it: it.number("n", 0.5, 0, 60))


@pytest.mark.parametrize(
    ("query", "value"), [("", 7), ("n=0", 0), ("n=-5", -5), ("n=100", 100), ("n=007", 7), ("n=-0", 0)]
)
def test_a_whole_number(query: str, value: int) -> None:
    """Bounds belong to the range; without the parameter its default holds."""
    assert integer(query) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-6",
        "101",
        "1.0",
        "1e1",
        " 1",
        "1 ",
        "+1",
        "1_0",
        "٣",
        "１",
        "0x1",
        "--1",
        "1\n",
        "\0",
        "9" * 10_000,
        "NaN",
        "½",
    ],
)
def test_what_is_no_whole_number_in_bounds(text: str) -> None:
    """Everything else is a BadRequest that names the parameter, and does not take long to find."""
    with pytest.raises(BadRequest) as raised:
        integer("n=" + quote(text))
    assert raised.value.parameter == "n"
    assert "n must be a whole number from -5 to 100" in raised.value.detail
    assert len(raised.value.detail) < 200


@pytest.mark.parametrize(
    ("query", "value"), [("", 0.5), ("n=0", 0.0), ("n=60", 60.0), ("n=.5", 0.5), ("n=2.", 2.0), ("n=0.000000001", 1e-9)]
)
def test_a_number(query: str, value: float) -> None:
    """Decimal notation, bounds included."""
    assert number(query) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "-1", "60.1", "nan", "inf", "-inf", "1e1", "1,5", "1_0", " 1", "+1", "٣.٥", "0x1", "1" * 10, "1\n", "\0"],
)
def test_what_is_no_number_in_bounds(text: str) -> None:
    """No infinity, no NaN (which no comparison would stop), no exponent."""
    with pytest.raises(BadRequest) as raised:
        number("n=" + quote(text))
    assert raised.value.parameter == "n"


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Nothing but BadRequest comes of it, and what comes is within bounds."""
    query = "n=" + quote(text, errors="replace")
    for read, least, most in ((integer, -5, 100), (number, 0, 60)):
        with contextlib.suppress(BadRequest):
            value = read(query)
            assert isinstance(value, int | float)
            assert least <= value <= most


@pytest.mark.parametrize(
    ("query", "name"), [("n=1&n=1", "n"), ("n=1&m=2", "m"), ("M=", "M"), ("N=1", "N"), ("=1", ""), ("%00=1", "\0")]
)
def test_unknown_or_twice_is_refused(query: str, name: str) -> None:
    """The name is told, and those that are known."""
    with pytest.raises(BadRequest) as raised:
        asked(query, lambda it: it)
    assert raised.value.parameter == name


def test_an_optional_number_may_be_absent() -> None:
    """None is not zero."""
    read = lambda it: it.optional_integer("n", 0, 5)  # noqa: E731  # one line, used three times
    assert asked("", read) is None
    assert asked("n=0", read) == 0
    with pytest.raises(BadRequest):
        asked("n=", read)


@pytest.mark.parametrize(("query", "value"), [("", False), ("n=0", False), ("n=1", True)])
def test_a_flag(query: str, value: bool) -> None:
    """0 or 1."""
    assert asked(query, lambda it: it.flag("n")) is value


@pytest.mark.parametrize("text", ["", "2", "true", "on", "01", "1\n"])
def test_what_is_no_flag(text: str) -> None:
    """Nothing else."""
    with pytest.raises(BadRequest, match="0, 1"):
        asked("n=" + quote(text), lambda it: it.flag("n"))


def test_a_text_matches_all_of_its_pattern() -> None:
    """A line end at the end of it does not pass, as it would with ``$``."""
    read = lambda it: it.text("n", "none", "[a-z]{1,3}", "1 to 3 letters")  # noqa: E731  # one line, used often
    assert asked("", read) == "none"
    assert asked("n=abc", read) == "abc"
    for text in ("", "abcd", "a%0A", "A", "%00", "ä"):
        with pytest.raises(BadRequest, match="1 to 3 letters"):
            asked("n=" + text, read)


@pytest.mark.parametrize("text", ["", "a", "42", "é", "日本語 🙂", " x", "a:b"])
def test_a_last_event_id_comes_as_utf_8(text: str) -> None:
    """WSGI shows the header's bytes as Latin-1 (PEP 3333); browsers send UTF-8."""
    header = text.encode().decode("latin-1")
    with app.test_request_context("/", environ_overrides={"HTTP_LAST_EVENT_ID": header}):
        assert last_event_id() == text


def test_a_last_event_id_is_never_a_failure() -> None:
    """Bytes that are no UTF-8 are a cursor that nobody knows, and no more than that."""
    with app.test_request_context("/", environ_overrides={"HTTP_LAST_EVENT_ID": "\xff\xc3"}):
        assert last_event_id() == "\ufffd\ufffd"
    with app.test_request_context("/"):
        assert last_event_id() == ""


@pytest.mark.parametrize(
    ("query", "values"),
    [("", ["a"]), ("n=b", ["b"]), ("n=b,a", ["b", "a"]), ("n=a,a", ["a", "a"]), ("n=a%2Cb", ["a", "b"])],
)
def test_a_sequence(query: str, values: list[str]) -> None:
    """In the order given, also twice: it says what is done one after the other."""
    assert asked(query, lambda it: it.sequence("n", "a", ("a", "b"), 3)) == values


@pytest.mark.parametrize("text", ["", ",", "a,", "c", "a,c", "A", "a b", "a,b,a,b", "a," * 10_000])
def test_what_is_no_sequence(text: str) -> None:
    """An unknown value, an empty one and one too many are a BadRequest that names the parameter."""
    with pytest.raises(BadRequest) as raised:
        asked("n=" + quote(text), lambda it: it.sequence("n", "a", ("a", "b"), 3))
    assert raised.value.parameter == "n"
    assert len(raised.value.detail) < 200
