"""The map in a real Chromium: every card runs, and goes on where its plug was pulled; and what the server does, live.

Expected values are those of docs/http.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import LiveServer, eventually

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Those that end by themselves within some seconds; the others are stopped.
SHORT = (
    "Typed events",
    "Chat",
    "Downloads",
    "Video",
    "Uploads",
    "Resumable uploads",
    "Transform",
    "Errors in the stream",
)
LONG = ("Text", "Server-sent events", "Live notifications", "Rows as NDJSON", "Streams of your own")
SEAM = re.compile("^— resumed after (.*) —$")


def card(page: Any, title: str) -> Any:
    return page.locator(".card", has=page.get_by_role("heading", name=title, exact=True))


def press(card: Any, action: str) -> None:
    card.locator(f"[data-action={action}]").click()


def pull_early(card: Any, shown: str) -> None:
    """Pull the plug as soon as the picture shows ``shown`` (a regular expression), however busy the machine is."""
    card.evaluate(
        """(card, shown) => new MutationObserver((_, observer) => {
            if (!new RegExp(shown).test(card.querySelector(".picture").textContent)) return;
            observer.disconnect();
            card.querySelector("[data-action=plug]").click();
        }).observe(card.querySelector(".picture"), {childList: true, subtree: true, characterData: true})""",
        shown,
    )


def lines(card: Any) -> list[str]:
    return card.locator(".picture").inner_text().splitlines()


def test_two_clicks_start_one_stream(page: Any) -> None:
    """Also while what a card needs is still being fetched."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    text = card(page, "Text")
    text.locator("[data-action=start]").evaluate("button => (button.click(), button.click())")
    expect(text.locator(".state")).to_have_text("Live")
    expect(text.locator(".picture > *").first).not_to_be_empty()
    assert len([url for url in asked if "/api/stream?" in url]) == 1
    press(text, "start")
    expect(text.locator(".state")).to_have_text("Stopped")


def test_every_card_runs(page: Any) -> None:
    """A card shows its stream arriving, and ends cleanly or can be stopped."""
    page.goto("/")
    titles = page.locator(".card h2").all_text_contents()
    assert set(SHORT + LONG) <= set(titles)
    for title in titles:
        one = card(page, title)
        press(one, "start")
        if title == "Streams of your own":
            press(one, "publish")
        expect(one.locator(".picture > *").first).not_to_be_empty()
        if title in LONG:
            expect(one.locator(".state")).to_have_text("Live")
            press(one, "start")
            expect(one.locator(".state")).to_have_text("Stopped")
    for title in SHORT:
        expect(card(page, title).locator(".state")).to_have_text(
            re.compile("^(Ended cleanly, .*|Stopped)$"), timeout=15_000
        )


def test_a_pulled_plug_resumes_without_gap_or_double(page: Any) -> None:
    """Lines, ticks and rows go on after the cursor that the card shows: each comes once, in order."""
    page.goto("/")
    text, ticks, rows = (card(page, title) for title in ("Text", "Server-sent events", "Rows as NDJSON"))
    for one in (text, ticks, rows):
        press(one, "start")
    expect(text.locator(".picture")).to_contain_text("Chunk 1\n")
    expect(ticks.locator(".ticks li").nth(1)).to_be_visible()
    expect(rows.locator(".picture")).to_contain_text('"id":')
    for one in (text, ticks, rows):
        press(one, "plug")
    for one in (text, ticks, rows):
        expect(one.locator(".state")).to_have_text(re.compile("^Live, resumed after [0-9]+$"))
    expect(text.locator(".picture")).to_contain_text(re.compile("resumed after .*\n(Chunk .*\n){2}"))
    expect(ticks.locator(".ticks .seam ~ li").nth(1)).to_be_visible()
    for one in (text, ticks, rows):
        press(one, "start")
    shown = lines(text)
    seam = next(place for place, line in enumerate(shown) if SEAM.match(line))
    chunks = [line for line in shown if line.startswith("Chunk")]
    assert chunks == [f"Chunk {n}" for n in range(len(chunks))]
    assert shown[seam - 1] == f"Chunk {SEAM.match(shown[seam])[1]}"
    numbers = [number for number in ticks.locator(".ticks li").all_text_contents() if number]
    assert numbers == [str(n) for n in range(len(numbers))]


def test_bytes_go_on_from_the_byte(page: Any, server: LiveServer) -> None:
    """A transform, an answer and an upload whose plug was pulled come to their whole length, and no byte more."""
    page.goto("/")
    upload, transform = card(page, "Resumable uploads"), card(page, "Transform")
    pull_early(upload, "^[1-9]")
    pull_early(transform, "DER FLUSS VERSIEGT NIE")
    for one in (upload, transform):
        press(one, "start")
    expect(upload.locator(".picture")).to_contain_text(re.compile("resumed after byte [1-9]"))
    expect(transform.locator(".state")).to_have_text(re.compile("^Live, resumed after byte [1-9]"))
    expect(upload.locator(".state")).to_have_text("Ended cleanly, 2.0 MiB", timeout=20_000)
    # upper() of the body that the page sends, 8,000 lines of it: ß becomes SS.
    line = "The river never runs dry. Der Fluß versiegt nie. Ο ποταμός δεν στερεύει ποτέ.\n".upper().encode()
    whole = f"Ended cleanly, {8_000 * len(line) / 1024:.0f} KiB"
    expect(transform.locator(".state")).to_have_text(whole, timeout=20_000)
    assert not list((server.files / "uploads").glob("map*.bin"))


def test_an_answer_goes_on(page: Any) -> None:
    """Both forms of an answer whose reader left are whole when it is back, each word once."""
    page.goto("/")
    text, parts = card(page, "Chat"), card(page, "Chat for the AI SDK")
    for one in (text, parts):
        pull_early(one, "offline model")
        press(one, "start")
    for one in (text, parts):
        expect(one.locator(".state")).to_have_text(re.compile("^Ended cleanly"), timeout=30_000)
        assert one.locator(".picture").inner_text().count("resumed after") == 1
    said = "".join(line for line in text.locator("pre").text_content().splitlines() if not SEAM.match(line))
    told = "".join(parts.locator(".tokens span").all_text_contents())
    assert said.startswith("I am the offline model")
    assert said.rstrip().endswith("Hello")
    assert told.startswith("I am the offline model")
    assert told.rstrip().endswith("and into which sea it flows.")
    for answer in (said, told):
        assert answer.count("I am the offline model") == 1


def test_what_was_published_while_unplugged_comes(page: Any) -> None:
    """Each publication is in the list once, those during the plug's absence too."""
    page.goto("/")
    live = card(page, "Live notifications")
    press(live, "start")
    told = live.locator(".rows b", has_text="notification")
    press(live, "publish")
    expect(told.first).to_be_visible()
    before = told.count()
    press(live, "plug")
    expect(live.locator(".state")).to_have_text(re.compile("^(Unplugged|Live, resumed) after [0-9]"))
    press(live, "publish")
    press(live, "publish")
    expect(told).to_have_count(before + 2)
    press(live, "start")


def test_what_the_server_does_now(browser: Any, live_server: Callable[..., LiveServer]) -> None:
    """The charts show the streams of all workers, in numbers and in words."""
    server = live_server(WEB_CONCURRENCY=2)
    other = browser.new_context(base_url=server.url).new_page()
    other.goto("/")
    expect(other.locator("#now-state")).to_have_text("connected")
    expect(other.locator("#streams")).to_have_text("0")
    press(card(other, "Text"), "start")
    press(card(other, "Server-sent events"), "start")
    expect(other.locator("#streams")).to_have_text("2")
    expect(other.locator("#now-kinds li")).to_have_text(["text1", "events1"])
    expect(other.locator("#events")).not_to_have_text("0")
    expect(other.locator("#bytes-chart")).to_have_attribute("aria-label", re.compile("^Bytes a second: .* in the last"))
    other.context.close()


def test_copy(page: Any, server: LiveServer) -> None:
    """The copied line is a curl command with this server's address."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/")
    first = page.locator(".card").first
    press(first, "copy")
    expect(first.locator("[data-action=copy]")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"curl -N '{server.url}/api/stream?chunks=40&interval=0.5'"


def test_six_tabs_do_not_freeze_the_site(page: Any, server: LiveServer) -> None:
    """Six tabs of the map and their cards leave a connection free: a browser has six for one server."""
    tabs = [page, *(page.context.new_page() for _ in range(5))]
    for tab in tabs:
        tab.goto("/")
        press(card(tab, "Text"), "start")
        expect(card(tab, "Text").locator(".state")).not_to_be_empty()
    for tab in tabs:
        expect(tab.locator("#now-state")).to_have_text("connected")
    answered = page.context.new_page()
    answered.goto("/files", timeout=20_000)
    expect(answered.get_by_role("link", name="poem.txt", exact=True)).to_be_visible()
    eventually(lambda: server.streams() <= 5)


def test_what_cannot_be_published_is_said(browser: Any, server: LiveServer) -> None:
    """Also where the stream cannot be made first; what is published after that is said, too."""
    context = browser.new_context(base_url=server.url)  # not ``page``: a browser says of what it cannot fetch
    try:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto("/")
        page.route("**/v1/**", lambda route: route.abort())
        own = card(page, "Streams of your own")
        press(own, "publish")
        expect(own.locator(".state")).to_have_text("The server cannot be reached.")
        page.unroute("**/v1/**")
        press(own, "publish")
        expect(own.locator(".state")).to_have_text("Published")
        assert faults == []
    finally:
        context.close()


def _is_stream(response: Any) -> bool:
    """Whether it is a card's: no part of the page, and not the charts'."""
    return response.request.method != "PUT" and bool(re.search("/(api|v1)/(?!activity)", response.url))


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_card_goes_on_when_its_server_comes_again(
    browser: Any, live_server: Callable[..., LiveServer], how: str
) -> None:
    """What is handed over at a restart is not ended, and what was lost goes on: from its cursor, nothing left out."""
    titles = ("Server-sent events", "Live notifications", "Streams of your own")
    server = live_server(GRACEFUL_TIMEOUT=1)
    pages = {title: browser.new_page(base_url=server.url) for title in titles}
    try:
        for title, page in pages.items():
            page.goto("/")
            with page.expect_response(_is_stream):
                press(card(page, title), "start")
            expect(card(page, title).locator(".state")).to_have_text("Live")
        expect(card(pages["Server-sent events"], "Server-sent events").locator("li").first).to_be_attached()
        if how == "kill":
            server.kill()
            server.start()
        else:
            server.restart()
        for title, page in pages.items():
            expect(card(page, title).locator(".state")).to_contain_text("Live, resumed after", timeout=30_000)
        ticks = card(pages["Server-sent events"], "Server-sent events").locator("li:not(.seam)")
        shown = [int(text) for text in ticks.all_text_contents()]
        assert shown == list(range(len(shown)))
    finally:
        for page in pages.values():
            page.close()
