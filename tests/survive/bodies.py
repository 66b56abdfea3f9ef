"""Kinds that are sent: uploads in one request, resumable ones by tus and by the IETF's draft."""

from __future__ import annotations

import base64
import hashlib

from tests.survive.caller import Caller, Finding, same
from tests.survive.truth import Truth

_TUS = ("Tus-Resumable", "1.0.0")


def upload(caller: Caller, truth: Truth) -> None:
    """One request, again from the beginning until it is acknowledged; what is acknowledged is there, whole."""
    content = _content(caller, truth)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    headers = (("Content-Type", "application/octet-stream"), ("Content-Digest", f"sha-256=:{digest}:"))
    target = f"/api/upload-progress?filename={caller.name}.bin"
    while True:
        answer = caller.ask("POST", target, headers, content)
        # A body that was cut is a 400, one that stood still a 408: told to whoever can still hear it.
        caller.passing(answer, 201, 400, 408)
        if answer.status == 201 and answer.end == "clean":
            break
        caller.later()
    if answer.json["received"] != len(content):
        raise Finding(f"{caller.name}: {answer.json} of {len(content)}")
    _is_there(caller, answer.json["url"], content)


def tus(caller: Caller, truth: Truth) -> None:
    """tus 1.0: each cut is followed by HEAD, and no byte is sent twice that was told to be there."""
    content = _content(caller, truth)
    name = base64.b64encode(f"{caller.name}.bin".encode()).decode()
    length = ("Upload-Length", str(len(content)))
    made = caller.insist("POST", "/api/uploads", (_TUS, length, ("Upload-Metadata", f"filename {name}")), b"", (201,))
    target = made.header("location")
    at, told = 0, 0
    while at < len(content):
        piece = content[at : at + caller.rng.randint(1, len(content))]
        headers = (_TUS, ("Upload-Offset", str(at)), ("Content-Type", "application/offset+octet-stream"))
        sent = caller.ask("PATCH", target, headers, piece)
        caller.passing(sent, 204, 400, 408, 409, 423)
        caller.later()
        told = int(caller.insist("HEAD", target, (_TUS,)).header("upload-offset"))
        if not at <= told <= at + len(piece):
            raise Finding(f"{caller.name}: {told} bytes are told to be there, after {at} and {len(piece)} more")
        at = told
    _is_there(caller, f"/api/download/uploads/{caller.name}.bin", content)


def draft(caller: Caller, truth: Truth) -> None:
    """The IETF's draft, interop version 8."""
    content = _content(caller, truth)
    version = ("Upload-Draft-Interop-Version", "8")
    disposition = ("Content-Disposition", f'attachment; filename="{caller.name}.bin"')
    made = caller.insist(
        "POST",
        "/api/uploads",
        (version, disposition, ("Upload-Complete", "?0"), ("Upload-Length", str(len(content)))),
        b"",
        (201,),
    )
    target = made.header("location")
    at = 0
    while True:
        last = caller.rng.random() < 0.5
        piece = content[at:] if last else content[at : at + caller.rng.randint(1, len(content))]
        complete = "?1" if at + len(piece) == len(content) else "?0"
        headers = (
            version,
            ("Upload-Offset", str(at)),
            ("Upload-Complete", complete),
            ("Content-Type", "application/partial-upload"),
        )
        sent = caller.ask("PATCH", target, headers, piece)
        caller.passing(sent, 200, 201, 204, 400, 408, 409, 423)
        caller.later()
        stands = caller.insist("HEAD", target, (version,))
        at = int(stands.header("upload-offset"))
        if stands.header("upload-complete") == "?1":
            break
    _is_there(caller, f"/api/download/uploads/{caller.name}.bin", content)


def _content(caller: Caller, truth: Truth) -> bytes:
    start = caller.rng.randrange(1000)
    return truth.file[start : start + int(10 ** caller.rng.uniform(1, 6))]


def _is_there(caller: Caller, target: str, content: bytes) -> None:
    same(caller.name, bytes(caller.insist("GET", target).body), content)
