"""Pictures of every page, in light, dark and at phone width: ``make screenshots``, to be looked at.

Rules:
- A server of its own, on a free port and in a folder of its own; nothing of ``instance/`` and ``files/`` is touched.
- A page is pictured while it does what it is for: cards run, events have come, a question is answered.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.harness import ROOT, LiveServer

ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 780}, "color_scheme": "light"},
    "narrow": {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"},
}


# Those of the README, at the size of a screen.
README = (("home", "light"), ("streams", "dark"))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--to", type=Path, default=ROOT / "screenshots", help="where the pictures go")
    asked.add_argument("--readme", action="store_true", help="make those of the README anew, in docs/images/")
    asked.add_argument("pages", nargs="*", help="names of pages; all without any")
    chosen = asked.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LiveServer(Path(folder)).start()
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        try:
            fill(server)
            for name, look in README if chosen.readme else every(chosen.pages):
                to = ROOT / "docs" / "images" if chosen.readme else chosen.to
                picture(browser, server, name, look, to / f"{name}-{look}.png", whole=not chosen.readme)
        finally:
            browser.close()
            server.stop()


def every(names: list[str]) -> list[tuple[str, str]]:
    return [(name, look) for name in names or PAGES for look in LOOKS]


def fill(server: LiveServer) -> None:
    """Give the server something to show."""
    for number, text in enumerate(("The kettle is on", "Rain since dawn", "Seedlings are up"), 1):
        post(server, "/api/notifications?topic=garden", {"message": text, "bed": number})
    for path, rows in (("garden/notes", 12), ("garden/weather", 40), ("rivers", 3)):
        post(server, f"/v1/stream/{path}", [{"n": n, "said": f"line {n}"} for n in range(rows)], "PUT")


def post(server: LiveServer, path: str, value: object, method: str = "POST") -> None:
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(server.url + path, json.dumps(value).encode(), headers, method=method)
    urllib.request.urlopen(asked, timeout=10).close()


def picture(browser: Browser, server: LiveServer, name: str, look: str, path: Path, whole: bool) -> None:
    context = browser.new_context(base_url=server.url, **LOOKS[look])
    page = context.new_page()
    page.on("console", lambda said: print(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: print(error))
    url, prepare = PAGES[name]
    page.goto(url)
    prepare(page)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=whole)
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    print(f"{path.name}: {'' if wide <= 0 else f'{wide} px too wide'}")
    context.close()


def run_cards(page: Page) -> None:
    def press(title: str, action: str) -> None:
        card = page.locator(".card", has=page.get_by_role("heading", name=title, exact=True))
        card.locator(f"[data-action={action}]").evaluate("button => button.click()")  # nothing, when it has ended

    for title in ("Text", "Server-sent events", "Chat for the AI SDK", "CSV export"):
        press(title, "start")
    page.get_by_text(" of 11.5 MiB").wait_for()
    for title in ("Chat for the AI SDK", "Text", "Server-sent events", "CSV export"):
        press(title, "plug")
    page.wait_for_timeout(6000)


def ask(page: Page) -> None:
    page.fill("#prompt", "What does a stream need to survive a lost connection?")
    page.press("#prompt", "Enter")
    page.locator(".turn[aria-busy=false]").last.wait_for()


def preview(page: Page) -> None:
    page.fill("#limit", "5000")
    page.click("#preview")
    page.locator("#receipt").wait_for()


def type_text(page: Page) -> None:
    page.fill("#text", "The river never runs dry.\nDer Fluß versiegt nie.\nΟ ποταμός δεν στερεύει ποτέ.\n")
    page.get_by_text("Ended cleanly").wait_for()


def look(page: Page) -> None:
    page.wait_for_timeout(500)


PAGES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "home": ("/", run_cards),
    "events": ("/events?topic=garden&follow=1", look),
    "streams": ("/streams?path=garden/notes", look),
    "chat": ("/chat", ask),
    "upload": ("/upload", look),
    "files": ("/files", look),
    "video": ("/video", look),
    "export": ("/export", preview),
    "transform": ("/transform", type_text),
    "docs": ("/docs", look),
}

if __name__ == "__main__":
    main()
