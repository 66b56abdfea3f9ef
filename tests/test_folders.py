"""A folder's listing: every regular file once, page by page, and nothing that cannot be had."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.folders import list_below


def names(root: Path, after: str = "", limit: int = 1000) -> list[str]:
    return [entry.path for entry in list_below(root, after, limit)]


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_what_can_be_had_is_listed(tmp_path: Path) -> None:
    """Regular files below the folder; no hidden ones, no links, no other kinds, no names that no URL can say."""
    fill(tmp_path, "a.txt", "b/c.txt", "b/d/e.txt", ".env", "b/.hidden/f", "ü – 川.txt")
    (tmp_path / "link").symlink_to("a.txt")
    (tmp_path / "folder-link").symlink_to("b")
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    with socket.socket(socket.AF_UNIX) as listener, chdir(tmp_path):
        listener.bind("socket")
    assert names(tmp_path) == ["a.txt", "b/c.txt", "b/d/e.txt", "ü – 川.txt"]


def test_an_entry_tells_size_and_time(tmp_path: Path) -> None:
    """In bytes, and in nanoseconds since 1970."""
    fill(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", ns=(1, 1_700_000_000_000_000_001))
    (entry,) = list_below(tmp_path, "", 1)
    assert (entry.path, entry.size, entry.modified_ns) == ("a.txt", 5, 1_700_000_000_000_000_001)


def test_it_goes_on_after_what_has_gone(tmp_path: Path) -> None:
    """A name that was deleted, or became a folder or a file meanwhile, is still a place in the order."""
    fill(tmp_path, "a", "c/1", "c/3", "d")
    assert names(tmp_path, "b") == ["c/1", "c/3", "d"]
    assert names(tmp_path, "c/2") == ["c/3", "d"]
    assert names(tmp_path, "a/x/y") == ["c/1", "c/3", "d"]
    assert names(tmp_path, "c") == ["c/1", "c/3", "d"]
    assert names(tmp_path, "d") == []
    assert names(tmp_path, "../..") == ["a", "c/1", "c/3", "d"]
    assert names(tmp_path, "\udcff\0") == []


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    """What is in it cannot be had either."""
    fill(tmp_path, "a", "b/1", "c")
    (tmp_path / "b").chmod(0)
    try:
        if os.access(tmp_path / "b", os.R_OK):
            pytest.skip("root reads everything")
        assert names(tmp_path) == ["a", "c"]
    finally:
        (tmp_path / "b").chmod(0o755)


segment = st.text("ab-.é", min_size=1, max_size=3).filter(lambda name: not name.startswith("."))
trees = st.lists(st.lists(segment, min_size=1, max_size=3), max_size=12)


@given(trees, st.integers(1, 4))
def test_pages_make_up_the_whole(tree: list[list[str]], limit: int) -> None:
    """However large the pages: every file once, in the order of its path's names."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path in tree:
            try:
                fill(root, "/".join(path))
            except OSError:
                continue  # a file stands where the folder should be, or the other way round
        files = [path.relative_to(root).parts for path in root.rglob("*") if path.is_file()]
        expected = ["/".join(parts) for parts in sorted(files)]
        found: list[str] = []
        while page := names(root, found[-1] if found else "", limit):
            assert len(page) <= limit
            found += page
        assert found == expected
