"""Many tabs of one browser: streams that stay leave connections for everything else (docs/design.md).

A browser opens six connections to one HTTP/1.1 server, for all its tabs.
"""

from __future__ import annotations

import os
import urllib.request
import uuid
from typing import Any

import pytest

from tests.browser import painted, throttle
from tests.harness import LiveServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]
FULL = "Your other tabs have all the connections that a browser opens."


def still_answers(page: Any) -> None:
    """Whether one more tab comes."""
    another = page.context.new_page()
    another.goto("/files", timeout=10_000)
    another.close()


def test_six_tabs_of_streams(page: Any, server: LiveServer) -> None:
    """Who finds no place says so, and goes on by itself when a tab is closed."""
    name = uuid.uuid4().hex
    headers = {"Content-Type": "application/json"}
    for method, body in (("PUT", b"[]"), ("POST", b'["kept"]')):
        asked = urllib.request.Request(f"{server.url}/v1/stream/{name}", body, headers, method=method)
        urllib.request.urlopen(asked, timeout=10).close()
    tabs = [page, *(page.context.new_page() for _ in range(5))]
    for tab in tabs:
        tab.goto(f"/streams?path={name}")
    waits = [tab for tab in tabs if tab.locator("#detail", has_text=FULL).count()]
    still_answers(page)
    for tab in tabs[:4]:
        expect(tab.locator("#status")).to_have_text("connected")
    for tab in tabs[4:]:
        expect(tab.locator("#detail")).to_have_text(FULL)
    assert set(waits) <= set(tabs[4:])
    for tab in tabs[:2]:
        tab.goto("/docs")
    for tab in tabs[4:]:
        expect(tab.locator("#status")).to_have_text("connected")
        expect(tab.locator("#events code")).to_have_text('"kept"')


def test_six_tabs_of_topics(page: Any) -> None:
    tabs = [page, *(page.context.new_page() for _ in range(5))]
    for tab in tabs:
        tab.goto(f"/events?follow=1&topic={uuid.uuid4().hex}")
    still_answers(page)
    expect(tabs[3].locator("#status")).to_have_text("connected")
    expect(tabs[5].locator("#detail")).to_have_text(FULL)
    tabs[0].click("#connect")
    expect(tabs[4].locator("#status")).to_have_text("connected")


def test_six_tabs_of_a_chat(page: Any) -> None:
    """All come to the whole answer, and it can be stopped while it is made."""
    question = " ".join(f"word{number}" for number in range(2000))
    tabs = [page, *(page.context.new_page() for _ in range(5))]
    page.goto("/chat")
    painted(page)
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    expect(page.locator("[data-role=assistant] p").first).not_to_be_empty()
    for tab in tabs[1:]:
        tab.goto("/chat")
    still_answers(page)
    tabs[5].click("#stop")
    for tab in tabs:
        expect(tab.locator("[data-role=assistant]").last).to_have_attribute("aria-busy", "false")
        expect(tab.locator("#send")).to_be_enabled()


def test_uploads_that_wait_in_two_tabs(page: Any) -> None:
    """The other tab says what is to be done, and no rate of what nobody sends."""
    page.goto("/upload")
    painted(page)
    throttle(page, upload_per_s=2**20)
    files = [{"name": f"{name}.bin", "mimeType": "", "buffer": os.urandom(2 * 2**20)} for name in "abc"]
    page.set_input_files("#file", files)
    page.click("#send")
    expect(page.locator("#uploads .state", has_text="left").first).to_be_visible()
    for button in page.locator(".pause").all():
        button.click()
    expect(page.locator("#uploads .state", has_text="Paused")).to_have_count(3)
    other = page.context.new_page()
    other.goto("/upload")
    expect(other.locator("#uploads li")).to_have_count(3)
    still_answers(page)
    for state in other.locator("#uploads .state").all():
        expect(state).to_contain_text("choose the same file")
    for left in (2, 1, 0):
        page.locator(".cancel").first.click()
        expect(page.locator("#uploads li")).to_have_count(left)


def test_six_uploads_at_once(page: Any) -> None:
    """They are sent in turn, the site answers meanwhile, and one that waits can be cancelled; the others are stored."""
    page.goto("/upload")
    painted(page)
    throttle(page, upload_per_s=2**19)
    files = [{"name": f"{name}.bin", "mimeType": "", "buffer": os.urandom(2**19)} for name in "abcdef"]
    page.set_input_files("#file", files)
    page.click("#send")
    waiting = page.locator("#uploads li", has_text="Waits for its turn").first
    waiting.locator(".cancel").click()
    still_answers(page)
    expect(page.locator("#files li")).to_have_count(5, timeout=30_000)
    expect(page.locator("#uploads li")).to_have_count(0)
