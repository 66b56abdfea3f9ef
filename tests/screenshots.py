"""Pictures of every page, in light, dark and at phone width: ``make screenshots``, to be looked at.

Rules:
- A server of its own, on a free port and in a folder of its own; nothing of ``instance/`` and ``files/`` is touched.
- A page is pictured while it does what it is for: cards run, events have come, a question is answered; and in the
  states that people meet: refused, cut off, in the middle, without scripts.
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

from tests.browser import throttle
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
    post(server, "/api/notifications?topic=long", {"message": "Donaudampfschifffahrt" * 20})
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
    if whole:
        show_all(page)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=whole)
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    print(f"{path.name}: {'' if wide <= 0 else f'{wide} px too wide'}")
    context.close()


def show_all(page: Page) -> None:
    """Make the window as high as the page: what is laid out when it is seen has its height only then."""
    for _ in range(2):
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": page.evaluate("innerWidth"), "height": height})
        page.wait_for_timeout(300)


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


def pull_plug(page: Page) -> None:
    page.get_by_text("connected", exact=True).first.wait_for()
    page.click("#plug")


def refuse(pattern: str) -> Callable[[Page], None]:
    """Load the page anew, in a world in which the server refuses what it asks for."""

    def prepare(page: Page) -> None:
        page.route(pattern, lambda route: route.fulfill(status=503, body="The server has no place for more."))
        page.reload()
        page.wait_for_timeout(500)

    return prepare


def ask_long(page: Page) -> None:
    page.fill("#prompt", "Why " + "Donaudampfschifffahrt" * 12 + "? " + "Because of this, and of that. " * 40)
    page.press("#prompt", "Enter")
    page.get_by_text("It reads").wait_for()


def ask_in_vain(page: Page) -> None:
    page.route("**/api/chat*", lambda route: route.fulfill(status=429, body="You have as many answers as you may."))
    page.fill("#prompt", "Is anybody there?")
    page.press("#prompt", "Enter")
    page.locator(".note.failed").wait_for()


def submit(page: Page, form: str, **fields: str) -> None:
    """As a browser without scripts does."""
    for id, text in fields.items():
        page.fill(f"#{id}", text)
    with page.expect_event("load"):  # not a navigation: that is also what a module writes into the address
        page.evaluate(f"document.getElementById('{form}').submit()")


def upload_slowly(page: Page) -> None:
    throttle(page, upload_per_s=100_000)
    file = {"name": "a-name-that-is-rather-long-" * 4 + ".bin", "mimeType": "", "buffer": bytes(2**20)}
    page.set_input_files("#file", [file])
    page.click("#send")
    page.get_by_text("s left").wait_for()


def upload_two(page: Page) -> None:
    files = [{"name": name, "mimeType": "", "buffer": b"x" * 5000} for name in ("notes.txt", "Grüße – 川.bin")]
    page.locator("#file[multiple]").wait_for()  # the form alone takes one, the page's module several
    page.set_input_files("#file", files)
    page.click("#send")
    page.locator("#files li").nth(1).wait_for()


def refuse_condition(page: Page) -> None:
    page.click("#add")
    page.get_by_label("Value").fill("many")
    page.click("#preview")
    page.locator("#state.failed").wait_for()


def type_wrong(page: Page) -> None:
    page.fill("#text", "no json")
    page.locator("#state.failed").wait_for()


def play(page: Page) -> None:
    page.locator("[data-video=sample]").click()
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
    "home-idle": ("/", look),
    "events-unplugged": ("/events?topic=garden&follow=1", pull_plug),
    "events-error": ("/events?topic=garden&follow=1", refuse("**/api/events*")),
    "events-long": ("/events?topic=long", look),
    "events-empty": ("/events/list?topic=nothing", look),
    "events-list": ("/events/list?topic=garden", look),
    "streams-none": ("/streams?prefix=nothing", look),
    "streams-unplugged": ("/streams?path=garden/weather", pull_plug),
    "chat-empty": ("/chat", look),
    "chat-running": ("/chat", ask_long),
    "chat-refused": ("/chat", ask_in_vain),
    "chat-plain": ("/chat", lambda page: submit(page, "chat", prompt="What runs dry?")),
    "upload-running": ("/upload", upload_slowly),
    "upload-stored": ("/upload", upload_two),
    "files-playing": ("/files", play),
    "export-refused": ("/export", refuse_condition),
    "transform-wrong": ("/transform?to=ndjson-to-csv", type_wrong),
    "transform-plain": ("/transform", lambda page: submit(page, "transform", text="Der Fluß <versiegt> nie.\n" * 9)),
    "chat-plain-refused": ("/chat", lambda page: submit(page, "chat", prompt=" " * 9)),
    "transform-plain-refused": ("/transform", lambda page: submit(page, "transform", text="")),
    "events-plain-refused": ("/events", lambda page: submit(page, "publish", message=" ")),
    "refused": ("/nothing-of-this-name", look),
    "login": ("/login", look),
}

if __name__ == "__main__":
    main()
