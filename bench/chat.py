"""What a model's token costs on its way, beside typed chunks through plain Flask, and a relay that does nothing else.

The model's server and the readers are processes of their own, so what is measured is the server: its CPU a token, and
what it adds to a token's time and to the first one's. A figure counts where every token came, once and in order, and
every answer to its end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import bare_relay, limits, plain_flask, processes
from bench.ground import Ground
from bench.limits import Limit
from bench.load import percentile
from bench.processes import cpu_s
from bench.turns import ratio
from settings import ROOT
from tests.harness import free_port

TOKENS, GAP_S = 200, 0.02
CHATS, CROWD = 100, 500
# One after the other on an idle server that has been asked before, for the time to the first token.
ALONE = 50
LIMIT_S = 150
_COLUMNS = (
    "server",
    "chats",
    "CPU a token",
    "added to a token, p50",
    "p99",
    "first token",
    "tokens",
    "whole answers",
    "asked for",
)
_ASKED, _CROWD_ASKED, _ALONE_ASKED = "≤ 100 µs, p50 < 1 ms, p99 < 15 ms", "all whole", "first token: < 5 ms added"
_ALONE = "**Perennial**, one token, alone"
_TYPED_ALONE, _MODEL_ALONE = "typed chunks, one token, alone", "the model itself, one token, alone"
_PROTOCOLS = ("text", "ui", "openai")
_RELAY = "a relay: receive, decode the JSON, send"
_TYPED = "typed chunks, plain Flask"


@dataclass(frozen=True)
class Outcome:
    cpu_us: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    tokens: int
    whole: int


@contextmanager
def model(tokens: int = TOKENS, gap_s: float = GAP_S) -> Iterator[int]:
    """The port of a model's server."""
    with _model(tokens, gap_s) as (port, _):
        yield port


@contextmanager
def _model(tokens: int, gap_s: float) -> Iterator[tuple[int, int]]:
    """The port and the process of a model's server."""
    port = free_port()
    command = [sys.executable, "-m", "bench.model", str(port), str(tokens), str(gap_s)]
    with processes.serving(command, port) as process:
        yield port, process.pid


def read(port: int, pid: int, path: str, chats: int, tokens: int, apart_s: float = 0.0) -> Outcome:
    """Let ``chats`` readers ask the server whose worker is ``pid``; ``tokens`` are due to each.

    Raises RuntimeError where some are missing, doubled or out of their order, or an answer has no end.
    """
    before = cpu_s(pid)
    command = [sys.executable, "-m", "bench.chat_readers", str(port), path, str(chats), str(apart_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=LIMIT_S)
    seen = json.loads(done.stdout)
    used = cpu_s(pid) - before
    if (seen["tokens"], seen["whole"], seen["disordered"]) != (chats * tokens, chats, 0):
        came = f"{seen['tokens']} of {chats * tokens} tokens came, {seen['disordered']} out of their order"
        raise RuntimeError(f"{came}, and {seen['whole']} of {chats} answers were whole")
    times, p = seen["times"], percentile
    first_ms = statistics.median(seen["firsts"])
    return Outcome(used / len(times) * 1e6, p(times, 0.5), p(times, 0.99), first_ms, len(times), seen["whole"])


@contextmanager
def perennial(folder: Path, model_port: int) -> Iterator[tuple[int, int]]:
    """The port and the worker of our server."""
    environ = {"OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1", "CHAT_MODEL": "bench"}
    environ |= {"CHAT_RUNS_PER_CALLER": "1000", "GUNICORN_CMD_ARGS": "--access-logfile /dev/null"}
    with processes.ours(folder / "chat", environ) as server:
        yield server.port, server.pids()[0]


def typed_chunks(folder: Path, model_port: int) -> AbstractContextManager[tuple[int, int]]:
    """The same of a plain Flask application that iterates over the client's typed chunks."""
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1", "OPENAI_API_KEY": "none"}
    return plain_flask.serving(folder, "bench.chat_peer:app", **env)


def chats(ground: Ground) -> None:
    folder, tokens = ground.folder("chats"), 20 if ground.quick else TOKENS
    count, crowd = (5, 10) if ground.quick else (CHATS, CROWD)
    title = f"{tokens} tokens to each chat, one every {GAP_S * 1000:.0f} ms, on one worker"
    ground.report.table(title, *_COLUMNS)
    with model(tokens) as upstream:
        costs = _rounds(ground, folder, upstream, count, tokens)
        with perennial(folder, upstream) as (port, worker):
            told = read(port, worker, "/api/chat?protocol=ui", crowd, tokens, 0.005)
            ground.report.row(*_cells("**Perennial**, ui", crowd, told), _CROWD_ASKED)
    _alone(ground, folder)
    limits.tell(
        ground.report,
        *(
            Limit(f"a token, {protocol}", _RELAY, costs[f"**Perennial**, {protocol}"], costs[_RELAY], "µs")
            for protocol in _PROTOCOLS
        ),
    )
    found = ratio(costs["**Perennial**, text"], costs[_TYPED])
    ground.report.say("", f"Text takes {found} of the CPU of typed chunks through plain Flask.")


def _rounds(ground: Ground, folder: Path, upstream: int, count: int, tokens: int) -> dict[str, list[float]]:
    """The CPU of a token by server and protocol: whole processes in turn, A B C, A B C."""
    costs: dict[str, list[float]] = {}

    def take(name: str, port: int, worker: int, path: str) -> None:
        told = read(port, worker, path, count, tokens, GAP_S / count)
        ground.report.row(*_cells(name, count, told), _ASKED if "Perennial" in name else "")
        costs.setdefault(name, []).append(told.cpu_us)

    for _ in range(ground.runs):
        with perennial(folder, upstream) as (port, worker):
            read(port, worker, "/api/chat?protocol=ui", 2, tokens)
            for protocol in _PROTOCOLS:
                take(f"**Perennial**, {protocol}", port, worker, f"/api/chat?protocol={protocol}")
        with typed_chunks(folder, upstream) as (port, worker):
            read(port, worker, "/chat", 2, tokens)
            take(_TYPED, port, worker, "/chat")
        with bare_relay.serving(upstream) as (port, pid):
            take(_RELAY, port, pid, "/")
    return costs


def _alone(ground: Ground, folder: Path) -> None:
    """What a server adds to a first token is what the model, asked by the same reader, does not take itself."""
    firsts: dict[str, float] = {}

    def take(name: str, port: int, worker: int, path: str, asked: str) -> None:
        read(port, worker, path, 2, 1, 0.1)
        told = read(port, worker, path, ALONE, 1, 0.1)
        ground.report.row(*_cells(name, ALONE, told), asked)
        firsts[name] = told.first_ms

    with ExitStack() as stack:
        upstream, process = stack.enter_context(_model(1, GAP_S))
        for name, serving, path, asked in (
            (_ALONE, perennial, "/api/chat?protocol=ui", _ALONE_ASKED),
            (_TYPED_ALONE, typed_chunks, "/chat", ""),
        ):
            port, worker = stack.enter_context(serving(folder, upstream))
            take(name, port, worker, path, asked)
        take(_MODEL_ALONE, upstream, process, "/v1/chat/completions", "")
    ours, typed = (firsts[name] - firsts[_MODEL_ALONE] for name in (_ALONE, _TYPED_ALONE))
    ground.report.say("", f"Added to the first token, idle: **{ours:.1f} ms**, typed chunks {typed:.1f} ms.")


def _cells(name: str, chats: int, outcome: Outcome) -> tuple[str, ...]:
    return (
        name,
        f"{chats:,}",
        f"**{outcome.cpu_us:.0f} µs**",
        f"{outcome.p50_ms:.2f} ms",
        f"{outcome.p99_ms:.1f} ms",
        f"{outcome.first_ms:.1f} ms",
        f"{outcome.tokens:,}",
        f"{outcome.whole} of {chats}",
    )
