"""The page of durable streams in a real Chromium: make, append, follow, cut off, fork, close, delete."""

from __future__ import annotations

import json
import urllib.request
import uuid
from typing import Any

import pytest

from tests.browser import painted
from tests.harness import LiveServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def name() -> str:
    return f"beds/{uuid.uuid4().hex}"


def ask(server: LiveServer, method: str, path: str, value: object = None) -> Any:
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/stream/{path}", body, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def messages(page: Any) -> list[Any]:
    """What the page shows, oldest first."""
    return [json.loads(text) for text in reversed(page.locator("#events code").all_text_contents())]


def append(page: Any, text: str, count: int) -> None:
    painted(page)
    page.fill("#message", text)
    page.press("#message", "Enter")
    expect(page.locator("#events li")).to_have_count(count)


def test_a_stream_from_its_making_to_its_end(page: Any, server: LiveServer, name: str) -> None:
    """What is appended comes live; a fork has it too and goes its own way; closing ends it, and deleting forgets it."""
    page.goto("/streams")
    page.fill("#path", name)
    page.click("#make button")
    expect(page.locator("#stream-title")).to_have_text(name)
    expect(page.locator("#status")).to_have_text("connected")
    append(page, '{"said":"one"}', 1)
    append(page, "<b>two</b>", 2)
    assert messages(page) == [{"said": "one"}, "<b>two</b>"]
    assert page.locator("#events b").count() == 0
    page.fill("#fork-path", f"{name}-fork")
    page.click("#fork button")
    expect(page.locator("#stream-title")).to_have_text(f"{name}-fork")
    append(page, "3", 3)
    assert json.loads(ask(server, "GET", f"{name}-fork")) == [{"said": "one"}, "<b>two</b>", 3]
    assert json.loads(ask(server, "GET", name)) == [{"said": "one"}, "<b>two</b>"]
    page.click("#close")
    expect(page.locator("#detail")).to_have_text("Closed: nothing will be added.")
    expect(page.locator("#append button")).to_be_disabled()
    page.locator(f"[data-path='{name}']").click()
    expect(page.locator("#stream-title")).to_have_text(name)
    expect(page.locator("#append button")).to_be_enabled()
    page.locator(f"[data-path='{name}-fork']").click()
    page.click("#delete")
    expect(page.locator("#made")).to_have_text(f"{name}-fork is deleted.")
    expect(page.locator(f"[data-path='{name}-fork']")).to_have_count(0)


def test_a_pulled_plug_resumes_at_the_offset(page: Any, server: LiveServer, name: str) -> None:
    """What was appended meanwhile comes when it is plugged in again: no gap and no double."""
    ask(server, "PUT", name, list(range(5)))
    page.goto(f"/streams?path={name}")
    expect(page.locator("#events li")).to_have_count(5)
    page.click("#plug")
    expect(page.locator("#status")).to_have_text("disconnected")
    ask(server, "POST", name, [5, 6])
    page.click("#plug")
    expect(page.locator("#events li")).to_have_count(7)
    ask(server, "POST", name, 7)
    expect(page.locator("#events li")).to_have_count(8)
    assert messages(page) == list(range(8))


def test_the_list_is_narrowed_and_grows(page: Any, server: LiveServer, name: str) -> None:
    """A prefix leaves only what begins with it; More appends the next page, each path once and in order."""
    paths = [f"{name}/{number:03}" for number in range(120)]
    for path in paths:
        ask(server, "PUT", path)
    page.goto("/streams")
    painted(page)
    page.fill("#prefix", f"{name}/")
    page.press("#prefix", "Enter")
    listed = page.locator("#list a")
    expect(listed).to_have_count(100)
    page.click("#more")
    expect(listed).to_have_count(120)
    expect(page.locator("#more")).to_have_count(0)
    assert [each.get_attribute("data-path") for each in listed.all()] == paths


def test_a_line_for_a_shell_has_no_apostrophe_within_its_own(page: Any, server: LiveServer, name: str) -> None:
    """Or what is copied is no whole line."""
    ask(server, "PUT", f"{name}/it%27s")
    page.goto(f"/streams?path={name}/it%27s")
    expect(page.locator("#status")).to_have_text("connected")
    assert str(page.text_content("#curl")).count("'") == 2


def test_what_is_done_before_the_stream_is_there_is_done_with_it(page: Any, server: LiveServer, name: str) -> None:
    """What was appended before the page's module came is in the stream of the page's address."""
    page.request.put(f"/v1/stream/{name}", headers={"Content-Type": "application/json"}, data="[]")
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 400, "uploadThroughput": -1, "downloadThroughput": -1},
    )
    page.goto(f"/streams?path={name}", wait_until="commit")
    page.fill("#message", "early")
    page.press("#message", "Enter")
    expect(page.locator("#events code")).to_have_text('"early"')
    expect(page.locator("#state")).to_be_empty()


def test_the_focus_outlives_a_closed_stream(page: Any, server: LiveServer, name: str) -> None:
    """The button that closed it can be pressed no more: its heading has the focus then."""
    ask(server, "PUT", name)
    page.goto(f"/streams?path={name}")
    expect(page.locator("#status")).to_have_text("connected")
    page.locator("#close").press("Enter")
    expect(page.locator("#detail")).to_have_text("Closed: nothing will be added.")
    assert page.evaluate("document.activeElement.id") == "stream-title"


@pytest.mark.parametrize(
    ("type", "shown"), [("text/plain", "one two"), ("application/octet-stream", "6f 6e 65 20 74 77 6f")]
)
def test_what_is_no_json_is_counted_in_bytes(page: Any, server: LiveServer, name: str, type: str, shown: str) -> None:
    """Where one of its events ends nobody can see: two that came before are one piece."""
    for method, body in (("PUT", b""), ("POST", b"one "), ("POST", b"two")):
        url = f"{server.url}/v1/stream/{name}"
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": type}, method=method), timeout=10)
    page.goto(f"/streams?path={name}")
    expect(page.locator("#events code")).to_have_text([shown])
    expect(page.locator("#unit")).to_have_text("Received")
    expect(page.locator("#count")).to_have_text("7 bytes")
