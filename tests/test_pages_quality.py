"""What holds for every page: nothing that axe-core calls serious, a light weight, a quick first paint."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import pytest

from tests.browser import PAGES, painted
from tests.harness import LiveServer, eventually

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]

FORMS = [("/chat", "chat", "prompt"), ("/transform", "transform", "text")]
SAID = {
    "chat": "A message has 1 to",
    "transform": "There is nothing to transform",
    "publish": "There is nothing to publish",
}
ASSETS_BYTES = 60 * 1024
FIRST_PAINT_MS = 1000  # ten times what it is to be
MEASURE = """() => ({
    assets: performance.getEntriesByType("resource").filter(({name}) => name.includes("/assets/"))
        .map(({name, encodedBodySize, decodedBodySize}) => [name.split("/").pop(), encodedBodySize, decodedBodySize]),
    wide: document.documentElement.scrollWidth - innerWidth,
})"""
# Whether all modules have come: some are asked for behind the first paint.
QUIET = """() => {
    const resources = performance.getEntriesByType("resource");
    return performance.getEntriesByName("first-paint").length
        && (resources.length || !document.querySelector("[data-module]"))
        && performance.now() - 500 > Math.max(...resources.map(({responseEnd}) => responseEnd), 0);
}"""
FILLED = "!document.getAnimations().some(({animationName}) => animationName === 'unfold')"
RULES = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter(({impact}) => ["serious", "critical"].includes(impact))
    .map(({id, nodes}) => [id, nodes[0].html, nodes[0].failureSummary])"""


@pytest.fixture(scope="module")
def axe() -> str:
    return str(files("axe_core_python").joinpath("axe.min.js").read_text())


@pytest.mark.parametrize("path", [*PAGES, "/events/list"])
def test_every_page(page: Any, axe: str, path: str) -> None:
    """A page is painted soon, weighs little and fits 320 pixels; axe finds nothing serious, light or dark."""
    page.goto(path, wait_until="load")
    expect(page.locator("h1")).to_be_visible()
    eventually(lambda: page.evaluate(QUIET), 30.0)
    measured = page.evaluate(MEASURE)
    # The best of some visits: others work on this machine, too.
    assert any(paint(page, path) < FIRST_PAINT_MS for _ in range(8))
    own = [size for name, size, _ in measured["assets"] if name != "tus.min.js"]
    # Chromium without windows asks for no icon, and of a page without scripts there is nothing else.
    assert bool(sum(own)) >= bool(page.locator("script").count())
    assert sum(own) <= ASSETS_BYTES
    assert all(packed < size for name, packed, size in measured["assets"]), "not compressed"
    nothing_serious(page, axe)


@pytest.mark.parametrize(("path", "form", "field"), FORMS)
def test_every_page_that_a_form_gets(page: Any, axe: str, path: str, form: str, field: str) -> None:
    """The same of what a form is answered with: axe finds nothing serious, and it fits 320 pixels."""
    page.goto(path)
    page.fill(f"#{field}", "Donaudampfschifffahrt" * 20)
    with page.expect_navigation():
        page.evaluate(f"document.getElementById('{form}').submit()")  # as a browser without scripts does
    expect(page.locator("main")).to_contain_text("DONAU" if form == "transform" else "It reads")
    nothing_serious(page, axe)


@pytest.mark.parametrize(("path", "form", "field"), [*FORMS, ("/events", "publish", "message")])
def test_every_page_that_refuses_a_form(
    browser: Any, server: LiveServer, axe: str, path: str, form: str, field: str
) -> None:
    """The same of a form that nothing was written into: the page says so, and axe finds nothing serious."""
    context = browser.new_context(base_url=server.url)  # not ``page``: a browser says of each refusal that it is one
    try:
        page = context.new_page()
        page.goto(path)
        page.fill(f"#{field}", " " * 20 if form != "transform" else "")
        # Not the next navigation: /events writes what it listens to into its address meanwhile.
        with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
            page.evaluate(f"document.getElementById('{form}').submit()")
        assert answered.value.status == 400
        expect(page.locator("main")).to_contain_text(SAID[form])
        nothing_serious(page, axe)
    finally:
        context.close()


def nothing_serious(page: Any, axe: str) -> None:
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate(RULES) == [], scheme
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate(MEASURE)["wide"] <= 0


def paint(page: Any, path: str) -> float:
    """Visit the page anew, and return when it was painted first."""
    page.goto(path, wait_until="load")
    return painted(page)


def test_a_second_visit_fetches_no_asset(page: Any) -> None:
    """What a page is made of is kept by the browser."""
    fetched = (
        "performance.getEntriesByType('resource').filter(e => e.name.includes('/assets/') && e.transferSize).length"
    )

    def visit() -> int:
        page.goto("/")
        eventually(lambda: page.evaluate(QUIET), 30.0)
        return int(page.evaluate(fetched))

    assert visit() > 0
    assert visit() == 0


@pytest.mark.parametrize("height", [720, 1440])
def test_nothing_moves(page: Any, height: int) -> None:
    """What is filled behind the first paint had its place: the layout shifts by next to nothing (good is below 0.1)."""
    page.add_init_script("""window.shifted = 0; new PerformanceObserver((list) => {
        for (const {value} of list.getEntries()) window.shifted += value; }).observe({type: "layout-shift"})""")
    for path in ("/", *PAGES[2:], "/docs/operations"):  # an event that has come is shown above the others
        for width in (360, 900, 1280):
            page.set_viewport_size({"width": width, "height": height})
            page.goto(path)
            eventually(lambda: page.evaluate(QUIET), 30.0)
            eventually(lambda: page.evaluate(FILLED))
            assert page.evaluate("window.shifted") < 0.02, (path, width)


def test_what_is_done_before_the_module_comes_is_done_with_it(page: Any) -> None:
    """A card that is started and a form that is sent early are not lost, and the form is no page without scripts."""
    held: list[Any] = []
    page.route("**/home.js", lambda route: held.append(route))
    page.goto("/")
    card = page.locator(".card").first
    card.locator("[data-action=start]").click()
    eventually(lambda: page.title() and held, 15.0)
    held.pop().continue_()
    expect(card.locator(".picture")).to_contain_text("Chunk 0")
    page.route("**/events.js", lambda route: held.append(route))
    page.goto("/events")
    page.fill("#topic", "early")
    page.locator("#connect").click()
    eventually(lambda: page.title() and held, 15.0)
    held.pop().continue_()
    expect(page.locator("#status")).to_have_attribute("data-state", "disconnected")  # it is short, and has ended
    assert page.url.endswith("/events?topic=early")


def test_a_question_that_is_entered_before_the_module_comes_is_asked_with_it(page: Any) -> None:
    """Enter sends it then, and begins no new line; Shift and Enter do."""
    held: list[Any] = []
    page.route("**/chat.js", lambda route: held.append(route))
    paint(page, "/chat")
    page.fill("#prompt", "Early")
    page.press("#prompt", "Shift+Enter")
    page.keyboard.type("bird")
    page.press("#prompt", "Enter")
    assert page.input_value("#prompt") == "Early\nbird"
    eventually(lambda: page.title() and held, 15.0)
    held.pop().continue_()
    expect(page.locator("[data-role=user]")).to_have_text("Early\nbird")
    expect(page.locator("[data-role=assistant]")).to_have_attribute("aria-busy", "false", timeout=30_000)
    assert page.input_value("#prompt") == ""


@pytest.mark.parametrize(("path", "taken"), [("/transform", "#wire"), ("/upload", "#files")])
def test_files_that_are_dropped_before_the_module_comes_are_taken_with_it(page: Any, path: str, taken: str) -> None:
    """No browser opens them in the place of the page, and nothing has to be dropped anew."""
    held: list[Any] = []
    page.route(f"**{path}.js", lambda route: held.append(route))
    page.goto(path)
    dropped = page.evaluate("""() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["dry river"], "river.txt"));
        const label = document.querySelector("#drop label");
        const on = (type) => label.dispatchEvent(new DragEvent(type, {dataTransfer, bubbles: true, cancelable: true}));
        return ["dragenter", "dragover", "drop"].map(on);
    }""")
    assert dropped == [False, False, False]  # what is prevented a browser does not do itself
    if path == "/upload":
        page.click("#send")
    eventually(lambda: page.title() and held, 15.0)
    held.pop().continue_()
    expect(page.locator(taken)).to_contain_text("DRY RIVER" if path == "/transform" else "river.txt")


def test_a_form_is_sent_where_its_module_never_comes(browser: Any, server: LiveServer) -> None:
    """As it is without scripts."""
    context = browser.new_context(base_url=server.url)  # not ``page``: a browser says of what it cannot fetch
    try:
        page = context.new_page()
        page.route("**/events.js", lambda route: route.abort())
        page.goto("/events?topic=alone&follow=1")
        assert page.input_value("#topic") == "alone"
        assert page.is_checked("#follow")
        page.locator("#connect").click()
        expect(page.locator("main")).to_contain_text("No script needed")
    finally:
        context.close()


def test_every_page_by_keyboard(page: Any) -> None:
    """The first Tab leads to a link past the navigation, and it does so."""
    for path in PAGES:
        page.goto(path)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_links_into_a_document_arrive(page: Any) -> None:
    """Also at what has not been laid out yet: a link from elsewhere, and one of the contents."""
    page.goto("/docs#get-apiexport")
    expect(page.locator("#get-apiexport")).to_be_in_viewport()
    page.locator(".contents a", has_text="PUT /v1/stream/<path>").click()
    expect(page.locator("[id='put-v1streampath']")).to_be_in_viewport()
    expect(page.get_by_role("heading", name="GET /api/stream", exact=True)).not_to_be_in_viewport()


def test_the_focus_stays_where_somebody_works(page: Any) -> None:
    """By keyboard alone: what is pressed keeps the focus, and what is taken away gives it to its neighbour."""

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.dataset.action"))

    paint(page, "/")
    card = page.locator(".card").first
    card.locator("[data-action=start]").press("Enter")
    expect(card.locator(".picture")).to_contain_text("Chunk 0")
    card.locator("[data-action=plug]").press("Enter")
    expect(card.locator(".state")).to_contain_text("Unplugged")
    assert focused() == "plug"
    expect(card.locator(".state")).to_contain_text("resumed after")
    assert focused() == "plug"
    paint(page, "/export")
    page.locator("#add").press("Enter")
    page.get_by_label("Remove this condition").press("Enter")
    assert focused() == "add"
    paint(page, "/transform")
    page.get_by_label("Remove upper").press("Enter")
    assert focused() == "add"


def test_the_button_that_sends_gives_its_focus_to_the_next_message(page: Any) -> None:
    paint(page, "/chat")
    page.fill("#prompt", "Hello")
    page.locator("#send").press("Enter")
    expect(page.locator("[data-role=assistant]")).to_have_attribute("aria-busy", "false", timeout=30_000)
    assert page.evaluate("document.activeElement.id") == "prompt"


def test_a_stop_gives_its_focus_back_to_the_text(page: Any) -> None:
    held: list[Any] = []
    page.route("**/api/transform?*", lambda route: held.append(route))
    paint(page, "/transform")
    page.fill("#text", "a river")
    expect(page.locator("#stop")).to_be_enabled()
    page.locator("#stop").press("Enter")
    expect(page.locator("#state")).to_have_text("Stopped")
    assert page.evaluate("document.activeElement.id") == "text"


PIXELS = """async (png) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    return [0.2, 0.8].map((part) => [...context.getImageData(image.width * part, image.height / 2, 1, 1).data]);
}"""


def test_a_bar_is_seen_where_colours_are_forced(browser: Any, server: LiveServer) -> None:
    """What is done of it has another colour than what is not."""
    context = browser.new_context(base_url=server.url, forced_colors="active")
    page = context.new_page()
    paint(page, "/export")
    page.evaluate("Object.assign(document.getElementById('written'), {max: 2, value: 1})")
    png = base64.b64encode(page.locator("#written").screenshot()).decode()
    page.goto("about:blank")  # the pages' policy lets nothing be fetched from data:
    done, left = page.evaluate(PIXELS, png)
    assert done != left
    context.close()
