"""Logging in with a real browser: the form, the cookie that an EventSource brings, and the end of its token."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import CHROMIUM, browser
from tests.harness import LiveServer, eventually
from tests.tokens import ADMIN, KEY, bearer, signed, static

__all__ = ["browser"]

LISTEN = """() => {
  window.heard = [];
  window.source = new EventSource('/api/events?topic=t&follow=1');
  for (const type of ['connected', 'notification', 'stream-error'])
    source.addEventListener(type, (event) => heard.push([type, JSON.parse(event.data)]));
}"""
RENEW = """async (token) => {
  const headers = {Authorization: `Bearer ${token}`};
  return (await fetch('/api/login', {method: 'POST', headers})).status;
}"""


@pytest.fixture
def closed(tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Iterator[LiveServer]:
    env = {"DATABASE_URL": sample_database, "API_TOKENS": static(), "JWT_KEY": KEY}
    server = LiveServer(tmp_path_factory.mktemp("login"), env)
    try:
        yield server.start()
    finally:
        server.stop()


def publish(server: LiveServer, text: str) -> None:
    body = json.dumps({"message": text}).encode()
    asked = urllib.request.Request(f"{server.url}/api/notifications?topic=t", body, bearer(ADMIN))
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.status == 201


def types(page: Any) -> list[str]:
    return [type for type, _ in page.evaluate("heard")]


def messages(page: Any) -> list[str]:
    return [data["message"] for type, data in page.evaluate("heard") if type == "notification"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian: apt install chromium)")
def test_a_browser_logs_in_and_its_events_outlive_its_token(closed: LiveServer, browser: Any) -> None:
    """A wrong token is said; the right one leads to the page. At its end the EventSource is told why, stays alive, and
    goes on by itself when the page has a new token: nothing published meanwhile is lost."""
    context = browser.new_context(base_url=closed.url)
    try:
        page = context.new_page()
        assert page.goto("/events").status == 401
        page.fill("#token", "wrong")
        page.click("button")
        page.wait_for_selector("text=not known here")
        page.goto("/events")
        page.fill("#token", ADMIN)
        page.click("button")
        page.wait_for_url("**/events")
        page.wait_for_selector("#events", state="attached")
        assert page.evaluate("document.cookie") == ""  # no script of a page can read it
        assert page.evaluate(RENEW, signed(read=["/topics/t"], for_s=5)) == 200
        page.evaluate(LISTEN)
        eventually(lambda: "connected" in types(page))
        publish(closed, "before")
        eventually(lambda: "stream-error" in types(page), 20)
        assert page.evaluate("heard.find(([type]) => type === 'stream-error')[1].status") == 401
        assert page.evaluate("source.readyState") != 2, "the EventSource is closed for good"
        publish(closed, "meanwhile")
        assert page.evaluate(RENEW, signed(read=["/topics/t"], for_s=60)) == 200
        eventually(lambda: "meanwhile" in messages(page), 20)
        assert messages(page) == ["before", "meanwhile"]
    finally:
        context.close()
