"""The docs held against the code: settings, the server's variables, routes, the changelog."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from flask import Flask

from settings import ROOT, Settings

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
HTTP = (ROOT / "docs" / "http.md").read_text()


def section(text: str, title: str) -> str:
    """What stands between ``## title`` and the next heading of that level."""
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str) -> dict[str, str]:
    """Name (in backticks) → default, the first two cells of each row."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a name stands in the table twice"
    return dict(rows)


def shown(default: object) -> str:
    """A default as the docs write it: folders below the project's own, numbers without a needless ``.0``."""
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default != "" else "empty"


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    """docs/operations.md lists exactly the settings, in their order; a default may be followed by a reading aid."""
    documented = table(section(OPERATIONS, "Settings"))
    assert list(documented) == [each.name for each in fields(Settings)]
    for each in fields(Settings):
        assert re.sub(r" \(.*\)$", "", documented[each.name]) == shown(each.default), each.name


def test_every_variable_of_the_server_process_is_in_the_docs() -> None:
    """docs/operations.md lists what gunicorn.conf.py reads, with the default it gives."""
    source = (ROOT / "gunicorn.conf.py").read_text()
    read = dict(re.findall(r"""environ\.get\("([A-Z_]+)", "([^"]*)"\)""", source))
    assert {name: f"`{default}`" for name, default in read.items()} == table(section(OPERATIONS, "The server process"))
    assert source.count("os.environ") == len(read)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_no_doc_names_a_setting_that_is_none(path: Path) -> None:
    """A capital name with an underscore in backticks is a setting, or the docs tell of something that is not there."""
    known = set(table(OPERATIONS)) | {"GUNICORN_CMD_ARGS"}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", path.read_text()))
    assert {name for name in named - known if not re.match("E?(TCP|SO|EPOLL)_|[FO]_", name)} == set()


def test_every_route_is_in_the_docs_and_every_documented_route_exists(app: Flask) -> None:
    """docs/http.md names exactly the routes of the application; HEAD and OPTIONS come with GET."""
    routes = {
        (method, re.sub(r"<\w+:", "<", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"  # Flask's own: the files of static/
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    pages = {("GET", path) for path in re.findall(r"`(/[\w/-]*)`", section(HTTP, "Pages"))}
    named = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)[^`]*`", HTTP)) | pages
    assert named == routes


def test_openapi_describes_every_route_and_no_other(app: Flask) -> None:
    """/openapi.json names exactly the routes of the application, each with the parameters of its path."""
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    described = app.test_client().get("/openapi.json").get_json()
    named = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert {each for each in named if each[0] != "HEAD"} == routes
    assert described["openapi"].startswith("3.1.")
    for path, methods in described["paths"].items():
        for operation in methods.values():
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path


def test_the_changelog_has_a_section() -> None:
    """CHANGELOG.md tells what changed, under a version or under Unreleased."""
    assert re.search(r"^## \[?(Unreleased|\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
