"""Repr-Digest: who wants it, and that it is that of the file as it is."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from streaming import fingerprints
from streaming.fingerprints import Fingerprints, wants_sha256


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        # RFC 9530, 4: the integer weighs from 1 to 10, 0 is "not acceptable".
        ("sha-256=1", True),
        ("sha-256=10", True),
        ("sha-512=3, sha-256=10, unixsum=0", True),
        ("sha-256=0", False),
        ("sha-256=11", False),
        ("sha-256=-1", False),
        ("sha-512=3", False),
        ("", False),
        # RFC 8941: of two members of a name the last counts; a key alone is a Boolean; parameters may follow.
        ("sha-256=1, sha-256=0", False),
        ("sha-256=0,sha-256=5", True),
        ("sha-256", False),
        ("sha-256=5;q=1", True),
        # 4.2: what cannot be parsed is ignored as a whole.
        ("sha-256=1,", False),
        ("SHA-256=1", False),
        ("sha-256=1 sha-512=1", False),
        ("sha-256 = 1", False),
    ],
)
def test_who_wants_a_digest(field: str, wanted: bool) -> None:
    """A dictionary that accepts sha-256."""
    assert wants_sha256(field) == wanted


def expected(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    """Also of an empty one, of one larger than a block, and again after a rewrite of the same size."""
    kept = Fingerprints()
    for second, content in enumerate((b"", os.urandom(3 * 2**20 + 1), b"a", b"b")):
        path = tmp_path / "file"
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, (second, second))
        with path.open("rb") as file:
            assert kept.repr_digest(file.fileno()) == expected(content)


def test_the_digest_of_the_rfc(tmp_path: Path) -> None:
    """RFC 9530, appendix B.1: the JSON object and its line end."""
    path = tmp_path / "file"
    path.write_bytes(b'{"hello": "world"}\n')
    with path.open("rb") as file:
        digest = Fingerprints().repr_digest(file.fileno())
    assert digest == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_it_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same state of a file the second answer reads nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    kept = Fingerprints()
    with path.open("rb") as file:
        first = kept.repr_digest(file.fileno())
        monkeypatch.setattr(fingerprints, "_sha256", None)
        assert kept.repr_digest(file.fileno()) == first


def test_a_file_that_changes_meanwhile_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest of bytes that never stood together would be a lie, and is not kept either."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    kept = Fingerprints()
    sha256 = fingerprints._sha256

    def change_and_compute(file: int, size: int) -> bytes | None:
        path.write_bytes(b"behind!")
        return sha256(file, size)

    with path.open("rb") as file:
        monkeypatch.setattr(fingerprints, "_sha256", change_and_compute)
        assert kept.repr_digest(file.fileno()) is None
        monkeypatch.setattr(fingerprints, "_sha256", sha256)
        assert kept.repr_digest(file.fileno()) == expected(b"behind!")


def test_a_bounded_number_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones asked for last."""
    monkeypatch.setattr(fingerprints, "KEPT", 2)
    kept = Fingerprints()
    for name in ("a", "b", "a", "c"):
        (tmp_path / name).touch()
        with (tmp_path / name).open("rb") as file:
            kept.repr_digest(file.fileno())
    assert len(kept._kept) == 2
