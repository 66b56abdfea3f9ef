"""static/eventstream.js in a real Chromium: one connection for all tabs, whatever happens to it."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser import ARGS, CHROMIUM
from tests.harness import LiveServer, eventually

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian: apt install chromium)"),
]

LISTEN = """async (options) => {
  const { connect } = await import("/static/eventstream.js");
  window.seen = [];
  window.states = [];
  window.stream = connect({
    ...options,
    onEvent: (event) => window.seen.push(event),
    onStatus: (state) => window.states.push(state),
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Any, server: LiveServer) -> Iterator[Any]:
    context = browser.new_context(base_url=server.url)
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def topic() -> str:
    return uuid.uuid4().hex


def publish(server: LiveServer, topic: str, value: object, type: str = "notification") -> str:
    body = json.dumps(value).encode()
    request = urllib.request.Request(f"{server.url}/api/notifications?topic={topic}&type={type}", body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["id"])


def listen(context: Any, *topics: str, **options: Any) -> Any:
    """A tab that listens; only what it has asked for itself is open."""
    page = context.new_page()
    page.goto("/upload")
    page.evaluate(LISTEN, {"topics": list(topics), **options})
    return page


def numbers(page: Any) -> list[int]:
    """The ``n`` of every notification that the tab was handed, in order."""
    return page.evaluate("window.seen.filter((event) => event.type === 'notification').map((event) => event.data.n)")


def wait_numbers(page: Any, expected: list[int], timeout_s: float = 5.0) -> None:
    """Until the tab has as many, which must then be exactly these."""
    eventually(lambda: len(numbers(page)) >= len(expected), timeout_s, f"{len(expected)} events")
    assert numbers(page) == expected


def test_eight_tabs_share_one_connection(context: Any, server: LiveServer, topic: str) -> None:
    """Each gets every event once, also what was stored before; and a ninth request of the browser is answered."""
    for n in range(3):
        publish(server, topic, {"n": n})
    tabs = [listen(context, topic) for _ in range(8)]
    for n in range(3, 20):
        publish(server, topic, {"n": n})
    for tab in tabs:
        wait_numbers(tab, list(range(20)))
        assert tab.evaluate("window.states.at(-1)") == "connected"
    assert server.streams() == 1
    plain = context.new_page()
    assert plain.goto("/healthz", timeout=3000).status == 200


def test_the_next_tab_takes_over(context: Any, server: LiveServer, topic: str) -> None:
    """The leading tab is closed again and again while events come: the others lose and double nothing."""
    tabs = [listen(context, topic) for _ in range(4)]
    sent = 0
    while len(tabs) > 1:
        for _ in range(5):
            publish(server, topic, {"n": (sent := sent + 1)})
        tabs.pop(0).close()
        publish(server, topic, {"n": (sent := sent + 1)})
        begun = time.monotonic()
        for tab in tabs:
            wait_numbers(tab, list(range(1, sent + 1)), 3.0)
        assert time.monotonic() - begun < 1.0
    eventually(lambda: server.streams() == 1)


@pytest.mark.parametrize("share", [True, False])
def test_several_topics_and_types(context: Any, server: LiveServer, topic: str, share: bool) -> None:
    """Each event with its type, topic and data; a type that was not asked for moves the cursor and is not handed on."""
    if not share:
        context.add_init_script("delete Navigator.prototype.locks")
    tabs = [listen(context, f"{topic}.a", f"{topic}.b", types=["notification", "order"]) for _ in range(2)]
    publish(server, f"{topic}.a", {"n": 1})
    publish(server, f"{topic}.a", {"n": 2}, "unheard")
    publish(server, f"{topic}.b", {"n": 3}, "order")
    publish(server, f"{topic}.a", {"n": 4})
    expected = [["notification", f"{topic}.a", 1], ["order", f"{topic}.b", 3], ["notification", f"{topic}.a", 4]]
    read = "window.seen.filter((e) => e.type !== 'connected').map((e) => [e.type, e.topic, e.data.n])"
    for tab in tabs:
        eventually(lambda tab=tab: len(tab.evaluate(read)) >= 3)
        # Two topics have no order between them for a tab that had to fetch what it missed.
        assert sorted(tab.evaluate(read)) == sorted(expected)
    assert server.streams() == (1 if share else 2)


def test_without_web_locks_each_tab_has_its_own(context: Any, server: LiveServer, topic: str) -> None:
    """As on plain http://: it works, by a connection a tab."""
    context.add_init_script("delete Navigator.prototype.locks")
    tabs = [listen(context, topic) for _ in range(2)]
    for n in range(5):
        publish(server, topic, {"n": n})
    for tab in tabs:
        wait_numbers(tab, list(range(5)))
    assert server.streams() == 2


def test_it_comes_back_when_the_browser_has_given_up(context: Any, server: LiveServer, topic: str) -> None:
    """A 503 ends an EventSource for good (HTML standard, 9.2.3): it is made again, after the last id."""
    asked: list[str] = []

    def refuse_second(route: Any) -> None:
        asked.append(route.request.url)
        if route.request.method == "GET" and len(asked) == 1:
            route.fulfill(status=503)
        else:
            route.continue_()

    context.route("**/api/events*follow=1*", refuse_second)
    first = publish(server, topic, {"n": 0})
    tab = listen(context, topic, after=first)
    publish(server, topic, {"n": 1})
    wait_numbers(tab, [1], 10)
    assert len(asked) >= 2
    assert all(f"after={first}" in url for url in asked)


def test_a_restart_costs_no_event(browser: Any, live_server: Callable[..., LiveServer], topic: str) -> None:
    """All tabs go on where they were, the leading one and the others."""
    server = live_server()
    context = browser.new_context(base_url=server.url)
    tabs = [listen(context, topic) for _ in range(3)]
    publish(server, topic, {"n": 0})
    for tab in tabs:
        wait_numbers(tab, [0])
    server.restart()
    publish(server, topic, {"n": 1})
    for tab in tabs:
        wait_numbers(tab, [0, 1], 20)
    context.close()


def test_what_is_stored_and_then_the_end(context: Any, server: LiveServer, topic: str) -> None:
    """Without follow: everything, complete, and no connection is left."""
    for n in range(3):
        publish(server, topic, {"n": n})
    tab = listen(context, topic, follow=False)
    wait_numbers(tab, [0, 1, 2])
    eventually(lambda: tab.evaluate("window.states.at(-1)") == "disconnected")
    assert tab.evaluate("window.seen.map((event) => event.type)") == ["connected", *["notification"] * 3, "complete"]
    eventually(lambda: server.streams() == 0)


def test_close_is_the_end(context: Any, server: LiveServer, topic: str) -> None:
    """Of the connection within a second, and of the events at once; another tab goes on."""
    tabs = [listen(context, topic) for _ in range(2)]
    publish(server, topic, {"n": 0})
    for tab in tabs:
        wait_numbers(tab, [0])
    tabs[0].evaluate("window.stream.close()")
    publish(server, topic, {"n": 1})
    wait_numbers(tabs[1], [0, 1])
    assert numbers(tabs[0]) == [0]
    tabs[1].evaluate("window.stream.close()")
    eventually(lambda: server.streams() == 0, 1.5)
