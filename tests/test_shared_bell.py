"""The bell of all processes that keep a file: who hears whom."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT
from stores import shared_bell
from stores.shared_bell import SharedBell
from tests.harness import eventually


class Ear:
    """A bell in ``folder``, and how often it was told."""

    def __init__(self, folder: Path) -> None:
        self.times = 0
        self.bell = SharedBell(folder, self._told)

    def _told(self) -> None:
        self.times += 1


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[list[Ear]]:
    """Three of them."""
    found = [Ear(tmp_path / "bells") for _ in range(3)]
    yield found
    for ear in found:
        ear.bell.close()


def rung(ears: list[Ear], who: int) -> list[bool]:
    """Who was told between a ring and when all others had heard it; of one that came before it, perhaps."""
    before = [ear.times for ear in ears]
    ears[who].bell.ring()
    others = [(ear, times) for ear, times in zip(ears, before, strict=True) if ear is not ears[who]]
    eventually(lambda: all(ear.times > times for ear, times in others))
    return [ear.times > times for ear, times in zip(ears, before, strict=True)]


def test_all_hear_it_but_who_rings(ears: list[Ear]) -> None:
    """Each of them, in turn."""
    for who in range(3):
        expected = [n != who for n in range(3)]
        eventually(lambda who=who, expected=expected: rung(ears, who) == expected)


def test_a_name_is_nobody_elses_until_its_process_dies(tmp_path: Path) -> None:
    """A process that was killed leaves its name to the next one; who lives keeps his."""
    folder = tmp_path / "bells"
    code = """
        import sys
        from pathlib import Path
        from stores.shared_bell import SharedBell
        SharedBell(Path(sys.argv[1]), lambda: None)
        print("here", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        second = Ear(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
        process.kill()
    third = Ear(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
    eventually(lambda: rung([second, third], 1) == [True, False])
    for ear in (second, third):
        ear.bell.close()


def test_more_than_there_are_names_for_hear_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a file, so each also hears himself."""
    monkeypatch.setattr(shared_bell, "_MOST", 1)
    ears = [Ear(tmp_path / "bells") for _ in range(3)]
    for _ in range(3):
        before = [ear.times for ear in ears]
        ears[2].bell.ring()
        eventually(lambda before=before: all(ear.times > n for ear, n in zip(ears, before, strict=True)))
    for ear in ears:
        ear.bell.close()


def test_without_inotify_all_are_told_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it cannot be heard who rang, and nobody needs to."""
    monkeypatch.setattr(shared_bell, "_watch", lambda _: None)
    ear = Ear(tmp_path / "bells")
    eventually(lambda: ear.times > 3)
    ear.bell.close()


def test_in_the_loop_an_own_ring_wakes_nobody(tmp_path: Path) -> None:
    """Under gevent, too: two bells of one process hear each other, and neither itself."""
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys, gevent
        from pathlib import Path
        from stores.shared_bell import SharedBell
        times = [0, 0]
        def told(n):
            times[n] += 1
        folder = Path(sys.argv[1])
        bells = [SharedBell(folder, lambda n=n: told(n)) for n in range(2)]
        for n in range(2):
            with gevent.Timeout(10):
                heard_himself = True
                while heard_himself:  # of what came before, once perhaps
                    times[:] = [0, 0]
                    bells[n].ring()
                    while not times[1 - n]:
                        gevent.sleep(0.01)
                    heard_himself = times[n]
            print(n)
        for bell in bells:
            bell.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "bells")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1"]
