"""An nginx for the tests, in front of a server: the one that Debian has, as its own user, in a folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from settings import ROOT
from tests.harness import eventually, free_port, listens

DEPLOY = ROOT / "deploy"
PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

_MAIN = """
user {user};
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    types {{ text/plain txt; video/mp4 mp4; }}
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{content}
}}
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port};
{server}
    }}
"""


def proxy(port: int) -> str:
    """The location that passes everything on, as docs/operations.md has it."""
    return f"""
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
"""


def deployed(ports: list[int], port: int, folder: Path, files: Path, tls: bool = True) -> str:
    """deploy/nginx.conf and its upstream, with the addresses, the certificate and the paths of a test."""
    upstream = (DEPLOY / "nginx-upstream.conf").read_text()
    servers = re.findall("^ *server .*;$", upstream, re.MULTILINE)
    named = "\n".join(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{each}", servers[0]) for each in ports)
    text = upstream.replace("\n".join(servers), named) + (DEPLOY / "nginx.conf").read_text()
    listen = f"listen 127.0.0.1:{port}{' ssl http2' if tls else ''};"
    for here, there in (
        ("listen 443 ssl http2;", listen),
        ("/etc/ssl/perennial/", f"{folder}/"),
        ("/srv/perennial/deploy/nginx-files.conf", f"{folder}/files.conf"),
        ("/var/log/nginx/", f"{folder}/"),
    ):
        assert here in text
        text = text.replace(here, there)
    folder.mkdir(parents=True, exist_ok=True)
    internal = (DEPLOY / "nginx-files.conf").read_text().replace("/srv/perennial/files", str(files))
    (folder / "files.conf").write_text(internal)
    return text if tls else re.sub("(?m)^ *ssl_certificate.*;$", "", text)


@contextmanager
def nginx(folder: Path, server: str, workers: int = 1) -> Iterator[int]:
    """Run nginx with the content of a ``server`` block; yield its port once it listens."""
    port = free_port()
    with nginx_of(folder, _SERVER.format(port=port, server=server), port, workers):
        yield port


@contextmanager
def nginx_of(folder: Path, content: str, port: int, workers: int = 1) -> Iterator[None]:
    """Run nginx with the content of ``http``, which listens on ``port``; begin once it does."""
    assert PROGRAM, "nginx is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"user": getpass.getuser(), "folder": folder, "content": content, "workers": workers}
    (folder / "nginx.conf").write_text(_MAIN.format(**values))
    # Without a group of its own it would hear what the terminal tells the tests.
    process = subprocess.Popen([PROGRAM, "-e", "stderr", "-c", folder / "nginx.conf"], start_new_session=True)
    try:
        eventually(lambda: process.poll() is not None or listens(port), 10.0, "nginx listens")
        assert process.poll() is None, f"nginx ended with {process.returncode}"
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
