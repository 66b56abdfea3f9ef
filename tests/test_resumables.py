"""Uploads in several requests, as they lie on the disk: their lock, offset and end, and what a crash leaves."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from settings import ROOT
from stores.bodies import HeldUpload, Upload
from stores.disk import Disk
from stores.errors import NoUpload, PartMissing, StoreError, StoreFull
from stores.resumables import FileResumables
from tests.harness import eventually

KEEP_S = 1000
ID = "an-upload-of-this-test"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def store(root: Path) -> Iterator[FileResumables]:
    store = FileResumables(root, KEEP_S)
    yield store
    while _held:
        _held.pop().release()
    store.disk.dispose()


_held: list[HeldUpload] = []


def held(store: FileResumables, id: str = ID) -> HeldUpload:
    """The upload, released at the latest at the test's end."""
    upload = store.hold(id)
    assert upload is not None, "somebody holds it"
    _held.append(upload)
    return upload


def made(store: FileResumables, content: bytes, **more: object) -> str:
    """An upload with this content, held by nobody."""
    upload = store.create(replace(Upload(ID, "a.txt", len(content)), **more))  # type: ignore[arg-type]
    upload.write(content)
    upload.release()
    return upload.upload.id


def shown(root: Path) -> dict[str, bytes]:
    """The finished files."""
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def hidden(root: Path) -> set[str]:
    folder = root / ".resumable"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_the_size_is_the_offset(store: FileResumables) -> None:
    """Also for who comes later; what is known of the upload comes back as it was given."""
    upload = Upload(ID, "ä.txt", 6, metadata="filename w6QudHh0", concat="", digest="sha-256=:x:")
    first = store.create(upload)
    first.write(b"abc")
    first.release()
    second = held(store)
    assert (second.offset, second.upload) == (3, upload)
    second.write(b"def")
    assert second.sync() == 6
    second.release()
    assert held(store).offset == 6


def test_one_holds_it_at_a_time(root: Path, store: FileResumables) -> None:
    """Also two stores of one folder, as two workers have them."""
    other = FileResumables(root, KEEP_S)
    first = store.create(Upload(ID, "a", 6))
    assert store.hold(ID) is None
    assert other.hold(ID) is None
    first.release()
    second = held(other)
    assert store.hold(ID) is None
    second.release()
    second.release()
    held(store).release()
    other.disk.dispose()


def test_a_killed_process_holds_nothing(root: Path, store: FileResumables) -> None:
    """What it had written stays, and the next one has it at once."""
    code = """
        import sys, time
        from pathlib import Path
        from stores.bodies import Upload
        from stores.resumables import FileResumables
        held = FileResumables(Path(sys.argv[1]), 1000).create(Upload(sys.argv[2], "a", 6))
        held.write(b"abc")
        print("written", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(root), ID]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert store.hold(ID) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    upload = held(store)
    assert upload.offset == 3
    upload.release()


@pytest.mark.parametrize(
    "id", ["", "short", "../../../etc/passwd", "a" * 65, "an/upload/of/this/test", "x" * 20 + "\0", "none" * 5]
)
def test_what_is_no_upload(store: FileResumables, id: str) -> None:
    """Ids of another form reach no file; those that nobody made are not there."""
    for work in (store.look, store.hold):
        with pytest.raises(NoUpload):
            work(id)


def test_a_whole_one_becomes_a_file(store: FileResumables, root: Path) -> None:
    """Under the name or the next free one; what is known says which, and the bytes are there once."""
    (root / "a.txt").write_bytes(b"older")
    made(store, b"abc")
    upload = held(store)
    assert upload.finish("a.txt").finished == "a (2).txt"
    upload.release()
    assert shown(root) == {"a.txt": b"older", "a (2).txt": b"abc"}
    assert hidden(root) == {f"{ID}.json"}
    again = held(store)
    assert (again.upload.over, again.offset, again.upload.length) == (True, 3, 3)
    again.release()


def test_a_crash_between_the_name_and_the_record(store: FileResumables, root: Path) -> None:
    """The file that it had become is found again, and no second one is made."""
    made(store, b"abc")
    (root / "a.txt").write_bytes(b"older")
    (root / "a (2).txt").hardlink_to(root / ".resumable" / ID)
    upload = held(store)
    assert upload.offset == 3
    assert upload.finish("a.txt").finished == "a (2).txt"
    upload.release()
    assert sorted(shown(root)) == ["a (2).txt", "a.txt"]


def test_deleted_it_is_gone(store: FileResumables, root: Path) -> None:
    """With all that was known, also for who waited for it."""
    made(store, b"abc")
    held(store).delete()
    assert hidden(root) == set()
    with pytest.raises(NoUpload):
        store.hold(ID)


def test_deleting_a_finished_one_takes_its_file(store: FileResumables, root: Path) -> None:
    """But no other file that has its name by now."""
    made(store, b"abc")
    upload = held(store)
    upload.finish("a.txt")
    upload.release()
    (root / "a.txt").rename(root / "kept.txt")
    (root / "a.txt").write_bytes(b"another")
    held(store).delete()
    assert shown(root) == {"kept.txt": b"abc", "a.txt": b"another"}
    made(store, b"abc")
    upload = held(store)
    upload.finish("b.txt")
    upload.delete()
    assert "b.txt" not in shown(root)
    assert hidden(root) == set()


def test_what_is_cut_off_is_gone(store: FileResumables) -> None:
    """A piece with a wrong checksum: the offset is what it was before."""
    made(store, b"abc")
    upload = held(store)
    upload.write(b"wrong")
    upload.cut(3)
    assert upload.offset == 3
    upload.write(b"def")
    upload.finish("a.txt")
    upload.release()
    assert store.look(ID).size == 6


def test_all_bytes_are_read(store: FileResumables) -> None:
    """For a digest of the whole, in order."""
    content = os.urandom(3 * 2**20 + 1)
    made(store, content)
    upload, digest = held(store), hashlib.sha256()
    upload.read(digest)
    upload.release()
    assert digest.digest() == hashlib.sha256(content).digest()


def test_parts_are_joined_in_order(store: FileResumables, root: Path) -> None:
    """One may come twice; they are joined once all are whole, and stay."""
    for id, content in (("first-part-of-it", b"abc"), ("other-part-of-it", b"de")):
        made(store, content, id=id, partial=True, concat="partial")
    unfinished = store.create(Upload("third-part-of-it", "", 1, partial=True))
    parts = ("first-part-of-it", "other-part-of-it", "third-part-of-it", "first-part-of-it")
    final = store.create(Upload(ID, "a.txt", parts=parts))
    assert final.join() is False
    assert store.waiting_for("third-part-of-it") == [ID]
    unfinished.write(b"X")
    unfinished.release()
    assert store.whole("third-part-of-it") == 1
    assert final.join() is True
    final.finish("a.txt")
    final.release()
    assert shown(root) == {"a.txt": b"abcdeXabc"}
    assert store.waiting_for("third-part-of-it") == []
    assert store.whole("first-part-of-it") == 3


def test_a_join_that_was_broken_off_begins_anew(store: FileResumables) -> None:
    """What a killed worker had joined is not there twice."""
    made(store, b"abc", id="first-part-of-it", partial=True)
    final = store.create(Upload(ID, "a.txt", parts=("first-part-of-it",)))
    final.write(b"left")
    assert final.join() is True
    assert final.offset == 3
    final.release()


@pytest.mark.parametrize("parts", [("nowhere-to-be-found",), ("a-whole-upload-01",)])
def test_parts_that_are_none(store: FileResumables, parts: tuple[str, ...]) -> None:
    """One that is not there, or is no partial upload: no final upload is made."""
    made(store, b"abc", id="a-whole-upload-01")
    with pytest.raises(PartMissing):
        store.create(Upload(ID, "a.txt", parts=parts))
    with pytest.raises(NoUpload):
        store.look(ID)


def test_what_is_old_is_swept(store: FileResumables, root: Path) -> None:
    """Unfinished ones and the records of finished ones; no younger one, none that is held, and no finished file."""
    for id in ("finished-upload-1", "abandoned-upload1", "held-all-the-time", "young-upload-0001"):
        made(store, b"abc", id=id)
    upload = held(store, "finished-upload-1")
    upload.finish("a.txt")
    upload.release()
    folder = root / ".resumable"
    (folder / "stray-file-0000001").write_bytes(b"of a process that was killed while it made an upload")
    for path in folder.iterdir():
        if "young" not in path.name:
            os.utime(path, (time.time() - 5000,) * 2)
    working = held(store, "held-all-the-time")
    assert store.expires_at("young-upload-0001") > time.time()
    assert store.sweep() == ["abandoned-upload1"]
    working.release()
    left = {name.partition(".")[0] for name in hidden(root)}
    assert left == {"held-all-the-time", "young-upload-0001"}
    assert shown(root) == {"a.txt": b"abc"}


def test_what_is_being_made_is_no_stray(store: FileResumables, root: Path) -> None:
    """Its file is there before its record, and a clock that was set makes it old: its maker's lock tells them apart."""
    path = root / ".resumable" / "being-made-000001"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(path, (0, 0))
        store.sweep()
        assert path.exists()
    store.sweep()
    assert not path.exists()


def test_parts_that_were_used_expire_sooner(store: FileResumables) -> None:
    """Never later than they would have."""
    made(store, b"abc")
    store.expire_within(ID, 10)
    assert store.expires_at(ID) <= time.time() + 10.1
    store.expire_within(ID, 100)
    assert store.expires_at(ID) <= time.time() + 10.1
    store.expire_within("nowhere-to-be-found", 10)


def test_a_record_that_cannot_be_read(store: FileResumables, root: Path) -> None:
    """It is the store's failure, and told as one: no other upload is taken for it."""
    made(store, b"abc")
    (root / ".resumable" / f"{ID}.json").write_bytes(b'{"id":')
    with pytest.raises(StoreError):
        store.hold(ID)


def test_what_cannot_be_opened_has_not_gone(store: FileResumables, root: Path) -> None:
    """Its client would begin anew, and a final upload be given up for a part that is there."""
    made(store, b"abc", partial=True)
    file = root / ".resumable" / ID
    aside = file.rename(root / "aside")
    file.symlink_to(file.name)
    descriptors = len(os.listdir("/proc/self/fd"))
    for work in (store.hold, store.whole, store.expires_at):
        with pytest.raises(StoreError) as caught:
            work(ID)
        assert type(caught.value) is StoreError
    assert len(os.listdir("/proc/self/fd")) == descriptors
    aside.replace(file)
    assert (held(store).offset, store.whole(ID)) == (3, 3)


def test_a_lock_that_cannot_be_had(store: FileResumables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file system without room for locks: the store's failure, and the file is closed."""
    made(store, b"abc")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fail)
        with pytest.raises(StoreError, match="could not be opened"):
            store.hold(ID)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert held(store).offset == 3


@pytest.mark.parametrize("limit", [0, 600, 5000])
def test_a_full_disk_keeps_what_it_took(root: Path, limit: int) -> None:
    """StoreFull; nothing is left of one that could not be made, and the others are as long as the disk had room."""
    code = """
        import resource, sys
        from pathlib import Path
        from stores.bodies import Upload
        from stores.errors import StoreFull
        from stores.resumables import FileResumables
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        store = FileResumables(Path(sys.argv[1]), 1000)
        try:
            held = store.create(Upload("an-upload-of-this-test", "a", 9000))
            held.write(b"a" * 4000)
            held.write(b"b" * 4000)
        except StoreFull as error:
            print("full:", error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(root), str(limit)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.startswith("full: ")
    store = FileResumables(root, KEEP_S)
    if limit:
        assert (root / ".resumable" / ID).stat().st_size == limit
    else:
        assert hidden(root) == set()
    store.disk.dispose()


def test_a_file_system_without_space(tmp_path: Path) -> None:
    """A real one, of 64 KiB: what fitted is kept, and goes on when there is room again."""
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "none", str(mount)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    store = FileResumables(mount, KEEP_S)
    try:
        (mount / "ballast").write_bytes(bytes(40_000))
        upload = store.create(Upload(ID, "a", 50_000))
        with pytest.raises(StoreFull):
            upload.write(b"x" * 50_000)
        offset = upload.offset
        assert 0 < offset < 50_000
        (mount / "ballast").unlink()
        upload.write(b"x" * (50_000 - offset))
        upload.finish("a")
        upload.release()
        assert (mount / "a").read_bytes() == b"x" * 50_000
    finally:
        store.disk.dispose()
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_what_is_not_synced_is_not_waited_for(root: Path) -> None:
    """UPLOADS_SYNC=normal: the same, without fdatasync."""
    store = FileResumables(root, KEEP_S, Disk(synced=False))
    made(store, b"abc")
    upload = held(store)
    assert upload.sync() == 3
    upload.finish("a.txt")
    upload.release()
    assert shown(root) == {"a.txt": b"abc"}
    store.disk.dispose()


def test_a_long_one_is_synced_while_it_grows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end little is left to be waited for."""
    monkeypatch.setattr("stores.disk.BEHIND_BYTES", 2**20)
    store = FileResumables(root, KEEP_S)
    upload = store.create(Upload(ID, "a"))
    for _ in range(40):
        upload.write(bytes(2**18))
    eventually(lambda: (gevent.sleep(0.01), upload._file._behind[1].ready())[1])  # type: ignore[attr-defined]
    assert upload._file._behind[0] >= 2**20  # type: ignore[attr-defined]
    assert upload.sync() == 40 * 2**18
    upload.release()
    store.disk.dispose()


def test_a_disk_that_fails_takes_nothing_for_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be brought to the disk is cut off again: a later success would cover a gap."""
    store = FileResumables(root, KEEP_S)
    upload = store.create(Upload(ID, "a"))
    upload.write(b"abc")
    assert upload.sync() == 3
    upload.write(b"def")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("stores.disk._sync_data", fail)
    with pytest.raises(StoreError):
        upload.sync()
    assert upload.offset == 3
    upload.release()
    store.disk.dispose()
