"""A moment of ``make fuzz``: each parser takes or refuses some dozens of inputs that resemble what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import artefacts
from tests.fuzz.imagination import Found, imagine
from tests.fuzz.parsers import PARSERS, Parser


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_from_outside_is_too_strange(name: str) -> None:
    """It is taken or refused with the errors that the parser names, wherever it was cut."""
    assert imagine(name, PARSERS[name], 0.0, least=12) >= 12


def test_whatever_libfuzzer_leaves_is_a_finding(tmp_path: Path) -> None:
    """What raises, and what takes too long or too much: told with its input. Its corpus is none."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "0").write_bytes(b"a seed")
    for kind in ("crash", "timeout", "oom", "slow-unit"):
        (tmp_path / f"{kind}-0123abcd").write_bytes(kind.encode())
    found = {each.data.decode(): str(each) for each in artefacts("range", tmp_path)}
    assert set(found) == {"crash", "timeout", "oom", "slow-unit"}
    assert "not raised again" in found["crash"]
    for kind in ("timeout", "oom", "slow-unit"):
        assert f"TooMuch: {kind}" in found[kind]
        assert f"--replay 'range' {kind.encode().hex()}" in found[kind]


def test_what_is_found_replays() -> None:
    """A parser that stumbles is found, with the smallest input that it stumbles over."""

    def stumbles(data: bytes) -> None:
        if b"\xff" in data:
            raise ZeroDivisionError

    with pytest.raises(Found, match=r"ff$") as found:
        imagine("stumbles", Parser(stumbles, (b"a", b"\xfe")), 0.0, least=1500)
    assert found.value.data == b"\xff"
