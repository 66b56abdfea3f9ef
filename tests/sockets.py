"""Which worker holds a connection, as Linux tells it: gunicorn itself does not say."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.harness import LiveServer, RawClient


def holder(server: LiveServer, client: RawClient) -> int:
    """The worker that has accepted the client's connection; 0 while none has."""
    inode = _inode(server.port, client.socket.getsockname()[1])
    return next((pid for pid in server.pids() if inode and f"socket:[{inode}]" in _open_files(pid)), 0)


def listens(pid: int, port: int) -> bool:
    """Whether the process has a socket open that listens on the port."""
    inodes = {columns[9] for columns in _connections() if columns[1].endswith(f":{port:04X}") and columns[3] == "0A"}
    return any(f"socket:[{inode}]" in _open_files(pid) for inode in inodes)


def _connections() -> list[list[str]]:
    """Local address (1), remote address (2), state (3) and inode (9) of each, numbers in hex (proc(5))."""
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def _inode(server_port: int, client_port: int) -> str:
    """Of the server's side of the connection."""
    for columns in _connections():
        if columns[1].endswith(f":{server_port:04X}") and columns[2].endswith(f":{client_port:04X}"):
            return "" if columns[9] == "0" else columns[9]
    return ""


def _open_files(pid: int) -> set[str]:
    targets = set()
    with contextlib.suppress(FileNotFoundError):  # the process has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                targets.add(os.readlink(entry))
    return targets
