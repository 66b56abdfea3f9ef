"""Uploaded files: a name for each, none before it is whole, and nothing left of those that failed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from settings import ROOT
from stores.bodies import Uploads
from stores.errors import StoreError, StoreFull
from stores.uploads import FileUploads


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def uploads(root: Path) -> Iterator[Uploads]:
    uploads = FileUploads(root)
    yield uploads
    uploads.dispose()


def store(uploads: Uploads, name: str, *pieces: bytes) -> str:
    part = uploads.begin()
    for piece in pieces:
        part.write(piece)
    return part.finish(name)


def there(root: Path) -> dict[str, bytes]:
    """All that lies in the folder, hidden names too."""
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_a_part_is_seen_when_it_is_whole(uploads: Uploads, root: Path) -> None:
    """Until then it has a hidden name, which is never served; its size is what was written."""
    part = uploads.begin()
    part.write(b"abc")
    part.write(b"")
    part.write(b"def")
    assert part.size == 6
    assert all(name.startswith(".") for name in there(root))
    assert part.finish("a.txt") == "a.txt"
    assert there(root) == {"a.txt": b"abcdef"}
    part.discard()
    assert there(root) == {"a.txt": b"abcdef"}


def test_a_discarded_part_leaves_nothing(uploads: Uploads, root: Path) -> None:
    """Once or often."""
    part = uploads.begin()
    part.write(b"x" * 10**6)
    part.discard()
    part.discard()
    assert there(root) == {}


@pytest.mark.parametrize(
    ("name", "second", "third"),
    [
        ("a.txt", "a (2).txt", "a (3).txt"),
        ("a", "a (2)", "a (3)"),
        ("a.b.c", "a.b (2).c", "a.b (3).c"),
        ("a.", "a. (2)", "a. (3)"),
        ("x (2).txt", "x (2) (2).txt", "x (2) (3).txt"),
        ("日本.csv", "日本 (2).csv", "日本 (3).csv"),
    ],
)
def test_a_name_that_exists_gets_a_number(uploads: Uploads, root: Path, name: str, second: str, third: str) -> None:
    """No file is ever overwritten; the number stands before the suffix."""
    assert [store(uploads, name, text) for text in (b"1", b"2", b"3")] == [name, second, third]
    assert there(root) == {name: b"1", second: b"2", third: b"3"}


def test_a_name_at_its_bound_can_get_a_number(uploads: Uploads, root: Path) -> None:
    """200 bytes, which the route allows, leave room for it in the 255 of a file system."""
    name = "é" * 98 + ".txt"
    assert len(name.encode()) == 200
    assert len({store(uploads, name, b"x") for _ in range(12)}) == 12


def test_what_holds_the_name_may_be_anything(uploads: Uploads, root: Path) -> None:
    """A folder or a dangling link of that name is not replaced either."""
    (root / "folder").mkdir()
    (root / "link").symlink_to("nowhere")
    assert store(uploads, "folder", b"x") == "folder (2)"
    assert store(uploads, "link", b"x") == "link (2)"
    assert not (root / "nowhere").exists()


def test_many_that_finish_together_get_a_name_each(uploads: Uploads, root: Path) -> None:
    """At the same moment, with the same name: each keeps its own bytes."""
    bodies = [b"%d" % n * 1000 for n in range(20)]
    jobs = [gevent.spawn(store, uploads, "same.txt", body) for body in bodies]
    gevent.joinall(jobs, raise_error=True)
    names = [job.value for job in jobs]
    assert sorted(names) == sorted(["same.txt", *(f"same ({n}).txt" for n in range(2, 21))])
    assert there(root) == dict(zip(names, bodies, strict=True))


def test_processes_that_finish_together_get_a_name_each(root: Path) -> None:
    """Workers share the folder and nothing else."""
    code = """
        import sys
        from pathlib import Path
        from stores.uploads import FileUploads
        uploads = FileUploads(Path(sys.argv[1]))
        for n in range(10):
            part = uploads.begin()
            part.write(f"{sys.argv[2]} {n}".encode())
            part.finish("same.txt")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(root)]
    children = [subprocess.Popen([*command, str(n)], cwd=ROOT) for n in range(3)]
    assert [child.wait(30) for child in children] == [0, 0, 0]
    assert sorted(there(root).values()) == sorted(b"%d %d" % (a, b) for a in range(3) for b in range(10))


def test_another_greenlet_runs_while_a_part_is_written(uploads: Uploads) -> None:
    """The disk is waited for in a thread."""
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.001)

    ticker = gevent.spawn(tick)
    store(uploads, "a", *[b"x" * 2**20] * 20)
    ticker.kill()
    assert len(ticks) > 5


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_full_disk_is_store_full_and_leaves_nothing(root: Path, limit: int) -> None:
    """Also where the last write takes a part of what it was given: no shorter file is ever finished."""
    code = """
        import resource, sys
        from pathlib import Path
        from stores.errors import StoreFull
        from stores.uploads import FileUploads
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        part = FileUploads(Path(sys.argv[1])).begin()
        try:
            part.write(b"a" * 900)
            part.write(b"b" * 900)
        except StoreFull as error:
            print("full:", error)
        part.discard()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(root), str(limit)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.startswith("full: ")
    assert there(root) == {}


def test_a_file_system_without_space(tmp_path: Path) -> None:
    """A real one, of 64 KiB: StoreFull, and after discard there is room again; without a free inode, too."""
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "none", str(mount)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    uploads = FileUploads(mount)
    parts = [uploads.begin()]
    try:
        with pytest.raises(StoreFull):
            parts[0].write(b"x" * 100_000)
        parts[0].discard()
        assert there(mount) == {}
        assert store(uploads, "a", b"x" * 1000) == "a"
        with pytest.raises(StoreFull):
            parts.extend(uploads.begin() for _ in range(5))
    finally:
        for part in parts:
            part.discard()
        uploads.dispose()
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_folder_that_is_gone_is_a_store_error(uploads: Uploads, root: Path) -> None:
    """A disk that was unmounted is the store's failure, and told as one."""
    root.rmdir()
    with pytest.raises(StoreError):
        uploads.begin()


def test_a_part_that_was_swept_is_a_store_error(uploads: Uploads, root: Path) -> None:
    """What cannot be given its name any more is no success."""
    part = uploads.begin()
    part.write(b"x")
    for path in root.iterdir():
        path.unlink()
    with pytest.raises(StoreError):
        part.finish("a")
    part.discard()
    assert there(root) == {}


def test_sweep_takes_what_was_left_behind(uploads: Uploads, root: Path) -> None:
    """Parts that nobody wrote to for the time given; neither younger ones nor finished files, however old."""
    store(uploads, "finished", b"x")
    young = uploads.begin()
    (root / ".part-dead").write_bytes(b"left by a killed process")
    (root / ".other").write_bytes(b"not ours")
    for name in (".part-dead", "finished", ".other"):
        os.utime(root / name, (time.time() - 1000, time.time() - 1000))
    assert uploads.sweep(500) == 1
    assert set(there(root)) == {"finished", ".other", young._path.name}  # type: ignore[attr-defined]
    young.write(b"y")
    assert young.finish("young") == "young"


def test_a_clock_that_is_set_sweeps_nothing_away(uploads: Uploads, root: Path) -> None:
    """A part looks as old as the step forward until its next write: what somebody works on stays."""
    part = uploads.begin()
    part.write(b"a")
    os.utime(root / part._path.name, (0, 0))  # type: ignore[attr-defined]
    assert uploads.sweep(500) == 0
    part.write(b"b")
    assert part.finish("ab") == "ab"
    assert there(root) == {"ab": b"ab"}


def test_a_finished_file_is_read_by_others(uploads: Uploads, root: Path) -> None:
    """A web server beside this one may serve it: no owner-only mode."""
    store(uploads, "a", b"x")
    assert (root / "a").stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert (root / "a").stat().st_nlink == 1


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("taken", [1, 2, 3, 4, 5, 63, 64, 65, 1000])
def test_the_next_of_many_names_is_found_by_looking_at_few(
    uploads: Uploads, root: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """The thousandth file of one name tries no thousand: it took a second, and left its worker as much to collect."""
    for number in range(1, taken + 1):
        (root / ("a.txt" if number == 1 else f"a ({number}).txt")).touch()
    looked: list[object] = []
    exists, link = os.path.lexists, os.link
    monkeypatch.setattr(os.path, "lexists", lambda path: looked.append(path) or exists(path))
    monkeypatch.setattr(os, "link", lambda *paths: looked.append(paths) or link(*paths))
    assert store(uploads, "a.txt", b"x") == f"a ({taken + 1}).txt"
    assert len(looked) < 25


def test_a_name_that_is_taken_meanwhile_is_passed_over(
    uploads: Uploads, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the link another worker was quicker."""
    (root / "a").touch()
    link = os.link

    def raced(source: Path, name: Path) -> None:
        if name.name == "a (2)":
            name.touch()
        link(source, name)

    monkeypatch.setattr(os, "link", raced)
    assert store(uploads, "a", b"x") == "a (3)"


def test_what_fails_in_a_thread_leaves_nothing_to_collect(uploads: Uploads, root: Path) -> None:
    """A name that was taken is no garbage: with thousands of uploads that held up their worker."""
    store(uploads, "a", b"x")
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            store(uploads, "a", b"x")
        assert gc.collect() < 20
    finally:
        gc.enable()
