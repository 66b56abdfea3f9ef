"""How soon the pages are painted, in Chromium, beside a page with one line of text.

Rules:
- What Chromium itself takes is in both, and on a small machine it is most of it: the two are visited in turn, and the
  ratio is that of each pair. With its windows it takes some 25 ms more for either; measured is the headless shell,
  where it is installed.
- A first visit has an empty cache and a context of its own; the second one finds in the cache what pages share.
- A new context is a new window, whose own pages (the address bar's list) load while it opens: a visit begins when the
  browser has come to rest, as it does for whoever types an address.
- First paint is what the browser says of itself (Paint Timing, W3C), from the start of the navigation.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import processes
from bench.ground import Ground
from bench.report import NotMeasured, Report
from bench.turns import ratio
from tests.browser import ARGS, CHROMIUM, PAGES
from tests.harness import LiveServer, eventually

ROUNDS = 5
FLOOR = "/line"
ASKED_KIB = 60
_PAINT = "performance.getEntriesByName('first-paint')[0]?.startTime"
_RESTS_S, _LOOK_S, _BUSY = 5.0, 0.2, 0.1
# Whether all that belongs to the page has come: some of it is asked for behind the first paint.
_QUIET = """() => performance.now() - 500 > Math.max(0, ...performance.getEntriesByType('resource')
    .map(({responseEnd}) => responseEnd))"""
_ASSETS = """performance.getEntriesByType('resource').filter(({name}) => name.includes('/assets/')
    && !name.includes('/vendor/')).reduce((sum, {encodedBodySize}) => sum + encodedBodySize, 0)"""


def paints(ground: Ground) -> None:
    measure(ground.report, ground.folder("painting"), rounds=1 if ground.quick else ROUNDS)


def measure(report: Report, folder: Path, pages: Sequence[str] = PAGES, rounds: int = ROUNDS) -> None:
    """Add a row for each page; ``folder`` is the server's."""
    report.table(
        f"First paint in Chromium, beside a page of one line (median of {rounds}, in turn)",
        "page", "first visit", "floor", "ratio", "second visit", "floor", "ratio", "own assets, gzip", "asked for",
    )  # fmt: skip
    with processes.ours(folder, application="bench.empty:app") as server, _chromium() as browser:
        _visits(browser, server, FLOOR)  # the first of all finds a browser that has just been started
        for path in pages:
            report.row(*_row(path, [_pair(browser, server, path) for _ in range(rounds)]))


@contextmanager
def _chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # here: only this part of the bench needs requirements-dev.txt

    if not CHROMIUM:
        raise NotMeasured("Chromium is not installed (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


def _pair(browser: Any, server: LiveServer, path: str) -> tuple[float, float, float, float, int]:
    """The page's two paints and those of the floor, in milliseconds, and the bytes of the page's assets."""
    first, second, assets = _visits(browser, server, path)
    floor_first, floor_second, _ = _visits(browser, server, FLOOR)
    return first, floor_first, second, floor_second, assets


def _visits(browser: Any, server: LiveServer, path: str) -> tuple[float, float, int]:
    context = browser.new_context(base_url=server.url)
    try:
        page = context.new_page()
        _at_rest(browser)
        page.goto(path, wait_until="load")
        first = _painted(page)
        eventually(lambda: page.evaluate(_QUIET), 30.0)
        assets = int(page.evaluate(_ASSETS))
        _at_rest(browser)
        page.goto(path, wait_until="load")
        return first, _painted(page), assets
    finally:
        context.close()


def _at_rest(browser: Any) -> None:
    """Return when the browser's processes take less than a tenth of one processor, or after ``_RESTS_S``."""
    session = browser.new_browser_cdp_session()
    deadline, before = time.monotonic() + _RESTS_S, _taken_s(session)
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        if (now := _taken_s(session)) - before < _BUSY * _LOOK_S:
            break
        before = now
    session.detach()


def _taken_s(session: Any) -> float:
    """The processor time of all the browser's processes, as it counts it itself."""
    return sum(float(each["cpuTime"]) for each in session.send("SystemInfo.getProcessInfo")["processInfo"])


def _painted(page: Any) -> float:
    # Asked from here: a page's policy lets nobody evaluate a text in it again and again.
    return float(eventually(lambda: page.evaluate(_PAINT), 30.0))


def _row(path: str, pairs: Sequence[tuple[float, float, float, float, int]]) -> Iterator[str]:
    first, floor_first, second, floor_second, assets = zip(*pairs, strict=True)
    yield f"`{path}`"
    for own, floor in ((first, floor_first), (second, floor_second)):
        yield f"{statistics.median(own):.0f} ms"
        yield f"{statistics.median(floor):.0f} ms"
        yield str(ratio(own, floor))
    yield f"{assets[0] / 1024:.1f} KiB"
    yield f"< 100 ms, < {ASKED_KIB} KiB"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measure(Report(), Path(folder), sys.argv[1:] or PAGES)
