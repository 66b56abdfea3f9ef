"""deploy/: nginx and socket activation for real, the rest by the linters of its formats."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from settings import ROOT
from streaming import chat_counters, metrics
from tests import nginx
from tests.harness import LiveServer, eventually, free_port

DEPLOY = ROOT / "deploy"
needs_nginx = pytest.mark.skipif(nginx.PROGRAM is None, reason="nginx is not installed (apt install nginx)")


def installed(name: str) -> str:
    """Where a program is, the environment's own first; skips the test where it is nowhere."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return found or pytest.skip(f"{name} is not installed")


def certify(folder: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [installed("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = ["-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    out = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run([*command, *names, *out], check=True, capture_output=True)
    return folder / "fullchain.pem"


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Run deploy/nginx.conf before servers; return its URL and certificate."""
    with contextlib.ExitStack() as stack:

        def run(*servers: LiveServer) -> tuple[str, Path]:
            port, folder = free_port(), tmp_path / "nginx"
            certificate = certify(folder)
            text = nginx.deployed([each.port for each in servers], port, folder, servers[0].files)
            stack.enter_context(nginx.nginx_of(folder, text, port))
            return f"https://127.0.0.1:{port}", certificate

        yield run


def curl(certificate: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [installed("curl"), "-sS", "--cacert", str(certificate), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_nginx
@pytest.mark.slow
def test_nginx_speaks_http_2_and_streams(
    live_server: Callable[..., LiveServer], behind: Callable[..., tuple[str, Path]]
) -> None:
    """Many streams on a connection of HTTP/2; metrics stay inside; nginx sends files; and the doctor finds nothing."""
    server = live_server(SEND_FILES="x-accel-redirect")
    url, certificate = behind(server)
    target = f"{url}/api/stream?chunks=3&interval=0.2"
    answer = curl(certificate, "--http2", "--parallel", "--parallel-immediate", *[target] * 8)
    assert (answer.returncode, answer.stdout.count("Chunk 2\n")) == (0, 8)
    assert curl(certificate, "--http2", "-w", "%{http_version}", f"{url}/healthz").stdout.endswith("}\n2")
    assert curl(certificate, "-o", os.devnull, "-w", "%{http_code}", f"{url}/metrics").stdout == "404"
    poem = (server.files / "poem.txt").read_text()
    assert curl(certificate, "-r", "0-9", f"{url}/api/download/poem.txt").stdout == poem[:10]
    assert curl(certificate, "-o", os.devnull, "-w", "%{http_code}", f"{url}/_files/poem.txt").stdout == "404"
    from doctor import Place, findings

    context = ssl.create_default_context(cafile=str(certificate))
    assert context is not None
    assert list(findings(Place(url, trusting=True))) == []


@needs_nginx
@pytest.mark.slow
def test_nginx_lets_no_event_source_die(
    live_server: Callable[..., LiveServer], behind: Callable[..., tuple[str, Path]]
) -> None:
    """With no server at all an EventSource gets a 200 that tells it to come back, everybody else an honest 503."""
    server = live_server()
    url, certificate = behind(server)
    server.stop()
    told = curl(certificate, "-i", "-H", "Accept: text/event-stream", f"{url}/api/events?follow=1").stdout
    head, _, body = told.partition("\n\n")
    assert re.match(r"HTTP/[\d.]+ 200", head)
    assert re.search(r"(?im)^content-type: text/event-stream$", head)
    assert re.fullmatch(r"retry: (300|500|700|900)\n\n", body)
    answer = curl(certificate, "-i", "-d", "x", f"{url}/api/notifications?topic=t").stdout
    assert re.match(r"HTTP/[\d.]+ 503", answer)
    assert re.search(r"(?im)^retry-after: 1$", answer)
    assert json.loads(answer.partition("\n\n")[2])["status"] == 503


@pytest.mark.slow
def test_systemds_socket_is_taken(sample_database: str, tmp_path: Path) -> None:
    """Started by a first connection to a socket of systemd's, as by perennial.socket, it answers that one."""
    activate, port = installed("systemd-socket-activate"), free_port()
    folders = {"INSTANCE_DIR": str(tmp_path / "instance"), "FILES_DIR": str(tmp_path / "files"), "PORT": "1"}
    folders["DATABASE_URL"] = sample_database
    command = [activate, "-l", f"127.0.0.1:{port}", *(f"--setenv={name}={value}" for name, value in folders.items())]
    command += [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    server = LiveServer(tmp_path)  # only its client is used
    server.port = port

    def status() -> int:
        try:
            return server.get("/healthz", 30.0)[0]
        except OSError:
            return 0

    try:
        eventually(lambda: status() == 200, 60.0, "an answer")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_units_are_right_and_confined(tmp_path: Path) -> None:
    """systemd's own checker finds nothing, and its audit of the sandbox an exposure of at most 2.5 of 10."""
    analyze = installed("systemd-analyze")
    for name in ("perennial.service", "perennial.socket"):
        text = (DEPLOY / name).read_text()
        # What has to be there for the checker, on any machine.
        text = text.replace("/srv/perennial/.venv/bin/gunicorn", "/bin/true").replace(
            "file:/srv/perennial", f"file:{ROOT}"
        )
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / name) for name in ("perennial.service", "perennial.socket")]
    verified = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, timeout=60, check=False)
    assert [each for each in verified.stderr.splitlines() if "perennial" in each] == []
    audit = [analyze, "security", "--offline=true", "--threshold=25", units[0]]
    run = subprocess.run(audit, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout[-300:] + run.stderr


def test_the_unit_writes_where_the_server_does() -> None:
    """Its ReadWritePaths are the folders of the settings, and it stops later than the server itself."""
    unit = (DEPLOY / "perennial.service").read_text()
    assert "ReadWritePaths=/srv/perennial/instance /srv/perennial/files\n" in unit
    grace = int(re.findall(r"GRACEFUL_TIMEOUT=(\d+)", unit)[0])
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > grace


def test_the_containerfile_is_right() -> None:
    """hadolint finds nothing; every module of the server is copied into the image; and the command is gunicorn's."""
    path = DEPLOY / "Containerfile"
    run = subprocess.run([installed("hadolint"), str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout
    text = path.read_text()
    copied = {
        word.rstrip("/") for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()
    }
    modules = {each.name for each in ROOT.glob("*.py")} | {"gunicorn.conf.py"}
    assert modules | {"blueprints", "streaming", "stores", "llm", "templates", "static", "files"} <= copied


def test_the_compose_file_holds_together() -> None:
    """Whatever a service names is there: volumes, files, services; there are two servers, stores and nginx."""
    told = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services, volumes = told["services"], set(told["volumes"])
    assert set(services) == {"nginx", "one", "two", "redis", "postgres"}
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            is_file = source.startswith("./")
            assert (DEPLOY / source).exists() or source == "./certificates" if is_file else source in volumes, mount
        awaited = service.get("depends_on", {})
        for other, how in awaited.items() if isinstance(awaited, dict) else ():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
    named = re.findall(r"server (\w+):8000", (DEPLOY / "nginx-upstream-compose.conf").read_text())
    assert set(named) == {"one", "two"}
    assert (DEPLOY / services["one"]["build"]["context"]).resolve() == ROOT
    seconds = int(services["one"]["stop_grace_period"].removesuffix("s"))
    assert seconds > int(services["one"]["environment"]["GRACEFUL_TIMEOUT"])


def known_metrics() -> set[str]:
    """The names of all samples that a server can have."""
    assert chat_counters.RUNNING is not None
    names = set()
    for family in metrics.REGISTRY.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_dashboard_and_alerts_name_what_there_is() -> None:
    """Every metric in them is one of the server's; every alert says what to do; no panel hides another."""
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) >= 12
    for query in [*queries, *(rule["expr"] for rule in rules)]:
        named = set(re.findall(r"perennial_\w+", query))
        assert named, query
        assert named <= known_metrics(), query
    assert all(
        {"summary", "description"} <= rule["annotations"].keys() and rule["labels"]["severity"] for rule in rules
    )
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_promtool_takes_the_alerts() -> None:
    """Prometheus's own checker reads every expression."""
    run = subprocess.run(
        [installed("promtool"), "check", "rules", str(DEPLOY / "alerts.yaml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
