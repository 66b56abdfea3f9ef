"""The pages in a real Chromium, against a real server.

Expected values are those of docs/http.md and of the test's own data.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.browser import PAGES, painted, throttle
from tests.harness import LiveServer, eventually

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
]


@pytest.fixture
def topic() -> str:
    return uuid.uuid4().hex


def publish(server: LiveServer, topic: str, text: str) -> str:
    """Publish ``{"message": text}`` as a terminal does, and return its id."""
    body = json.dumps({"message": text}).encode()
    request = urllib.request.Request(f"{server.url}/api/notifications?topic={topic}", body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["id"])


def notifications(page: Any) -> list[str]:
    """The messages that the page shows, oldest first."""
    shown = page.locator("#events li", has=page.locator("b", has_text=re.compile("^notification$")))
    return [json.loads(text)["message"] for text in reversed(shown.locator("code").all_text_contents())]


# Every page


INLINE = """() => [...document.querySelectorAll("*")].filter(element =>
    element.matches("script:not([src]):not([data-module]), [style]")
    || [...element.attributes].some(({name}) => name.startsWith("on"))
).map(({outerHTML}) => outerHTML)"""
UNNAMED = """() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, progress, button")]
    .filter(({labels, ariaLabel}) => !labels?.length && !ariaLabel)
    .filter(control => !control.matches("button") || !control.textContent.trim())
    .map(({outerHTML}) => outerHTML)"""


@pytest.mark.parametrize("path", PAGES)
def test_every_page(page: Any, path: str) -> None:
    """A page loads without an error; it holds no inline style, script or handler but those of the policy; every control
    has a name for a screen reader; it fits a screen of 320 pixels without scrolling sideways."""
    answer = page.goto(path)
    assert answer.status == 200
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate(INLINE) == []
    policy = answer.headers["content-security-policy"]
    styles = page.locator("style").all_text_contents()
    assert styles
    assert {source(style) for style in styles} <= set(re.findall("style-src ([^;]+);", policy)[0].split())
    for script in page.locator("script:not([src])").all():
        assert f"script-src 'self' {source(script.text_content())};" in policy
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).display") == "flex"
    assert page.evaluate(UNNAMED) == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def source(text: str) -> str:
    """How a policy names a style or a script that stands in a page (CSP 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy(client: FlaskClient) -> None:
    """A page's policy allows its own host only, nothing inline but styles and one script of one hash each, and no frame
    around it."""
    for path in PAGES:
        headers = client.get(path).headers
        policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'self'"
        assert re.fullmatch("('sha256-[A-Za-z0-9+/]{43}='( |$))+", policy["style-src"])
        assert re.fullmatch("'self' 'sha256-[A-Za-z0-9+/]{43}='", policy["script-src"])
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize(("path", "status"), [("/video?id=nothing", 404), ("/export?table=nothing", 404)])
def test_unknown_choice(client: FlaskClient, path: str, status: int) -> None:
    """A video or a table that does not exist is a 404."""
    assert client.get(path).status_code == status


# Events


def test_events_follow(page: Any, server: LiveServer, topic: str) -> None:
    """With follow, what is published appears while the page is open, in order."""
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#events li b").last).to_have_text("connected")
    for text in ("one", "two", "three"):
        newest = publish(server, topic, text)
        expect(page.locator("#events li").first).to_contain_text(text)
    assert notifications(page) == ["one", "two", "three"]
    expect(page.locator("#last")).to_have_text(newest)


def test_events_complete(page: Any, server: LiveServer, topic: str) -> None:
    """Without follow the page shows what is stored, closes on complete and says that it is disconnected."""
    for text in ("one", "two"):
        publish(server, topic, text)
    page.goto(f"/events?topic={topic}")
    expect(page.locator("#status")).to_have_text("disconnected")
    newest = page.locator("#events li").first
    expect(newest.locator("b")).to_have_text("complete")
    assert json.loads(newest.locator("code").text_content()) == {"total": 2}
    assert notifications(page) == ["one", "two"]


def test_events_resume(page: Any, server: LiveServer, topic: str) -> None:
    """What is published while the plug is pulled comes after it is plugged in: no gap and no double."""
    page.goto(f"/events?topic={topic}&follow=1")
    publish(server, topic, "one")
    cursor = publish(server, topic, "two")
    expect(page.locator("#last")).to_have_text(cursor)
    page.click("#plug")
    expect(page.locator("#status")).to_have_text("disconnected")
    for text in ("three", "four"):
        publish(server, topic, text)
    page.click("#plug")
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#resumed")).to_have_text(cursor)
    newest = publish(server, topic, "five")
    expect(page.locator("#last")).to_have_text(newest)
    assert notifications(page) == ["one", "two", "three", "four", "five"]


def test_events_resume_under_load(page: Any, server: LiveServer, topic: str) -> None:
    """Pulling the plug again and again in the middle of a burst loses nothing and doubles nothing."""
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#status")).to_have_text("connected")
    texts = [str(number) for number in range(200)]
    publisher = threading.Thread(target=lambda: [publish(server, topic, text) for text in texts])
    publisher.start()
    while publisher.is_alive():
        page.click("#plug")
        page.click("#plug")
    publisher.join()
    expect(page.locator("#events li code", has_text=texts[-1])).to_have_count(1)
    assert notifications(page) == texts


STATES = """() => {
    window.states = [];
    const status = document.getElementById("status");
    new MutationObserver(() => window.states.push(status.textContent)).observe(status, {childList: true});
}"""


def test_events_survive_restart(browser: Any, live_server: Callable[..., LiveServer], topic: str) -> None:
    """A restart of the server costs the page its connection, and not one event; the status goes from connected to
    error, and back."""
    server = live_server()
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#status")).to_have_text("connected")
    publish(server, topic, "before")
    expect(page.locator("#events li").first).to_contain_text("before")
    page.evaluate(STATES)
    server.restart()
    publish(server, topic, "after")
    expect(page.locator("#events li").first).to_contain_text("after", timeout=20_000)
    expect(page.locator("#status")).to_have_text("connected")
    assert notifications(page) == ["before", "after"]
    states = page.evaluate("states")
    assert "error" in states
    assert states[-1] == "connected"
    context.close()


def test_events_survive_refusal(browser: Any, server: LiveServer, topic: str) -> None:
    """A 503, which ends an EventSource for good (HTML standard, 9.2.3), does not end the page's stream."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    refused: list[str] = []

    def refuse_once(route: Any) -> None:
        if route.request.method == "GET" and not refused:
            refused.append(route.request.url)
            route.fulfill(status=503)
        else:
            route.continue_()

    page.route("**/api/events*", refuse_once)
    publish(server, topic, "one")
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#events li").first).to_contain_text("one")
    expect(page.locator("#status")).to_have_text("connected")
    assert refused
    context.close()


def test_events_say_refusal(browser: Any, server: LiveServer, topic: str) -> None:
    """A refusal that time does not heal is said, and not tried again."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.route("**/api/events*", lambda route: route.fulfill(status=400))
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#detail")).to_have_text("The server refused with 400.")
    expect(page.locator("#status")).to_have_text("error")
    expect(page.locator("#connect")).to_have_text("Connect")
    context.close()


def test_events_publish(page: Any, topic: str) -> None:
    """What the form publishes comes back over the stream, and markup in it stays text."""
    page.goto(f"/events?topic={topic}&follow=1")
    expect(page.locator("#status")).to_have_text("connected")
    markup = "<img src=/nothing onerror=alert(1)> & straße"
    page.fill("#message", markup)
    page.click("#publish button")
    expect(page.locator("#published")).to_contain_text("Published")
    expect(page.locator("#events li").first).to_contain_text("straße")
    assert notifications(page) == [markup]
    assert page.locator("#events img").count() == 0


def test_a_topic_that_is_entered_is_connected(page: Any, topic: str) -> None:
    """By Enter while another one is open, and by the button while none is."""
    page.goto("/events?follow=1")
    expect(page.locator("#status")).to_have_text("connected")
    page.fill("#topic", topic)
    page.press("#topic", "Enter")
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#connect")).to_have_text("Disconnect")
    page.click("#connect")
    expect(page.locator("#status")).to_have_text("disconnected")
    page.fill("#topic", f"{topic}-2")
    page.click("#connect")
    expect(page.locator("#status")).to_have_text("connected")
    assert f"{topic}-2" in page.url


def test_connect_that_is_pressed_early_connects(page: Any, topic: str) -> None:
    """Before the page's module has come, which connects by itself."""
    held: list[Any] = []
    page.route("**/events.js", lambda route: held.append(route))
    page.goto(f"/events?topic={topic}&follow=1")
    page.click("#connect")
    eventually(lambda: page.title() and held, 15.0)
    held.pop().continue_()
    expect(page.locator("#status")).to_have_text("connected")


# Chat


def ask(page: Any, question: str) -> Any:
    """Send ``question`` and return its answer's turn."""
    painted(page)
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    return page.locator(".turn[data-role=assistant]").last


def test_chat(page: Any) -> None:
    """The answer arrives in more than one piece, and the next question carries the conversation."""
    page.goto("/chat")
    page.evaluate("""() => {
        window.pieces = 0;
        new MutationObserver(() => window.pieces++).observe(window.conversation, {childList: true, subtree: true});
    }""")
    answer = ask(page, "Hello")
    expect(answer).to_have_attribute("aria-busy", "false", timeout=30_000)
    assert answer.locator(".note").count() == 0
    assert answer.text_content().strip()
    assert page.evaluate("window.pieces") > 4
    with page.expect_request("**/api/chat*") as asked:
        expect(ask(page, "And now?")).to_have_attribute("aria-busy", "false", timeout=30_000)
    assert [message["role"] for message in asked.value.post_data_json["messages"]] == ["user", "assistant", "user"]


def test_chat_stop(page: Any) -> None:
    """Stop ends the answer where it is, keeps what came, and lets the next question through."""
    page.goto("/chat")
    answer = ask(page, "Write something long, please. " * 40)
    expect(answer.locator("p").first).not_to_be_empty()
    page.click("#stop")
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(answer.locator(".note")).to_have_text("Stopped.")
    expect(page.locator("#send")).to_be_enabled()


def test_chat_goes_on_after_a_reload_and_in_a_second_tab(page: Any) -> None:
    """The page is reloaded in the middle of an answer, and opened once more: both come to the whole of it."""
    question = " ".join(f"word{number}" for number in range(200))
    page.goto("/chat")
    expect(ask(page, question).locator("p").first).not_to_be_empty()
    second = page.context.new_page()
    for tab in (second, page):
        tab.goto("/chat")
        answer = tab.locator("[data-role=assistant]")
        expect(answer).to_have_attribute("aria-busy", "false", timeout=30_000)
        assert answer.text_content().strip().endswith(question)
        assert answer.text_content().count("I am the offline model") == 1
        assert answer.locator(".note").count() == 0


def test_chat_makes_no_markup_of_what_is_said(page: Any) -> None:
    """What a person says, and what the model says of it, stays text, whatever it looks like."""
    said = "<img src=x onerror=alert(1)> <b>bold</b> [link](javascript:alert(1))"
    page.goto("/chat")
    answer = ask(page, said)
    expect(answer).to_have_attribute("aria-busy", "false", timeout=30_000)
    assert "<img src=x onerror=alert(1)> <b>bold</b>" in answer.text_content()
    conversation = page.locator("#conversation")
    assert conversation.locator("img, b, script").count() == 0
    assert conversation.locator("a[href^='javascript:']").count() == 0


# Upload

RECORD = """name => {
    window[name] = [];
    new MutationObserver(() => {
        const bar = document.querySelector(`#uploads .${name}`);
        if (bar) window[name].push(bar.value);
    }).observe(document.getElementById("uploads"), {attributes: true, childList: true, subtree: true});
}"""


SAID = """() => {
    window.said = [];
    new MutationObserver(changes => changes.forEach(({target}) => {
        const live = target.closest?.("[role=status], [role=alert], [aria-live=polite]");
        if (live) window.said.push(live.textContent);
    })).observe(document.querySelector("main"), {childList: true, subtree: true});
}"""


def test_upload(page: Any) -> None:
    """Both bars move while the file is on its way, of which a screen reader is told the beginning and the end; the
    link at the end gives the same bytes."""
    content = os.urandom(2 * 2**20)
    page.goto("/upload")
    page.evaluate(SAID)
    throttle(page, upload_per_s=2 * 2**20)
    for name in ("sent", "stored"):
        page.evaluate(RECORD, name)
    page.set_input_files("#file", {"name": "Grüße – 川.bin", "mimeType": "", "buffer": content})
    page.click("#send")
    link = page.locator("#files a")
    expect(link).to_have_text("Grüße – 川.bin", timeout=20_000)
    for name in ("sent", "stored"):
        assert any(0 < value < len(content) for value in page.evaluate(name)), f"{name} showed no progress"
    assert page.request.get(link.get_attribute("href")).body() == content
    expect(page.locator("#uploads li")).to_have_count(0)
    assert page.evaluate("said") == ["Grüße – 川.bin: Uploading", "Stored Grüße – 川.bin."]


def test_upload_several(page: Any) -> None:
    """Each has its row and its link; one that is dropped, too."""
    page.goto("/upload")
    expect(page.locator("#file")).to_have_attribute("multiple", "")  # its module has come
    page.set_input_files("#file", [{"name": f"n-{n}.bin", "mimeType": "", "buffer": bytes(n)} for n in (1, 2, 3)])
    page.click("#send")
    expect(page.locator("#files a")).to_have_count(3)
    dropped = """() => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["dropped"], "dropped.txt"));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
    }"""
    page.evaluate(dropped)
    page.click("#send")
    expect(page.locator("#files a").first).to_have_text("dropped.txt")


def test_upload_cancel(page: Any, server: LiveServer) -> None:
    """A cancelled upload says so, leaves nothing, and can be tried again."""
    page.goto("/upload")
    throttle(page, upload_per_s=200_000)
    page.set_input_files("#file", {"name": "cancelled.bin", "mimeType": "", "buffer": bytes(4 * 2**20)})
    page.click("#send")
    expect(page.locator("#uploads .state")).to_contain_text("left")
    page.click("#uploads .cancel")
    expect(page.locator("#state")).to_contain_text("Cancelled")
    expect(page.locator("#uploads li")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('tus::'))") == []
    assert not (server.files / "uploads" / "cancelled.bin").exists()
    expect(page.locator("#send")).to_be_enabled()


def test_upload_pauses_and_goes_on(page: Any) -> None:
    """Nothing moves while it is paused; then it goes on where it stopped."""
    content = os.urandom(3 * 2**20)
    page.goto("/upload")
    throttle(page, upload_per_s=2**20)
    patches: list[int] = []
    page.on(
        "request",
        lambda asked: patches.append(int(asked.headers["upload-offset"])) if asked.method == "PATCH" else None,
    )
    page.set_input_files("#file", {"name": "paused.bin", "mimeType": "", "buffer": content})
    page.click("#send")
    expect(page.locator("#uploads .state")).to_contain_text("left")
    page.click("#uploads .pause")
    expect(page.locator("#uploads .state")).to_contain_text("Paused")
    throttle(page)
    page.click("#uploads .pause")
    link = page.locator("#files a")
    expect(link).to_have_text("paused.bin", timeout=20_000)
    assert page.request.get(link.get_attribute("href")).body() == content
    assert len(patches) == 2
    assert 0 < patches[1] < len(content)


def test_upload_survives_a_reload(page: Any, tmp_path: Path) -> None:
    """The page that was closed in the middle shows it again; the same file goes on where it stopped."""
    content = os.urandom(3 * 2**20)
    (tmp_path / "reloaded.bin").write_bytes(content)
    page.goto("/upload")
    throttle(page, upload_per_s=2**20)
    page.set_input_files("#file", tmp_path / "reloaded.bin")
    page.click("#send")
    expect(page.locator("#uploads .state")).to_contain_text("left")
    page.reload()
    expect(page.locator("#uploads .name")).to_have_text("reloaded.bin")
    patches: list[int] = []
    page.on(
        "request",
        lambda asked: patches.append(int(asked.headers["upload-offset"])) if asked.method == "PATCH" else None,
    )
    page.set_input_files("#file", tmp_path / "reloaded.bin")
    page.click("#send")
    link = page.locator("#files a")
    expect(link).to_have_text("reloaded.bin", timeout=20_000)
    assert page.request.get(link.get_attribute("href")).body() == content
    (offset,) = patches
    assert 0 < offset < len(content)


def test_upload_is_seen_in_another_tab(page: Any) -> None:
    """A second tab sees it move and come to its end, and does not touch it."""
    page.goto("/upload")
    throttle(page, upload_per_s=2**20)
    other = page.context.new_page()
    other.goto("/upload")
    other.evaluate(RECORD, "stored")
    page.set_input_files("#file", {"name": "seen.bin", "mimeType": "", "buffer": os.urandom(2 * 2**20)})
    page.click("#send")
    expect(other.locator("#uploads .name")).to_have_text("seen.bin")
    expect(other.locator("#files a")).to_have_text("seen.bin", timeout=20_000)
    assert any(0 < value < 2 * 2**20 for value in other.evaluate("stored"))
    expect(page.locator("#files a")).to_have_text("seen.bin")


# Video

SEEK = """async seconds => {
    const video = document.getElementById("video");
    if (video.readyState < 1) await new Promise(loaded => video.onloadedmetadata = loaded);
    const seeked = new Promise(seeked => video.onseeked = seeked);
    video.currentTime = seconds;
    await seeked;
    return [video.currentTime, video.duration, video.videoWidth];
}"""


def test_video_seeks(page: Any) -> None:
    """The sample plays in Chromium, a seek arrives where it was asked to, and the player used ranges."""
    answers: list[Any] = []
    page.on("response", lambda answer: answers.append(answer) if "/api/video/" in answer.url else None)
    page.goto("/video")
    # files/readme.txt: ten seconds, 640 pixels wide.
    assert page.evaluate(SEEK, 7) == [7, 10, 640]
    assert page.evaluate(SEEK, 2) == [2, 10, 640]
    assert answers
    assert all("range" in answer.request.all_headers() and answer.status == 206 for answer in answers)


def test_range_by_hand(page: Any, server: LiveServer) -> None:
    """A range typed into the page is answered with a 206 and where it lies (RFC 9110, section 14.4)."""
    length = (server.files / "videos" / "sample.mp4").stat().st_size
    page.goto("/video")
    page.fill("#bytes", "bytes=-1024")
    page.click("#range button")
    expect(page.locator("#answer")).to_contain_text(f"content-range: bytes {length - 1024}-{length - 1}/{length}")
    page.fill("#bytes", "bytes=0\u20139")  # the dash of a text that was pasted
    page.click("#range button")
    expect(page.locator("#answer")).to_contain_text(f"content-range: bytes 0-9/{length}")
    page.fill("#bytes", "\u6d41")
    page.click("#range button")
    expect(page.locator("#answer")).to_have_text("No header can say this.")


def test_posted_video_plays(page: Any, server: LiveServer) -> None:
    """A film that was posted starts and seeks in Chromium under its id."""
    id = uuid.uuid4().hex
    body = (server.files / "videos" / "sample.mp4").read_bytes()
    request = urllib.request.Request(f"{server.url}/api/video?id={id}", body, {"Content-Type": "video/mp4"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["url"] == f"/api/video/{id}"
    page.goto(f"/video?id={id}")
    assert page.evaluate(SEEK, 8) == [8, 10, 640]
    playing = """async () => {
        const video = document.getElementById("video");
        await video.play();
        await new Promise(moved => video.ontimeupdate = () => video.currentTime > 8.1 && moved());
        video.pause();
        return video.currentTime;
    }"""
    assert page.evaluate(playing) > 8.1
    (server.files / "videos" / f"{id}.mp4").unlink()


# Files


def test_files_list_and_play(page: Any) -> None:
    """The list links what it shows, and a film of it starts and seeks on the page itself."""
    page.goto("/files")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="poem.txt", exact=True).click()
    assert downloaded.value.suggested_filename == "poem.txt"
    page.locator("[data-video=sample]").click()
    expect(page.locator("#player-title")).to_have_text("sample")
    assert page.evaluate(SEEK, 7) == [7, 10, 640]
    with page.expect_download() as downloaded:
        page.click("#keep")
    assert downloaded.value.suggested_filename == "sample.mp4"


@pytest.fixture
def many(server: LiveServer) -> Iterator[list[str]]:
    """So many files that they take three pages."""
    folder = server.files / "many"
    folder.mkdir()
    names = [f"{number:03} & <b>.txt" for number in range(230)]
    for name in names:
        (folder / name).touch()
    yield [f"many/{name}" for name in names]
    shutil.rmtree(folder)


def test_files_more(page: Any, many: list[str]) -> None:
    """More fetches the next pages into the same list, until all is there, each file once and in order."""
    page.goto("/files", wait_until="networkidle")  # before the page's module is there a link is just that
    listed = page.locator("#files > li > a")
    expect(listed).to_have_count(100)
    while page.locator("#more").is_visible():
        before = listed.count()
        page.click("#more")
        expect(listed.nth(before)).to_be_visible()
    assert [text for text in listed.all_text_contents() if text.startswith("many/")] == many


def opened_elsewhere(page: Any, what: str) -> None:
    """Click on it with Control, and see that it comes in a tab of its own."""
    page.goto("/files", wait_until="networkidle")
    listed = page.locator("#files > li").count()
    with page.context.expect_page() as opened:
        page.locator(what).first.click(modifiers=["Control"])
    opened.value.close()
    expect(page.locator("#files > li")).to_have_count(listed)
    expect(page.locator("#player")).to_be_hidden()


def test_a_film_may_be_played_elsewhere(page: Any) -> None:
    opened_elsewhere(page, "#files [data-video]")


@pytest.mark.usefixtures("many")
def test_the_next_files_may_be_listed_elsewhere(page: Any) -> None:
    opened_elsewhere(page, "#more")


# Export


@pytest.mark.parametrize("label", ["CSV", "NDJSON", "JSON text sequence"])
def test_export_preview(page: Any, label: str) -> None:
    """The preview counts as many rows as were asked for, whatever line ends their fields hold."""
    page.goto("/export")
    page.get_by_label(label, exact=True).check()
    page.fill("#limit", "5000")
    page.click("#preview")
    expect(page.locator("#state")).to_have_text("Ended cleanly")
    expect(page.locator("#rows")).to_have_text("5,000")
    expect(page.locator("#wire")).not_to_be_empty()
    expect(page.locator("#verdict")).to_have_text("Complete.")
    expect(page.locator("#receipt-rows")).to_have_text("5,000")
    expect(page.locator("#receipt-keys")).to_have_text("1 … 5000")


def test_export_conditions(page: Any) -> None:
    """Conditions and the order reach the address, and only the rows that meet them come."""
    page.goto("/export")
    page.get_by_label("NDJSON", exact=True).check()
    page.click("#add")
    page.get_by_label("Column").select_option("id")
    page.get_by_label("Comparison").select_option("le")
    page.get_by_label("Value").fill("20")
    page.click("#add")
    page.get_by_label("Column").nth(1).select_option("city")
    page.get_by_label("Comparison").nth(1).select_option("null")
    page.select_option("#order", "desc")
    expect(page.locator("#url")).to_contain_text("id.le=20&city.is=null&order=desc")
    page.click("#preview")
    expect(page.locator("#state")).to_have_text("Ended cleanly")
    expect(page.locator("#receipt-keys")).to_have_text("11 … 11")
    page.get_by_label("Remove this condition").nth(1).click()
    expect(page.locator("#url")).not_to_contain_text("city")


def test_export_says_what_is_refused(browser: Any, server: LiveServer) -> None:
    """A condition that cannot be is told in the server's own sentence."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto("/export")
    page.click("#add")
    page.get_by_label("Value").fill("many")
    page.click("#preview")
    expect(page.locator("#state")).to_have_text("The column id must be an integer, and 'many' is not.")
    context.close()


def test_export_stop(page: Any) -> None:
    """The preview of a whole table can be stopped."""
    page.goto("/export")
    throttle(page, download_per_s=100_000)
    page.fill("#limit", "")
    page.click("#preview")
    expect(page.locator("#wire")).not_to_be_empty()
    page.click("#preview")
    expect(page.locator("#state")).to_have_text("Stopped")
    expect(page.locator("#preview")).to_have_text("Preview")


def test_export_download(page: Any) -> None:
    """The link downloads the chosen columns and rows as a CSV file."""
    page.goto("/export")
    boxes = page.locator("[data-column]")
    chosen = [boxes.nth(index).get_attribute("data-column") for index in (0, 1)]
    for index in range(2, boxes.count()):
        boxes.nth(index).uncheck()
    page.fill("#limit", "300")
    with page.expect_download() as downloaded:
        page.click("#download")
    assert downloaded.value.suggested_filename == "users.csv"
    with open(downloaded.value.path(), newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == chosen
    assert len(rows) == 300
    assert {len(row) for row in rows} == {2}
    expect(page.locator("#verdict")).to_have_text("Complete.")
    sha256 = hashlib.sha256(Path(downloaded.value.path()).read_bytes()).hexdigest()
    expect(page.locator("#receipt-sha256")).to_have_text(sha256)
    # What is copied from the link afterwards is an export that anybody may ask for again.
    expect(page.locator("#download")).not_to_have_attribute("href", re.compile("[?&]id="))


def test_a_proxy_s_page_that_calls_itself_json_is_said_by_its_status(browser: Any, server: LiveServer) -> None:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto("/export")
    page.route(
        "**/api/export/users*", lambda route: route.fulfill(status=502, content_type="application/json", body="<html>")
    )
    page.click("#preview")
    expect(page.locator("#state")).to_have_text("The server answered 502.")
    context.close()


# Transform


def test_transform_while_typing(page: Any) -> None:
    """The answer follows each key, and is that of the whole text in the end."""
    page.goto("/transform")
    page.locator("#text").press_sequentially("Straße ", delay=20)
    expect(page.locator("#wire")).to_have_text("STRASSE ")
    page.locator("#text").press_sequentially("zum Fluß", delay=20)
    expect(page.locator("#wire")).to_have_text("STRASSE ZUM FLUSS")
    expect(page.locator("#state")).to_have_text("Ended cleanly, 17 bytes")
    page.fill("#text", "")
    expect(page.locator("#wire")).to_be_empty()
    expect(page.locator("#received")).to_have_text("–")


def test_transform_in_a_row(page: Any) -> None:
    """Transforms are added in their order and removed again, and each change is answered."""
    page.goto("/transform")
    page.fill("#text", "id,name\n1,<b>Rhine</b>\n")
    expect(page.locator("#wire")).to_contain_text("ID,NAME")
    page.get_by_label("Remove upper").click()
    expect(page.locator("#state")).to_have_text("Choose a transform.")
    for name in ("gzip", "gunzip", "csv-to-ndjson"):
        page.select_option("#add", name)
    expect(page.locator("#wire")).to_have_text('{"id":"1","name":"<b>Rhine</b>"}\n')
    expect(page.locator("#type")).to_have_text("application/x-ndjson")
    assert page.locator("#wire b").count() == 0
    expect(page.locator("#url")).to_have_text("/api/transform?to=gzip,gunzip,csv-to-ndjson")
    for _ in range(5):
        page.select_option("#add", "upper")
    expect(page.locator("#add")).to_be_disabled()


def test_transform_says_what_is_wrong(browser: Any, server: LiveServer) -> None:
    """A refusal is shown in its own words, and the next edit is answered again."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto("/transform?to=ndjson-to-csv")
    page.fill("#text", "no json")
    expect(page.locator("#state")).to_have_text("Line 1 is no JSON object.")
    expect(page.locator("#state")).to_have_class("state failed")
    expect(page.locator("#stop")).to_be_disabled()
    page.fill("#text", '{"a":1}\n{"a":2}\n')
    expect(page.locator("#wire")).to_have_text("a\n1\n2\n")
    expect(page.locator("#state")).to_have_class("state")
    context.close()


def test_transform_a_file(page: Any) -> None:
    """A dropped archive comes back as text, and the answer can be saved."""
    text = "Der Fluß versiegt nie.\n" * 50_000
    archive = list(gzip.compress(text.encode()))
    page.goto("/transform?to=gunzip,upper")
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "fluss.txt.gz"));
            const drop = new DragEvent("drop", {dataTransfer: data, cancelable: true});
            document.getElementById("drop").dispatchEvent(drop);
        }""",
        archive,
    )
    expect(page.locator("#state")).to_have_text("Ended cleanly, 1.1 MiB")
    expect(page.locator("#wire")).to_contain_text("DER FLUSS VERSIEGT NIE.")
    with page.expect_download() as downloaded:
        page.click("#save")
    assert downloaded.value.suggested_filename == "fluss.txt.gz.txt"
    with open(downloaded.value.path(), encoding="utf-8") as file:
        assert file.read() == text.upper()


def test_transform_an_archive_is_shown_as_it_is(page: Any) -> None:
    """Bytes that are no text are shown in hex: a gzip member begins with 1f 8b (RFC 1952)."""
    page.goto("/transform?to=gzip")
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"never dry"})
    expect(page.locator("#wire")).to_have_text(re.compile("^1f 8b 08 "))
    expect(page.locator("#type")).to_have_text("application/gzip")


def test_transform_stop(page: Any, server: LiveServer) -> None:
    """Stop ends the request on both sides, and what came stays."""
    page.goto("/transform")
    throttle(page, download_per_s=100_000)
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"never dry\n" * 2**18})
    expect(page.locator("#wire")).to_contain_text("NEVER DRY")
    page.click("#stop")
    expect(page.locator("#state")).to_have_text("Stopped")
    expect(page.locator("#wire")).to_contain_text("NEVER DRY")
    expect(page.locator("#stop")).to_be_disabled()
    eventually(lambda: server.streams() == 0)


# Without scripts


@pytest.fixture
def plain(browser: Any, server: LiveServer) -> Iterator[Any]:
    """A page in a browser that runs no scripts."""
    context = browser.new_context(base_url=server.url, java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_upload_without_scripts(plain: Any, server: LiveServer) -> None:
    """The upload form stores the file by itself."""
    plain.goto("/upload")
    plain.set_input_files("#file", {"name": "plain.txt", "mimeType": "text/plain", "buffer": b"never dry"})
    with plain.expect_response("**/api/upload-progress*") as answered:
        plain.click("#send")
    assert answered.value.status == 201
    url = urllib.parse.urljoin(server.url, json.loads(plain.locator("pre").text_content())["url"])
    with urllib.request.urlopen(url, timeout=10) as file:
        assert file.read() == b"never dry"


def test_files_without_scripts(plain: Any, many: list[str]) -> None:
    """The list's next page is a link away."""
    shown: list[str] = []
    plain.goto("/files")
    while True:
        shown += plain.locator("#files > li > a").all_text_contents()
        if not (more := plain.locator("#more")).count():
            break
        plain.goto(more.get_attribute("href"))
    assert [name for name in shown if name.startswith("many/")] == many
    assert "videos/sample.mp4" in shown


def test_export_without_scripts(plain: Any) -> None:
    """The export form downloads by itself."""
    plain.goto("/export")
    with plain.expect_download() as downloaded:
        plain.get_by_role("button", name="Download CSV").click()
    assert downloaded.value.suggested_filename == "users.csv"


def test_events_without_scripts(plain: Any, server: LiveServer, topic: str) -> None:
    """The list shows what is stored, grows while it follows, and publishes by its form."""
    publish(server, topic, "one")
    plain.goto("/events")
    plain.fill("#topic", topic)
    plain.check("#follow")
    plain.click("#connect", no_wait_after=True)
    shown = plain.locator("#events li code")
    expect(shown).to_have_text(['{"status":"ok"}', '{"message":"one"}'])
    publish(server, topic, "two")
    expect(shown.last).to_have_text('{"message":"two"}')
    plain.goto(f"/events/list?topic={topic}")
    plain.fill("#message", "<b>three</b>")
    plain.get_by_role("button", name="Publish").click()
    expect(shown).to_have_count(5)
    expect(shown.nth(3)).to_have_text('{"message":"<b>three</b>"}')
    assert plain.locator("#events code b").count() == 0


def test_events_without_scripts_are_published_on_the_topic_of_the_page(plain: Any, topic: str) -> None:
    plain.goto(f"/events?topic={topic}")
    plain.fill("#message", "here")
    plain.click("#publish button")
    expect(plain).to_have_url(re.compile(f"topic={topic}$"))
    expect(plain.locator("#events")).to_contain_text('{"message":"here"}')


def test_a_list_without_scripts_comes_again_after_a_restart(
    browser: Any, live_server: Callable[..., LiveServer], topic: str
) -> None:
    """The browser itself asks for the page anew, and what was published meanwhile is in it."""
    server = live_server()
    (old,) = server.pids()
    context = browser.new_context(base_url=server.url, java_script_enabled=False)
    try:
        plain = context.new_page()
        plain.goto(f"/events/list?topic={topic}&follow=1", wait_until="commit")
        expect(plain.locator("#events li")).to_have_count(1)
        server.signal(signal.SIGHUP)
        eventually(lambda: server.pids() and old not in server.pids(), 20.0, "a new worker")
        publish(server, topic, "meanwhile")
        expect(plain.locator("#events li code").last).to_have_text('{"message":"meanwhile"}')
    finally:
        context.close()


def test_chat_without_scripts(plain: Any) -> None:
    """The answer stands in the page, and the next question goes on with the conversation."""
    plain.goto("/chat")
    for question in ("Which rivers never run dry?", "And <b>which</b> do?"):
        plain.fill("#prompt", question)
        plain.click("#send")
        expect(plain.locator(".turn[data-role=user]").last).to_have_text(question)
        expect(plain.locator(".turn[data-role=assistant]").last).to_contain_text(f"It reads: {question}")
    expect(plain.locator(".turn")).to_have_count(4)
    expect(plain.locator(".turn").last).to_contain_text("The last of your 3 messages")


def test_transform_without_scripts(plain: Any) -> None:
    """A text comes back in the page, a file as a download."""
    plain.goto("/transform")
    plain.fill("#text", "<i>Straße</i>")
    plain.get_by_label("Second transform").select_option("lines")
    plain.get_by_role("button", name="Show").click()
    expect(plain.locator("#wire")).to_have_text("1\t<I>STRASSE</I>")
    plain.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"never dry"})
    plain.get_by_label("Second transform").select_option("")
    with plain.expect_download() as downloaded:
        plain.get_by_role("button", name="Download").click()
    assert downloaded.value.suggested_filename == "a.txt.txt"
    assert Path(downloaded.value.path()).read_bytes() == b"NEVER DRY"
