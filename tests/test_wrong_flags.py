"""Servers as operators start them by mistake: each streams by the generator path, or refuses with one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flags
from tests.certificates import self_signed
from tests.harness import ROOT, LiveServer, RawClient, eventually

Make = Callable[..., LiveServer]

pytestmark = pytest.mark.slow


@pytest.fixture
def make(tmp_path: Path, sample_database: str) -> Iterator[Make]:
    """Make a server in a folder of its own, and start it; ``folder=`` shares another's."""
    servers: list[LiveServer] = []

    def start(folder: str = "server", tls: Any = None, command: tuple[str, ...] = (), **env: object) -> LiveServer:
        settings = {"DATABASE_URL": sample_database} | env
        (tmp_path / folder).mkdir(exist_ok=True)
        servers.append(LiveServer(tmp_path / folder, settings, tls, command=command))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


def serves(server: LiveServer, tls: ssl.SSLContext | None = None) -> None:
    """Every way in which something streams: text, a range, an upload, events that are followed, a model, a run."""
    port = server.port
    with RawClient(port, tls=tls) as client:
        answer = client.request("GET", "/api/stream?chunks=3&interval=0.05").read_to_end()
        assert (bytes(answer.body), answer.end) == (b"Chunk 0\nChunk 1\nChunk 2\n", "clean")
    content = bytes(range(256)) * 4096
    with RawClient(port, tls=tls) as client:
        answer = client.request("POST", "/api/upload-progress?filename=a.bin", (), content).read_to_end(20.0)
        assert (answer.status, answer.json["received"]) == (201, len(content)), answer
    with RawClient(port, tls=tls) as client:
        answer = client.request("GET", answer.json["url"], [("Range", "bytes=1000-499999")]).read_to_end()
        assert (answer.status, bytes(answer.body)) == (206, content[1000:500_000])
    with RawClient(port, tls=tls) as follower:
        follower.request("GET", "/api/events?topic=a&follow=1").read_body_until(b"connected")
        for n in range(3):
            with RawClient(port, tls=tls) as client:
                body = json.dumps({"n": n}).encode()
                headers = [("Content-Type", "application/json")]
                told = client.request("POST", "/api/notifications?topic=a", headers, body).read_to_end()
                assert told.status == 201, told
            follower.read_body_until(b'data: {"n":%d}' % n)
    with RawClient(port, tls=tls) as client:
        question = json.dumps({"id": "c", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        headers = [("Content-Type", "application/json")]
        said = client.request("POST", "/api/chat", headers, question).read_to_end(20.0)
        assert (said.status, said.end) == (200, "clean"), said
    with RawClient(port, tls=tls) as client:
        again = client.request("GET", "/api/chat/c/stream?protocol=text").read_to_end(20.0)
        assert bytes(again.body) == bytes(said.body)
    with RawClient(port, tls=tls) as client:
        run = client.request("GET", "/api/stream?chunks=3&interval=0.05&durable=1").read_to_end()
        assert (bytes(run.body), run.end) == (b"Chunk 0\nChunk 1\nChunk 2\n", "clean"), run
    with RawClient(port, tls=tls) as client:
        export = client.request("GET", "/api/export?table=users&limit=2000&columns=id").read_to_end()
        assert (export.end, export.body.count(b"\r\n")) == ("clean", 2001), export


@pytest.mark.parametrize("arguments", ["--worker-class gthread --threads 8", "--worker-class gevent"])
def test_another_worker_streams(make: Make, arguments: str) -> None:
    """The threads of gunicorn and its own gevent worker: slower to notice things, and right; also after a crash."""
    server = make(GUNICORN_CMD_ARGS=arguments)
    serves(server)
    # Its master looks at its workers each second.
    (worker,) = server.pids()
    server.signal(9, worker)
    eventually(lambda: server.pids() not in ([], [worker]) and server.answers(), 20.0, "another worker")
    serves(server)


def test_tls_streams(make: Make, tmp_path: Path) -> None:
    """The bytes go through the encryption, and not past it."""
    key, certificate = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    serves(make(tls=context, GUNICORN_CMD_ARGS=f"--keyfile {key} --certfile {certificate}"), context)


def test_two_masters_share_a_store(make: Make) -> None:
    """Two servers over one folder: what one publishes the other's readers get, and what one makes the other reads."""
    one, two = make(), make()
    assert one.port != two.port
    with RawClient(two.port) as follower:
        follower.request("GET", "/api/events?topic=b&follow=1").read_body_until(b"connected")
        with RawClient(one.port) as client:
            client.request("POST", "/api/notifications?topic=b", (), b"from one").read_to_end()
        follower.read_body_until(b"from one")
    serves(one)
    with RawClient(two.port) as client:
        assert client.request("GET", "/api/chat/c/stream?protocol=text").read_to_end().end == "clean"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"worker_class_str": "sync"}, "A worker of the class sync does not carry many streams"),
        ({"worker_class_str": "gevent_pywsgi"}, "A worker of the class gevent_pywsgi does not"),
        ({"worker_class_str": "asgi"}, "A worker of the class asgi does not"),
        ({"preload_app": True}, "--preload opens the stores before the workers are forked"),
        ({"http_protocols": ["h2", "h1"]}, "leave h2 out of --http-protocols"),
        ({}, ""),
        ({"worker_class_str": "gevent"}, ""),
        ({"worker_class_str": "gthread"}, ""),
    ],
)
def test_what_cannot_stream_has_its_sentence(settings: dict[str, Any], sentence: str) -> None:
    """What gunicorn is told is let be, or refused with what to do instead."""
    ours = {"worker_class_str": "worker.PerennialWorker", "preload_app": False, "http_protocols": ["h1"]}
    cfg = SimpleNamespace(**ours | settings)
    with pytest.raises(SystemExit, match=sentence) if sentence else contextlib.nullcontext():
        flags.refuse(cfg)


@pytest.mark.parametrize("arguments", ["--worker-class sync", "--preload"])
def test_what_cannot_stream_is_refused(make: Make, arguments: str) -> None:
    """The server ends at once, and its last words say what to do instead."""
    with pytest.raises(AssertionError, match=r"(?s)the server ended with [1-9].*leave .*out") as refused:
        make(GUNICORN_CMD_ARGS=arguments)
    assert "Traceback" not in str(refused.value)


GUNICORN = ("gunicorn", "--chdir", str(ROOT), "--bind", "127.0.0.1:{port}")


@pytest.mark.parametrize(
    "command",
    [
        (*GUNICORN, "--worker-class", "gevent", "wsgi:app"),
        (*GUNICORN, "wsgi:app"),
        ("flask", "--app", str(ROOT / "wsgi.py"), "run", "--port", "{port}"),
    ],
)
def test_without_its_settings_it_does_not_start(make: Make, command: tuple[str, ...]) -> None:
    """From another folder ``gunicorn wsgi:app`` finds no gunicorn.conf.py, and ``flask run`` never: one sentence."""
    with pytest.raises(AssertionError, match="the server ended with 4") as refused:
        make(command=command)
    assert str(refused.value).count("Start it with `make run`, or gunicorn -c gunicorn.conf.py wsgi:app") == 1
    assert "Traceback" not in str(refused.value)


def test_importing_it_serves_nobody(tmp_path: Path, sample_database: str) -> None:
    """A script or a test takes the application as any other, without gunicorn and without gevent's patches."""
    script = "from wsgi import app; print(app.test_client().get('/healthz').status_code)"
    environ = {"PATH": os.environ["PATH"], "INSTANCE_DIR": str(tmp_path), "DATABASE_URL": sample_database}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["200"]), done.stderr
