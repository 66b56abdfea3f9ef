"""Files are opened below their folder and nowhere else, and their names are written as RFC 6266 and 8187 say."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from settings import Settings
from streaming.errors import NotFound
from streaming.files import _disposition
from streaming.folders import open_below

SECRET = b"nobody may read this"


@pytest.fixture
def root(settings: Settings) -> Iterator[Path]:
    """A folder of files, with all that must not be served in it and beside it."""
    root = settings.FILES_DIR
    (root / "folder" / ".hidden").mkdir(parents=True)
    (root / "open.txt").write_bytes(b"open")
    (root / "folder" / "in ner.txt").write_bytes(b"inner")
    (root / "100%.txt").write_bytes(b"percent")
    (root / "..a").write_bytes(SECRET)
    (root / ".env").write_bytes(SECRET)
    (root / "folder" / ".hidden" / "file").write_bytes(SECRET)
    (root.parent / "secret.txt").write_bytes(SECRET)
    (root.parent / "files-too").mkdir()
    (root.parent / "files-too" / "secret.txt").write_bytes(SECRET)
    (root / "link-in").symlink_to("open.txt")
    (root / "link-out").symlink_to("../secret.txt")
    (root / "link-abs").symlink_to(root.parent / "secret.txt")
    (root / "link-folder").symlink_to("..")
    (root / "link-self").symlink_to("link-self")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        with chdir(root):  # a socket's path may have 107 bytes
            listener.bind("socket")
        yield root


EVIL = [
    "",
    ".",
    "..",
    "../secret.txt",
    "folder/../../secret.txt",
    "folder/../open.txt",
    "./open.txt",
    "/open.txt",
    "/etc/passwd",
    "//etc/passwd",
    "open.txt/",
    "open.txt/.",
    "open.txt/x",
    "folder",
    "folder/",
    "folder//in ner.txt",
    "..a",
    ".env",
    "folder/.hidden/file",
    "link-in",
    "link-out",
    "link-abs",
    "link-self",
    "link-folder/secret.txt",
    "link-folder/files/open.txt",
    "fifo",
    "socket",
    "missing",
    "missing/missing",
    "open.txt\0",
    "\0",
    "open.txt\0.png",
    "..\\secret.txt",
    "x" * 300,
    "é" * 200,
    "a/" * 3000 + "a",
    "\udcff",
    "\ud800/open.txt",
    "../files-too/secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("path", EVIL)
def test_everything_but_a_regular_file_is_not_found(root: Path, path: str) -> None:
    """Another kind, a hidden name, a link, a way out, no name at all: NotFound, at once, and no descriptor is left."""
    before = descriptors()
    with pytest.raises(NotFound):
        open_below(root, path)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("path", "content"), [("open.txt", b"open"), ("folder/in ner.txt", b"inner"), ("100%.txt", b"percent")]
)
def test_a_file_below_the_folder_is_opened(root: Path, path: str, content: bytes) -> None:
    """Also in a folder within, and under a name that looks encoded."""
    with open_below(root, path) as file:
        assert file.read() == content


def test_a_device_is_not_found(root: Path) -> None:
    """/dev/zero below the folder would be an endless download."""
    try:
        os.mknod(root / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(NotFound):
        open_below(root, "zero")


def test_a_name_of_bytes_that_are_no_utf_8(root: Path) -> None:
    """It can lie there; nothing that a URL decodes to names it, and the attempt is no failure."""
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt"))).write_bytes(SECRET)
    with pytest.raises(NotFound):
        open_below(root, "\ufffd.txt")


def test_a_file_that_may_not_be_read_is_not_found(root: Path) -> None:
    """Who may not read it need not know of it."""
    (root / "open.txt").chmod(0)
    if os.access(root / "open.txt", os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(NotFound):
        open_below(root, "open.txt")


ENCODED = [
    "../secret.txt",
    "..%2fsecret.txt",
    "..%2Fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "..%252fsecret.txt",
    "..%5csecret.txt",
    "..\\secret.txt",
    "folder/..%2f..%2fsecret.txt",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "..%c0%afsecret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "open.txt%00",
    "open.txt%00.png",
    "%00",
    ".env",
    "%2eenv",
    "folder/.hidden/file",
    "link-out",
    "link-in",
    "fifo",
    "folder",
    "folder/",
    "%ff.txt",
    "%ed%a0%80",
    "%0aopen.txt",
    "x" * 300,
    "open.txt/",
    "open.txt%2f",
    "..;/secret.txt",
    "．．/secret.txt",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ENCODED)
def test_no_url_leads_out(root: Path, client: FlaskClient, path: str, method: str) -> None:
    """Whatever the encoding: a 404 as problem+json, for HEAD too, and never a byte of what lies elsewhere."""
    with client.open("/api/download/" + path, method=method, follow_redirects=True) as response:
        assert SECRET not in response.data
        assert b"root:" not in response.data
        assert response.status_code == 404
        assert response.content_type == "application/problem+json"


def test_a_download_says_what_it_is(root: Path, client: FlaskClient) -> None:
    """An attachment with its length, its type as the name has it, and nothing for a browser to guess."""
    with client.get("/api/download/folder/in%20ner.txt") as response:
        assert (response.status_code, response.data) == (200, b"inner")
        assert response.headers["Content-Length"] == "5"
        assert response.headers["Content-Disposition"] == 'attachment; filename="in ner.txt"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.content_type.startswith("text/plain")


def test_a_compressed_file_has_the_type_of_its_compression(root: Path, client: FlaskClient) -> None:
    """rows.csv.gz is sent as it is: as text/csv, without a Content-Encoding, it would be no CSV."""
    (root / "rows.csv.gz").write_bytes(b"\x1f\x8b")
    with client.get("/api/download/rows.csv.gz") as response:
        assert "Content-Encoding" not in response.headers
        assert response.content_type in ("application/gzip", "application/octet-stream")


@pytest.mark.parametrize("id", ["../open", "a/b", ".", "a.b", "x" * 65, "ä", "%00", "..%2fopen", "a%0a", "missing"])
def test_what_is_no_video_is_not_found(root: Path, client: FlaskClient, id: str) -> None:
    """Not an id by its characters, or none that is there."""
    (root / "videos" / "a.mp4").write_bytes(b"video")
    with client.get(f"/api/video/{id}", follow_redirects=True) as response:
        assert (response.status_code, response.content_type) == (404, "application/problem+json")


def test_a_video_is_shown_inline(root: Path, client: FlaskClient) -> None:
    """As video/mp4, and a range of it as 206 (RFC 9110, 15.3.7)."""
    (root / "videos" / "a-B_1.mp4").write_bytes(b"0123456789")
    with client.get("/api/video/a-B_1", headers={"Range": "bytes=2-4"}) as response:
        assert (response.status_code, response.data, response.content_type) == (206, b"234", "video/mp4")
        assert response.headers["Content-Range"] == "bytes 2-4/10"
        assert response.headers["Content-Disposition"] == "inline"


def test_a_file_that_shrinks_is_cut(root: Path, client: FlaskClient) -> None:
    """Fewer bytes than announced are never a clean end: the next response's bytes would fill them."""
    (root / "big").write_bytes(b"x" * 2**20)
    with client.get("/api/download/big") as response:
        blocks = response.iter_encoded()
        next(blocks)
        os.truncate(root / "big", 300_000)
        with pytest.raises(BrokenPipeError):
            list(blocks)


# Content-Disposition

# RFC 6266, 4.1, with RFC 9110's token and quoted-string, and RFC 8187's ext-value.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
EXT = r"UTF-8''((?:%[0-9A-F]{2}|[A-Za-z0-9!#$&+.^_`|~-])+)"
HEADER = re.compile(rf"attachment; filename=({TOKEN}|{QUOTED})(?:; filename\*={EXT})?")


def parsed(header: str) -> str:
    """The name as a reader of today sees it: filename* before filename (RFC 6266, 4.3)."""
    match = HEADER.fullmatch(header)
    assert match, header
    if match[2] is not None:
        return unquote(match[2], errors="strict")
    return re.sub(r"\\(.)", r"\1", match[1][1:-1]) if match[1].startswith('"') else match[1]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        # RFC 6266, section 5: example.html as a token, "an example.html" quoted, and the euro sign in filename*.
        ("example.html", "attachment; filename=example.html"),
        ("an example.html", 'attachment; filename="an example.html"'),
        ("€ rates", "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
        # RFC 8187, section 3.2.3
        ("£ and € rates", "attachment; filename=\"_ and _ rates\"; filename*=UTF-8''%C2%A3%20and%20%E2%82%AC%20rates"),
    ],
)
def test_a_name_is_written_as_the_rfc_has_it(name: str, header: str) -> None:
    """The RFCs' own examples."""
    assert _disposition(name) == header


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60))
@example('a"b\\c.txt')
@example("100%25.txt")
@example("a\r\nSet-Cookie: evil=1")
@example("'quote' (1); x=y.txt")
@example("日本語 🙂.tar.gz")
@example("\u202egnp.exe")
def test_any_name_comes_back(name: str) -> None:
    """The header keeps to the grammar, so nothing of a name can be taken for a header; a reader gets the very name."""
    assert parsed(_disposition(name)) == name


def test_a_name_that_is_no_unicode_is_written_all_the_same() -> None:
    """A file system may hold such a name; the header stays ASCII."""
    assert HEADER.fullmatch(_disposition("a\udcff.txt"))
