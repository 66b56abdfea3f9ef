"""Chat in its four encodings: asked for, cut, found again whole; what is no success is never shown as one."""

from __future__ import annotations

import json
from typing import Any

from tests.clients import Answer, parse_events
from tests.survive.caller import Caller, Finding, prefix, same
from tests.survive.truth import Truth

_JSON = ("Content-Type", "application/json")
# What a model's server says instead of an answer, as ours tells it (llm/refusals.py).
REFUSED = (429, 502, 504)
# How an answer ends, for its reader; lost: with all that the server had.
FINISHED, FAILED, LOST = "finished", "failed", "lost"


def text(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "text")


def data(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "data")


def ui(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "ui")


def openai(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "openai")


def _chat(caller: Caller, truth: Truth, protocol: str) -> None:
    """Ask until an answer has come to its end: a model that finishes answers at last, whatever befell the server."""
    key = ("Idempotency-Key", caller.name)
    body = json.dumps({"id": caller.name, "messages": [{"id": "1", "role": "user", "content": "Hi"}]}).encode()
    while True:
        answer = caller.ask("POST", f"/api/chat?protocol={protocol}", (_JSON, key), body)
        caller.passing(answer, 200)
        refused = answer.status in REFUSED and answer.end == "clean"
        if refused and not caller.finishes:
            return
        if answer.status == 200:
            end = _judged(caller, answer, protocol, truth) or _resumed(caller, truth, protocol)
            if end == LOST:
                return _chat(caller.again(), truth, protocol)
            if end == FINISHED or not caller.finishes:
                return
        caller.later()


def _resumed(caller: Caller, truth: Truth, protocol: str) -> str:
    """Read the run again and again until its end is told; return that."""
    while True:
        caller.later()
        answer = caller.ask("GET", f"/api/chat/{caller.name}/stream?protocol={protocol}")
        caller.passing(answer, 200, 204, *((404, 410) if caller.mishaps.lifetimes else ()))
        if answer.status in (204, 404, 410):
            if not caller.mishaps.lifetimes:
                raise Finding(f"{caller.name}: its answer had begun, and there is none")
            return LOST
        if answer.status == 200 and (end := _judged(caller, answer, protocol, truth)):
            return end
        # Text has no word for a failure, and is cut: another encoding tells of it.
        if protocol == "text":
            told = caller.ask("GET", f"/api/chat/{caller.name}/stream?protocol=ui")
            if told.status == 200 and _judged(caller, told, "ui", truth) == FAILED:
                return FAILED


def _judged(caller: Caller, answer: Answer, protocol: str, truth: Truth) -> str:
    """Return the answer's end, "" where none was told; Finding where it is not what the model said."""
    said, finished, failed = _READ[protocol](bytes(answer.body))
    finished = finished or (protocol == "text" and answer.end == "clean")
    prefix(caller.name, said.encode(), truth.text.encode())
    if finished and failed:
        raise Finding(f"{caller.name}: both finished and failed: {answer}")
    if finished and not caller.finishes:
        raise Finding(f"{caller.name}: an end as if whole, of a model that failed: {answer}")
    if answer.end == "clean" and not (finished or failed):
        raise Finding(f"{caller.name}: a clean end without finish or error: {answer}")
    if finished and answer.end == "clean":
        same(caller.name, said.encode(), truth.text.encode())
        return FINISHED
    return FAILED if failed else ""


def _text(body: bytes) -> tuple[str, bool, bool]:
    return body.decode(errors="ignore"), False, False


def _data(body: bytes) -> tuple[str, bool, bool]:
    said, finished, failed = "", False, False
    for line in body.split(b"\n")[:-1]:
        if not line:
            continue
        code, _, value = line.partition(b":")
        if code == b"0":
            said += json.loads(value)
        failed = failed or code == b"3"
        if code == b"d":
            reason = json.loads(value)["finishReason"]
            finished, failed = finished or reason == "stop", failed or reason != "stop"
    return said, finished and not failed, failed


def _parts(body: bytes) -> list[Any]:
    return [event.data if event.data == "[DONE]" else json.loads(event.data) for event in parse_events(body)]


def _ui(body: bytes) -> tuple[str, bool, bool]:
    parts = [part for part in _parts(body) if part != "[DONE]"]
    said = "".join(part["delta"] for part in parts if part["type"] == "text-delta")
    types = {part["type"] for part in parts}
    return said, "finish" in types, bool(types & {"error", "abort"})


def _openai(body: bytes) -> tuple[str, bool, bool]:
    parts = _parts(body)
    chunks = [part for part in parts if part != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    stopped = any(choice.get("finish_reason") for choice in choices)
    return said, stopped and "[DONE]" in parts, any("error" in chunk for chunk in chunks)


_READ = {"text": _text, "data": _data, "ui": _ui, "openai": _openai}
