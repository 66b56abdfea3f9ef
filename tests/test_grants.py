"""Patterns, scopes, tokens in links, names of hosts: the pure parts of access control, as docs/security.md has them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import origins, static_tokens
from streaming.grants import Caller, Grants, Need, owns, scopes
from streaming.url_tokens import without


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("/topics/kitchen", "/topics/kitchen", True),
        ("/topics/kitchen", "/topics/kitchens", False),
        ("/topics/kitchen", "/topics/kitchen/oven", False),
        ("/topics/*", "/topics/kitchen", True),
        ("/topics/*", "/topics", False),
        ("/topics/*", "/topicsx", False),
        ("/v1/stream/chat/*", "/v1/stream/chat/a/b", True),
        ("/v1/stream/chat/*", "/v1/stream/chatter", False),
        ("/files/public/*", "/files/public/../secret", False),
        ("/files/public/*", "/files/public/./a", False),
        ("/files/public/*", "/files/public//a", False),
        ("/files/*", "/files/", True),
        ("/files/public/*", "/files/", False),
        ("/*", "/anything", True),
        ("*", "/files/../..", True),
    ],
)
def test_a_pattern_covers_a_path_and_what_is_below_it(pattern: str, path: str, covered: bool) -> None:
    """A pattern is a path, or everything below one; no way around by dots, a prefix or a doubled slash."""
    assert Grants(read=(pattern,)).cover("read", path) is covered
    assert not Grants(read=(pattern,)).cover("write", path)
    assert Grants(write=(pattern,)).cover("write", path) is covered


@pytest.mark.parametrize("scope", ["", "read", "read:", "all:/x", "read:x", "read:/a*", "read:/*/b", "/x", "read:/a b"])
def test_what_is_no_scope_is_refused(scope: str) -> None:
    """A scope that could be misread grants nothing: it stops the start."""
    with pytest.raises(ValueError, match=r"no (scope|pattern)"):
        scopes([scope])


def test_a_star_is_everything() -> None:
    """``*`` reads and writes everything, ``read:*`` only reads."""
    assert scopes(["*"]) == Grants(("*",), ("*",))
    assert scopes(["read:*", "write:/topics/a"]) == Grants(("*",), ("/topics/a",))


def test_what_is_ones_own_needs_no_grant() -> None:
    """An id with the caller's mark may be used by it, and by nobody else without a grant."""
    ann, bob = Caller("token:ann", Grants()), Caller("token:bob", Grants())
    need = Need("write", "/uploads/x", f"abc-{ann.mark}")
    assert ann.may(need)
    assert not bob.may(need)
    assert not owns("", "abc-")


@given(st.text(st.characters(categories=["L", "N", "P"], max_codepoint=0x2FF), max_size=20))
def test_a_pattern_of_another_folder_never_covers(name: str) -> None:
    """Whatever a file is called, the grant of one folder does not reach into another."""
    assert not Grants(read=("/files/a/*",)).cover("read", f"/files/b/{name}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ci", "SHA-256"),
        ("ci deadbeef *", "SHA-256"),
        (f"ci {'0' * 64}", "grants nothing"),
        (f"c i {'0' * 64} *", "SHA-256"),
        (f"ci {'0' * 64} read", "no pattern"),
        (f"ci {'0' * 64} *; ci {'1' * 64} *", "two entries"),
    ],
)
def test_api_tokens_that_cannot_be_read_say_why(text: str, words: str) -> None:
    """An entry of API_TOKENS with a mistake in it stops the start with a sentence."""
    with pytest.raises(ValueError, match=words):
        static_tokens.read(text)


def test_a_token_is_kept_as_its_hash() -> None:
    """``API_TOKENS`` has SHA-256 in hex (as ``sha256sum`` gives it), with or without a prefix, and never the token."""
    token = static_tokens.make()
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert token not in static_tokens.entry("ci", static_tokens.hashed(token), ["*"])
    for text in (f"ci {digest} read:/a", f"\n ci  sha256:{digest}  read:/a ;\n"):
        assert static_tokens.read(text) == {digest: Caller("token:ci", Grants(("/a",)))}


@pytest.mark.parametrize(
    ("text", "left", "token"),
    [
        ("token=abc", "", "abc"),
        ("a=1&token=abc", "a=1", "abc"),
        ("token=abc&a=1", "a=1", "abc"),
        ("a=1&token=abc&b=2", "a=1&b=2", "abc"),
        ("/api/events?token=abc", "/api/events", "abc"),
        ("/api/events?token=abc&topic=a", "/api/events?topic=a", "abc"),
        ("/api/events?topic=a&token=abc#top", "/api/events?topic=a#top", "abc"),
        ("TOKEN=abc&a=1", "a=1", "abc"),
        ("mytoken=abc", "mytoken=abc", ""),
        ("token.eq=abc", "token.eq=abc", ""),
        ("a=1", "a=1", ""),
    ],
)
def test_a_token_is_taken_out_of_a_url(text: str, left: str, token: str) -> None:
    """What is left of a URL or a query has no token in it, and is the same otherwise."""
    assert without(text) == (left, token)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("evil.example", False),
        ("", False),
    ],
)
def test_a_name_of_this_machine(host: str, loopback: bool) -> None:
    """Names that can mean nothing but this machine (RFC 6761, 6.3; RFC 1122, 3.2.1.3; RFC 4291, 2.5.3)."""
    assert origins.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("header", "trusted"),
    [
        ("perennial.example", True),
        ("Perennial.Example:8443", True),
        ("perennial.example.", True),
        ("a.perennial.example", False),
        ("evil-perennial.example", False),
        ("x.internal.example:80", True),
        ("internal.example", True),
        ("xinternal.example", False),
        ("[::1]:8000", True),
    ],
)
def test_a_host_is_trusted_by_its_whole_name(header: str, trusted: bool) -> None:
    """A name, or with a dot before it all below it; ports do not count (RFC 9110, 7.2)."""
    assert origins.is_trusted(header, {"perennial.example", ".internal.example", "[::1]"}) is trusted


HERE = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost:8000"}


@pytest.mark.parametrize(
    ("headers", "allowed", "may"),
    [
        ({}, set(), True),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, set(), True),
        ({"HTTP_SEC_FETCH_SITE": "none"}, set(), True),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, set(), False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, set(), False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "http://localhost:8000"}, set(), False),
        ({"HTTP_ORIGIN": "http://localhost:8000"}, set(), True),
        ({"HTTP_ORIGIN": "http://localhost:8001"}, set(), False),
        ({"HTTP_ORIGIN": "https://localhost:8000"}, set(), False),
        ({"HTTP_ORIGIN": "null"}, set(), False),
        ({"HTTP_ORIGIN": "https://app.example", "HTTP_SEC_FETCH_SITE": "cross-site"}, {"https://app.example"}, True),
        ({"HTTP_ORIGIN": "https://app.example.evil"}, {"https://app.example"}, False),
    ],
)
def test_who_may_write_from_a_page(headers: dict[str, str], allowed: set[str], may: bool) -> None:
    """Fetch Metadata first, then Origin; who sends neither is no page; an origin of the list may."""
    assert origins.may_write(HERE | headers, allowed) is may
