"""The clients of tus as they are, through a network that cuts: tus-js-client on Node, and tuspy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from settings import ROOT
from tests.cutting_proxy import CuttingProxy
from tests.harness import LiveServer

HERE = ROOT / "tests" / "tus_clients"
SIZE = 6_000_000
# In the first request's body, and in those that continue it: wherever they fall, the upload goes on.
CUTS = [1_500_000, 700_000, 1, 300_000]


@pytest.fixture(scope="session")
def tus_js() -> Callable[..., dict[str, Any]]:
    """Upload with tus-js-client: ``tus_js(port, path, **options)`` returns what upload.mjs prints."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    with (HERE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run several at a time, and npm does not
        if not (HERE / "node_modules" / "tus-js-client").exists():
            command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
            if subprocess.run(command, cwd=HERE, capture_output=True, check=False).returncode:
                pytest.skip("tus-js-client could not be installed")

    def upload(port: int, path: Path, **options: object) -> dict[str, Any]:
        endpoint = f"http://127.0.0.1:{port}/api/uploads"
        command = ["node", "upload.mjs", endpoint, str(path), json.dumps(options)]
        run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=100, check=True)
        told: dict[str, Any] = json.loads(run.stdout)
        assert "error" not in told, told
        return told

    return upload


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / f"{uuid.uuid4().hex}.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrived(server: LiveServer, file: Path, name: str = "") -> bool:
    return sha256(server.files / "uploads" / (name or file.name)) == sha256(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunkSize": 1_000_000},
        {"uploadDataDuringCreation": True},
        {"parallelUploads": 3},
        {"overridePatchMethod": True},
        {"protocol": "ietf-draft-03"},
        {"protocol": "ietf-draft-05", "chunkSize": 2_000_000},
    ],
    ids=json.dumps,
)
def test_tus_js_client(
    server: LiveServer, tus_js: Callable[..., dict[str, Any]], file: Path, options: dict[str, Any]
) -> None:
    """Cut in the middle, again and again, it goes on and what arrives is what was sent."""
    with CuttingProxy(server.port, CUTS) as proxy:
        told = tus_js(proxy.port, file, metadata={"filename": file.name}, **options)
        assert proxy.cut == len(CUTS)
    # By the draft a name goes in Content-Disposition, which tus-js-client cannot send.
    location = told.get("location") or f"/api/download/uploads/{file.name}"
    assert arrived(server, file, unquote(location.rpartition("/")[2]))


def tuspy(port: int, path: Path, **options: object) -> str:
    """Upload with tuspy, in a process of its own: it leaves files open. Return the upload's URL."""
    command = [sys.executable, str(HERE / "upload.py"), f"http://127.0.0.1:{port}/api/uploads", str(path)]
    run = subprocess.run([*command, json.dumps(options)], capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"chunk_size": SIZE}, {"chunk_size": 2_000_000, "upload_checksum": True}],
    ids=json.dumps,
)
def test_tuspy(server: LiveServer, file: Path, options: dict[str, Any]) -> None:
    """Cut in the middle, again and again, it goes on and what arrives is what was sent; with checksums, too."""
    with CuttingProxy(server.port, CUTS) as proxy:
        tuspy(proxy.port, file, retries=20, metadata={"filename": file.name}, **options)
        assert proxy.cut == len(CUTS)
    assert arrived(server, file)


@pytest.mark.slow
def test_tuspy_resumes_a_url(server: LiveServer, file: Path) -> None:
    """A new process that has only the URL continues where the first one stopped."""
    url = tuspy(server.port, file, chunk_size=1_000_000, stop_at=2_000_000, metadata={"filename": file.name})
    assert not (server.files / "uploads" / file.name).exists()
    assert tuspy(server.port, file, url=url, chunk_size=SIZE) == url
    assert arrived(server, file)


def test_the_vendored_client_is_the_one_of_npm() -> None:
    """What browsers get is what its VERSION says, with its licence."""
    folder = ROOT / "static" / "vendor" / "tus-js-client"
    assert sha256(folder / "tus.min.js") in (folder / "VERSION").read_text()
    assert "MIT" in (folder / "LICENSE").read_text()
