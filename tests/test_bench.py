"""bench/: what is measured is reported, whatever is missing on the machine; the document is made of nothing else."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import (
    bare_relay,
    chat,
    chat_readers,
    disk,
    environment,
    event_peers,
    fanout,
    growth,
    limits,
    processes,
    versions,
    wake_ups,
)
from bench.__main__ import PARTS, Part, measure, write
from bench.fanout import Target
from bench.ground import Ground
from bench.load import MIB, Probe, resident_bytes
from bench.processes import answer_of, cpu_s
from bench.report import NotMeasured, Report, merged, reason_of
from bench.turns import in_turn, ratio, spread
from settings import ROOT
from tests.harness import free_port

DOCUMENT = (ROOT / "docs" / "performance.md").read_text()


def broken(ground: Ground) -> None:
    ground.report.table("Half of it", "what", "figure")
    ground.report.row("one", 1)
    raise OSError(98, "Address already in use")


def peerless(ground: Ground) -> None:
    raise NotMeasured("nginx is not installed")


def sound(ground: Ground) -> None:
    ground.report.table("All of it", "what", "figure", "asked for")
    ground.report.row("one", 1)


def test_a_part_that_fails_says_so_and_the_others_run() -> None:
    """A port that is taken costs its own part: what was measured before stays, and the next part has its figures."""
    report = Report()
    measure(report, [Part("Broken", broken), Part("Sound", sound)])
    text = "\n".join(report.lines)
    half, _, whole = text.partition("## Sound")
    assert "| one | 1 |" in half
    assert "**Failed**, this part: OSError: [Errno 98] Address already in use." in half
    assert "| one | 1 |  |" in whole
    assert report.failures == ["this part"]


def test_what_is_not_on_the_machine_is_no_failure() -> None:
    """A missing peer is told in a sentence, and the run as a whole has succeeded."""
    report = Report()
    measure(report, [Part("Peerless", peerless)])
    assert "Not measured: nginx is not installed." in report.lines
    assert report.failures == []


def test_a_row_of_a_missing_peer_is_a_whole_row() -> None:
    """A table with a short row would be no table to every reader of Markdown."""
    report = Report()
    report.table("Peers", "server", "CPU", "ratio")
    report.missing("nchan", NotMeasured("the module | is missing"))
    assert report.lines[-1] == "| nchan | not measured: the module / is missing |  |"


def test_each_part_says_of_which_commit_it_is() -> None:
    """Parts are renewed one by one, so the head of the document cannot say it for them."""
    report = Report()
    measure(report, [Part("Sound", sound)])
    assert re.fullmatch(r"Measured in \d+ s at commit \S+ on \d+ cores of .+\.", report.lines[-1])


def test_a_run_of_some_parts_keeps_the_others() -> None:
    """Sections stand in the order of the parts; what no part has said is gone."""
    before = "# Performance\n\nOld head\n\n## One\n\nold one\n\n## By hand\n\nlost\n\n## Two\n\nold two\n"
    made = "# Performance\n\nNew head\n\n## Two\n\n### In two\n\nnew two\n"
    assert merged(before, made, ["One", "Two", "Three"]) == (
        "# Performance\n\nNew head\n\n## One\n\nold one\n\n## Two\n\n### In two\n\nnew two\n"
    )


def test_the_head_says_how_long_the_parts_take() -> None:
    """Those of this run and those of the last one: 65 s and 55 s are two minutes."""
    before = "# Performance\n\n- Old\n\n## One\n\n1\n\nMeasured in 65 s at commit a on b.\n"
    made = "# Performance\n\n- New\n\n## Two\n\n2\n\nMeasured in 55 s at commit c on d.\n"
    head, *sections = merged(before, made, ["One", "Two", "Three"]).split("\n## ")
    assert head == "# Performance\n\n- New\n- Measured in 2 minutes: One 65 s, Two 55 s\n"
    assert len(sections) == 2


def test_the_document_is_written_with_its_plots(tmp_path: Path) -> None:
    """A plot is a file below plots/, shown where it was made."""
    report = Report()
    report.say("# Performance")
    with report.part("Memory"):
        report.plot("curve", "<svg/>", "It is flat")
    write(tmp_path, report)
    assert (tmp_path / "plots" / "curve.svg").read_text() == "<svg/>"
    assert "![It is flat](plots/curve.svg)" in (tmp_path / "performance.md").read_text()


def cut_short(ground: Ground) -> None:
    ground.report.table("Half of it", "what", "figure")
    ground.report.plot("half", "<svg/>", "It is half")
    raise KeyboardInterrupt


def drawn(ground: Ground) -> None:
    ground.report.table("All of it", "what", "figure")
    ground.report.plot("whole", "<svg/>", "It is whole")


def test_a_run_that_is_cut_short_keeps_its_parts(tmp_path: Path) -> None:
    """The whole takes half an hour: what had come to its end is in the document, what had not is not."""
    report = Report()
    report.say("# Performance")
    with pytest.raises(KeyboardInterrupt):
        measure(report, [Part("Memory", drawn), Part("Files", cut_short)], docs=tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "plots/whole.svg" in text
    assert "## Files" not in text
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["whole.svg"]


def test_an_error_names_no_path_of_this_machine(tmp_path: Path) -> None:
    """The document is for everybody: of a file it has the name, of a request its address as it is."""
    told = reason_of(OSError(2, "No such file or directory", str(tmp_path / "people.db")))
    assert told == "FileNotFoundError: [Errno 2] No such file or directory: 'people.db'"
    asked = "refused: /api/export/people.csv at http://127.0.0.1:8000/api/export"
    assert reason_of(RuntimeError(asked)) == f"RuntimeError: {asked}"


def test_only_what_is_measured_makes_a_commit_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench writes its own document and plots; without a repository there is a word, and no error."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    commit = versions.commit.__wrapped__
    assert commit() == "unknown"
    (tmp_path / "docs").mkdir()
    for name in ("app.py", "docs/performance.md"):
        (tmp_path / name).write_text("before")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    clean = commit()
    (tmp_path / "docs" / "performance.md").write_text("after")
    assert commit() == clean
    (tmp_path / "app.py").write_text("after")
    assert commit() == f"{clean}-dirty"


def test_a_probe_that_fails_is_told() -> None:
    """A latency of refusals, or of nothing, is none; but a block that fails itself says what failed it."""
    with pytest.raises(RuntimeError, match="/healthz beside it"), Probe(free_port()):
        time.sleep(0.05)
    with pytest.raises(ValueError, match="its own"), Probe(free_port()):
        raise ValueError("its own")


def test_performance_is_what_the_bench_wrote() -> None:
    """Every part has its section with tables and nothing that failed, and says where it was measured, and how long."""
    _, *sections = DOCUMENT.split("\n## ")
    assert [each.partition("\n")[0] for each in sections] == [part.title for part in PARTS.values()]
    for each in sections:
        title = each.partition("\n")[0]
        assert re.search(r"\n### .+\n\n\|.+\|\n(\|---)+\|\n\|", each), title
        assert "**Failed**" not in each, title
        assert re.search(r"\nMeasured in \d+ s at commit \S+ on .+\.$", each.strip()), title


def test_every_plot_is_shown_and_every_shown_one_is_there() -> None:
    """docs/plots/ has exactly what docs/performance.md shows."""
    shown = re.findall(r"!\[[^\]]+\]\(plots/([\w-]+\.svg)\)", DOCUMENT)
    assert sorted(shown) == sorted(f"{name}.svg" for name in growth.CURVES)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs" / "plots").glob("*.svg"))


def test_ways_are_measured_in_turn_and_in_both_orders() -> None:
    """A B, B A, A B after a round that does not count: nobody is always the second. Each time something is cleared."""
    taken: list[str] = []

    def way(name: str, value: float) -> float:
        taken.append(name)
        return value

    times = in_turn({"a": lambda: way("a", 1.0), "b": lambda: way("b", 2.0)}, 3, after=lambda: taken.append("-"))
    assert "".join(taken).replace("-", "") == "baabbaab"
    assert taken.count("-") == 8
    assert times == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_settled_memory_is_given_back() -> None:
    """It is held, really and not only promised, and then it is there for the next one."""
    before = resident_bytes(os.getpid())
    with disk.taken(64 * MIB):
        assert resident_bytes(os.getpid()) > before + 48 * MIB
    assert resident_bytes(os.getpid()) < before + 16 * MIB


def test_a_ratio_is_the_median_of_pairs() -> None:
    """By hand: 2, 3 and 4; not 6 ÷ 2, which is what the medians of both sides would make by chance."""
    found = ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])
    assert (found.median, found.low, found.high) == (3.0, 2.0, 4.0)
    assert str(found) == "**3.00** (2.00 to 4.00)"
    assert str(ratio([1.0], [2.0])) == "**0.50**"
    middle = ratio([float(n) for n in range(1, 12)], [1.0] * 11)
    assert (middle.median, middle.low, middle.high) == (6.0, 3.0, 9.0), "of eleven, the third from each end"
    assert spread([3.0, 1.0, 2.0], "ms") == "**2.0 ms** (1.0 to 3.0)"


def test_what_remains_is_the_median_of_pairs() -> None:
    """By hand: 5, 1 and 2 more than the limit of its own pair; the medians, 7 and 3, differ by 4."""
    report = Report()
    limits.tell(report, limits.Limit("a step", "the call", [7.0, 10.0, 5.0], [2.0, 9.0, 3.0], "ms"))
    assert report.lines[-1] == "| a step | the call | 7 ms | 3 ms | **1.67** (1.11 to 3.50) | 2 ms |"
    limits.tell(report, limits.Limit("a step", "the call", [1.0, 9.0, 2.0], [2.0, 8.0, 3.0], "ms"))
    assert report.lines[-1].endswith("| nothing |")


def test_answers_are_read_one_by_one_off_a_connection() -> None:
    """RFC 9112: by Content-Length (6.2) and by chunks (7.1), pipelined; then the end, which is an error."""
    lengthy = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
    stream = io.BytesIO(lengthy + chunked + lengthy)
    assert [answer_of(stream) for _ in range(3)] == [(201, b"hello"), (202, b"hello"), (201, b"hello")]
    with pytest.raises(RuntimeError, match="closed"):
        answer_of(stream)


def test_the_cpu_of_a_process_is_its_own_clock() -> None:
    """Of this very process it is what time.process_time() says, far below the hundredths of /proc."""
    before = time.process_time()
    seen = cpu_s(os.getpid())
    assert before <= seen <= time.process_time()


def test_without_a_compiler_or_node_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine lacks is told as such, and not as a failure of the bench."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotMeasured, match="no C compiler"):
        fanout.build(tmp_path)
    with pytest.raises(NotMeasured, match="no Node"):
        environment.node("tus_server")


@contextmanager
def absent(folder: Path) -> Iterator[Target]:
    raise NotMeasured("the peer is not installed")
    yield  # a generator all the same


@contextmanager
def unstartable(folder: Path) -> Iterator[Target]:
    with processes.serving([sys.executable, "-c", "raise SystemExit('the port is taken')"], free_port()):
        yield Target(0, 0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the load client needs a C compiler")
def test_a_peer_that_is_missing_costs_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is measured with nothing lost; one peer is not installed, one does not start: each row says so."""
    monkeypatch.setattr(event_peers, "SERVERS", {"Perennial": event_peers.ours, "A": absent, "B": unstartable})
    report = Report()
    event_peers.beside(Ground(tmp_path, report, quick=True), fanout.build(tmp_path))
    rows = [line for line in report.lines if line.startswith(("| Perennial", "| A ", "| B "))]
    assert rows[0].startswith("| Perennial | 100 | 5 × 1 |")
    assert rows[0].endswith("| 0, 0 | 1 |")
    assert rows[1].startswith("| A | not measured: the peer is not installed |")
    assert rows[2].startswith("| B | not measured: AssertionError: ")
    assert "the port is taken" in rows[2]


def test_a_failure_of_ours_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may be missing; without our own server there is nothing beside which it could stand."""
    monkeypatch.setattr(event_peers, "SERVERS", {"Perennial": unstartable})
    report = Report()
    with report.attempt("beside others"):
        event_peers.beside(Ground(tmp_path, report, quick=True), tmp_path)
    assert report.failures == ["beside others"]


def test_a_limit_that_fails_leaves_nobody_behind(tmp_path: Path) -> None:
    """The server waits for connections; when its client cannot make them it is ended, and waited for."""
    server, client = tmp_path / "bare_send", tmp_path / "subscribers"
    server.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    client.write_text(f"#!/bin/sh\nuntil [ -s {tmp_path}/pid ]; do :; done\nexit 1\n")
    for program in (server, client):
        program.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        fanout.bare_us(tmp_path, 1, 1)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ((0, 2), "got event 2 where 1 was due"),
        ((0, 0), "got event 0 where 1 was due"),
        ((0,), "got 1 of 2 events"),
        ((0, 1, 2), "got 3 of 2 events"),
        ((), "got 0 of 2 events"),
    ],
)
def test_a_wake_up_that_does_not_come_is_told(sent: tuple[int, ...], said: str) -> None:
    """An event that is lost, doubled or never comes leaves no times of the others; of both, there are two times."""
    with pytest.raises(RuntimeError, match=said):
        listened(sent)
    assert len(listened((0, 1))) == 2


def listened(sent: tuple[int, ...]) -> list[float]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(b'id: 1\ndata: {"n":%d,"t":1}\n\n' % number for number in sent))
        theirs.shutdown(socket.SHUT_WR)
        reader = wake_ups.Reader(ours)
        while not reader.ended:
            reader.read()
        return reader.times_ms(2)


@pytest.mark.slow
def test_a_token_that_does_not_come_is_told() -> None:
    """Of four tokens three are due, or five: the figures of such a run are none."""
    with chat.model(4, 0.001) as upstream, bare_relay.serving(upstream) as (port, pid):
        told = chat.read(port, pid, "/", 3, 4)
        assert (told.tokens, told.whole) == (12, 3)
        for tokens in (3, 5):
            with pytest.raises(RuntimeError, match=f"12 of {3 * tokens} tokens came, 0 out of their order, and 3 of 3"):
                chat.read(port, pid, "/", 3, tokens)


def test_tokens_have_an_order() -> None:
    """What was sent before comes before; a token that comes again is as old as the last one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"1000000001 1000000002 1000000002 1000000001 1000000003 ")
        seen = chat_readers.Chat(ours, 1)
        seen.read()
    assert (len(seen.times_us), seen.disordered) == (5, 2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the load client needs a C compiler")
def test_the_idle_are_held(tmp_path: Path) -> None:
    """Who waits gets a heartbeat each second here; were ten a second due, it is told that they did not come."""
    programs = fanout.build(tmp_path)
    with fanout.perennial(tmp_path / "ours", HEARTBEAT_S="1") as server:
        target = fanout.topic(server, "idle")
        fanout.idle(programs, target, 20, 2.0, 1.0)
        with pytest.raises(RuntimeError, match=r"0 idle were closed; one got . heartbeats of 1[89]"):
            fanout.idle(programs, target, 20, 2.0, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "nothing is no part"), (["--quick", "growth"], "--quick makes no figures for the docs")],
)
def test_a_call_that_makes_no_sense_is_refused(arguments: list[str], said: str) -> None:
    """A part that there is none of, and figures of a short run for the docs: exit 2 before anything is measured."""
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow_suite
@pytest.mark.timeout(1500)
def test_every_part_runs(tmp_path: Path) -> None:
    """With small counts all parts end without a failure, and write the document with a plot of each curve."""
    command = [sys.executable, "-m", "bench", "--quick", "--docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout
    text = (tmp_path / "performance.md").read_text()
    assert re.findall("(?m)^## (.+)$", text) == [part.title for part in PARTS.values()]
    assert len(list((tmp_path / "plots").glob("*.svg"))) == len(growth.CURVES)
