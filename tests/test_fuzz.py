"""A moment of ``make fuzz``: each parser takes or refuses some dozens of inputs that resemble what it takes."""

from __future__ import annotations

import pytest

from tests.fuzz.imagination import Found, imagine
from tests.fuzz.parsers import PARSERS, Parser


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_from_outside_is_too_strange(name: str) -> None:
    """It is taken or refused with the errors that the parser names, wherever it was cut."""
    assert imagine(name, PARSERS[name], 0.0, least=12) >= 12


def test_what_is_found_replays() -> None:
    """A parser that stumbles is found, with the smallest input that it stumbles over."""

    def stumbles(data: bytes) -> None:
        if b"\xff" in data:
            raise ZeroDivisionError

    with pytest.raises(Found, match=r"ff$") as found:
        imagine("stumbles", Parser(stumbles, (b"a", b"\xfe")), 0.0, least=1500)
    assert found.value.data == b"\xff"
