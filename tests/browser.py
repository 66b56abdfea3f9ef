"""A real Chromium for the tests of the pages: one a module, and pages in it that complain of nothing.

Rules:
- A page fails its test when it says an error on its console, or asks another host for anything.
- Where the headless shell is installed it is that, as Playwright's own: the same engine without the windows around it,
  which take as much of a small machine again.
- Without Playwright or Chromium whoever needs them is skipped, and says why.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import LiveServer, eventually

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# How long what is expected may take on a machine that does other things, too.
PATIENCE_MS = 15_000
PAGES = (
    "/",
    "/events",
    "/streams",
    "/chat",
    "/upload",
    "/files",
    "/video",
    "/export",
    "/transform",
    "/docs",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: LiveServer) -> Iterator[Any]:
    """A page that may neither complain on its console nor ask another host for anything."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda asked: None if asked.url.startswith(server.url) else complaints.append(asked.url))
    yield page
    context.close()
    # A stream that its page closes, and a range that the video player no longer needs, are aborted by intent.
    assert [text for text in complaints if "ERR_ABORTED" not in text] == []


def painted(page: Any) -> float:
    """Return when the page was painted first, once it is: before that Chromium may lose a focus that a script gives.

    Asked from here: a page's policy lets nobody evaluate a text in it again and again.
    """
    return float(eventually(lambda: page.evaluate("performance.getEntriesByName('first-paint')[0]?.startTime"), 30.0))


def throttle(page: Any, upload_per_s: int = -1, download_per_s: int = -1) -> None:
    """Slow the page's network down to so many bytes a second (-1: as fast as it goes)."""
    conditions = {
        "offline": False,
        "latency": 0,
        "uploadThroughput": upload_per_s,
        "downloadThroughput": download_per_s,
    }
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)
