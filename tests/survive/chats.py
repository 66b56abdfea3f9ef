"""Chat in its four encodings: asked for, cut, found again whole; what is no success is never shown as one."""

from __future__ import annotations

import json
from typing import Any

from tests.clients import Answer, parse_events
from tests.survive.caller import Caller, Finding, prefix, same
from tests.survive.truth import Truth

_JSON = ("Content-Type", "application/json")


def text(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "text")


def data(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "data")


def ui(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "ui")


def openai(caller: Caller, truth: Truth) -> None:
    _chat(caller, truth, "openai")


def _chat(caller: Caller, truth: Truth, protocol: str) -> None:
    """Ask once, or again under the same key where nothing came back; then read the run until its end is told."""
    key = ("Idempotency-Key", caller.name)
    body = json.dumps({"id": caller.name, "messages": [{"id": "1", "role": "user", "content": "Hi"}]}).encode()
    while True:
        answer = caller.ask("POST", f"/api/chat?protocol={protocol}", (_JSON, key), body)
        # 401, 404 and 5xx are the model's, as statuses, before anything was streamed.
        caller.passing(answer, 200, 401, 500)
        if answer.status == 200 and _judged(caller, answer, protocol, truth):
            return
        if answer.status in (429, 500, 502, 504, 401) and answer.end == "clean":
            return  # refused, and said so
        if answer.status == 200:
            break
        caller.later()
    while True:
        caller.later()
        answer = caller.ask("GET", f"/api/chat/{caller.name}/stream?protocol={protocol}")
        caller.passing(answer, 200, 204, 401, 500, *((404, 410) if caller.mishaps.lifetimes else ()))
        if answer.status == 200 and _judged(caller, answer, protocol, truth):
            return
        if answer.status in (204, 404, 410):
            if not caller.mishaps.lifetimes:
                raise Finding(f"{caller.name}: its answer had begun, and there is none")
            return _chat(caller.again(), truth, protocol)
        if answer.status in (500, 502, 504):
            return
        if protocol == "text" and _failed(caller, truth):
            return


def _failed(caller: Caller, truth: Truth) -> bool:
    """Whether another encoding tells of a failure: text has no word for one, and is cut."""
    answer = caller.ask("GET", f"/api/chat/{caller.name}/stream?protocol=ui")
    return answer.status == 200 and _judged(caller, answer, "ui", truth) and _ui(bytes(answer.body))[2]


def _judged(caller: Caller, answer: Answer, protocol: str, truth: Truth) -> bool:
    """Whether the answer's end was told; Finding where it is not what the model said."""
    said, finished, failed = _READ[protocol](bytes(answer.body))
    expected = truth.text
    prefix(caller.name, said.encode(), expected.encode())
    if finished and failed:
        raise Finding(f"{caller.name}: both finished and failed: {answer}")
    if (finished or (protocol == "text" and answer.end == "clean")) and not caller.finishes:
        raise Finding(f"{caller.name}: an end as if whole, of a model that failed: {answer}")
    if finished and answer.end == "clean":
        same(caller.name, said.encode(), expected.encode())
        return True
    if protocol == "text":
        if answer.end == "clean":
            same(caller.name, said.encode(), expected.encode())
        return answer.end == "clean"
    if answer.end == "clean" and not failed:
        raise Finding(f"{caller.name}: a clean end without finish or error: {answer}")
    return failed


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
