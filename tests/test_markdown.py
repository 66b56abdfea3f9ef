"""What a model writes, shown by the chat page of a real Chromium: lists, headings, and what is made to hang a browser.

Expected values are CommonMark's (0.31.2, sections 4.2, 5.2 and 5.3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.browser import painted

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def answered(page: Any, *pieces: str) -> Any:
    """Ask a model that answers with ``pieces``; return the answer's turn once the page has come to its end."""
    deltas = [{"type": "text-delta", "id": "1", "delta": piece} for piece in pieces]
    parts: Sequence[Any] = [{"type": "start", "messageId": "m"}, *deltas, {"type": "finish"}]
    frames = "".join(f"id: {number}\ndata: {json.dumps(part)}\n\n" for number, part in enumerate(parts))
    page.route("**/api/chat?*", lambda route: route.fulfill(content_type="text/event-stream", body=frames))
    page.goto("/chat")
    painted(page)
    page.fill("#prompt", "Say it")
    page.press("#prompt", "Enter")
    answer = page.locator(".turn[data-role=assistant]")
    expect(answer).to_have_attribute("aria-busy", "false", timeout=5_000)
    return answer


def test_a_list_within_a_list_leaves_its_numbers_alone(page: Any) -> None:
    """Points within a numbered one are no numbers of it, and what comes after them counts on."""
    answer = answered(page, "1. First\n   - detail\n   - more\n     - deeper\n2. Sec", "ond\n\t1. tab\n3. Third")
    numbered = answer.locator(".said > ol > li")
    assert [text.split("\n")[0] for text in numbered.all_inner_texts()] == ["First", "Second", "Third"]
    assert numbered.nth(0).evaluate("item => getComputedStyle(item).listStyleType") == "decimal"
    assert numbered.nth(0).locator("> ul > li > ul > li").all_text_contents() == ["deeper"]
    assert numbered.nth(1).locator("> ol > li").all_text_contents() == ["tab"]


@pytest.mark.parametrize(("source", "shown"), [("## About C#", "About C#"), ("## Closed ##  ", "Closed"), ("# #", "")])
def test_a_heading_loses_only_the_signs_that_close_it(page: Any, source: str, shown: str) -> None:
    answer = answered(page, f"{source}\n\nText")
    assert answer.locator("h3, h4").text_content() == shown


@pytest.mark.parametrize(
    "pieces",
    [
        [">" * 20_000 + " deep"],
        ["a", *["`" * 1000] * 100],
        ["# a", *[" " * 1000] * 60, "b"],
        ["[" * 1000] * 100,
        [f"{'  ' * depth}- point\n" for depth in range(400)],
    ],
    ids=["quotes", "backticks", "heading", "brackets", "lists"],
)
def test_no_answer_hangs_the_page(page: Any, pieces: list[str]) -> None:
    """Neither when it comes nor when the page is opened again, and the next question can be asked."""
    answered(page, *pieces)
    expect(page.locator("#send")).to_be_enabled()
    page.reload()
    expect(page.locator(".turn[data-role=assistant] .said")).not_to_be_empty(timeout=5_000)
    expect(page.locator("#fresh")).to_be_enabled()
