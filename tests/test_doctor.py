"""doctor.py: the self-test, through nginx set rightly, and wrongly in each way that harms streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from doctor import Place, findings
from settings import ROOT
from tests import nginx
from tests.harness import LiveServer, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(nginx.PROGRAM is None, reason="nginx is not installed (apt install nginx)"),
]

RIGHT = {
    "proxy_http_version": "1.1",
    "proxy_set_header": 'Connection ""',
    "proxy_buffering": "off",
    "proxy_request_buffering": "off",
}

HELD = {"proxy_http_version": "", "proxy_set_header": ""}


def location(server: LiveServer, **changed: str) -> str:
    """The proxy as docs/operations.md has it, but for what is changed; "": nginx's own default."""
    directives = "".join(f"{name} {value};\n" for name, value in {**RIGHT, **changed}.items() if value)
    return f"client_max_body_size 0; location / {{ proxy_pass http://127.0.0.1:{server.port};\n{directives} }}"


def examine(tmp_path: Path, url: str) -> tuple[int, str]:
    """What ``flask --app wsgi doctor`` says, and its exit status."""
    env = {"PATH": "/usr/bin:/bin", "INSTANCE_DIR": str(tmp_path / "doctor"), "FILES_DIR": str(tmp_path / "files")}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "doctor", url]
    run = subprocess.run(
        command, cwd=ROOT, env=env | {"STREAMS_URL": "memory:", "DATABASE_URL": "sqlite:///nowhere.db"},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, ""),
        (HELD, "speaks HTTP/1.0 to the server"),
        # In HTTP/1.1 nginx hands on what comes in chunks all the same.
        ({**HELD, "proxy_buffering": "on", "proxy_ignore_headers": "X-Accel-Buffering"}, "buffers responses"),
        ({"proxy_request_buffering": "on"}, "buffers requests"),
        ({"chunked_transfer_encoding": "off"}, "hides a cut"),
        ({"gzip": "on", "gzip_types": "*", "gzip_proxied": "any", "gzip_min_length": "0"}, "compresses streams"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_doctor_finds_what_a_proxy_does(
    server: LiveServer, tmp_path: Path, changed: dict[str, str], found: str
) -> None:
    """A right proxy is passed; of a wrong one the doctor says what is wrong and what to set, and exits with 1."""
    with nginx.nginx(tmp_path / "nginx", location(server, **changed)) as port:
        said = "\n".join(findings(Place(f"http://127.0.0.1:{port}")))
    assert found in said
    assert bool(said) == bool(found)
    assert "nginx:" in said or not found


def test_the_command_says_what_it_found(server: LiveServer, tmp_path: Path) -> None:
    """It exits with 0 where nothing is wrong, and with 1 where something is."""
    assert examine(tmp_path, server.url) == (0, "✓ Streams arrive as they are made, uploads too, and a cut is seen.\n")
    with nginx.nginx(tmp_path / "nginx", location(server, chunked_transfer_encoding="off")) as port:
        status, said = examine(tmp_path, f"http://127.0.0.1:{port}")
    assert (status, "✗ The proxy hides a cut" in said) == (1, True)


def test_the_doctor_says_that_nobody_answers(tmp_path: Path) -> None:
    """A server that is not there is a finding, and no traceback; what is no URL is a usage error."""
    status, said = examine(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (status, "No answer" in said, "Traceback" in said) == (1, True, False)
    status, said = examine(tmp_path, "perennial.example")
    assert (status, "is no URL of a server" in said) == (2, True)
