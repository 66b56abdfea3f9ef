"""The clients of chat's ecosystem, unchanged, from npm: installed once, at their first use, into tests/chat_clients.

Without Node 20, npm or its registry whoever needs them is skipped, and says why.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent / "chat_clients"
V4 = "@ai-sdk/ui-utils"  # what useChat of ai 4 runs
V5_AND_LATER = ("ai-5.0.0", "ai-5", "ai-6", "ai-7")
AI = (V4, *V5_AND_LATER)
INSTALL_S = 90


@functools.cache
def missing() -> str:
    """Return why they cannot be run, "" when they can; installs them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return "node and npm (20 or later) are not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        return f"node is {version}, and 20 is needed"
    done, wanted = HERE / "node_modules" / ".package-lock.json", HERE / "package.json"
    if done.exists() and done.stat().st_mtime >= wanted.stat().st_mtime:
        return ""
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        installed = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not install tests/chat_clients within {INSTALL_S} s"
    if installed.returncode:
        return f"npm could not install tests/chat_clients: {installed.stderr.strip()[-200:]}"
    done.touch()
    return ""


@pytest.fixture(scope="session")
def npm_clients() -> None:
    """The clients are there, or the test is skipped."""
    if reason := missing():
        pytest.skip(reason)


def ask_client(package: str, url: str, body: bytes = b"", scenario: str = "send", chat: str = "c") -> dict[str, Any]:
    """What a page would have with the AI SDK's own client: see tests/chat_clients/client.mjs."""
    return _run("client.mjs", package, url, scenario, chat, body=body)


def ask_openai(url: str, model: str) -> dict[str, Any]:
    """What npm's openai makes of us: see tests/chat_clients/openai.mjs."""
    return _run("openai.mjs", url, model)


def _run(script: str, *arguments: str, body: bytes = b"") -> dict[str, Any]:
    command = ["node", script, *arguments]
    done = subprocess.run(command, cwd=HERE, input=body, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
