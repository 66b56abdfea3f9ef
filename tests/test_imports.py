"""Who may import whom: the house's rules, held by reading the import statements."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PURE = {
    f"streaming.{name}"
    for name in (
        "events",
        "framings",
        "table_framings",
        "parsing",
        "ranges",
        "tus",
        "errors",
        "chat_parts",
        "chat_framings",
        "page_framings",
        "completion_framings",
        "transforms",
        "utf8",
        "normal_form",
        "compression",
        "content_codings",
        "delimited",
        "whole_records",
        "pipeline",
        "event_lines",
        "positions",
        "digests",
        "file_names",
        "rates",
        "upload_draft",
        "conditions",
        "lost",
        "media_types",
        "memory",
        "grants",
        "origins",
        "static_tokens",
        "url_tokens",
        "assets",
        "openapi",
        "openapi_routes",
        "openapi_access",
        "openapi_pages",
        "openapi_transfers",
    )
}
# What stores promise: all that the others may know of them.
PROTOCOLS = ("stores.base", "stores.bodies", "stores.tables")
PACKAGES = {"blueprints", "streaming", "stores", "llm"}
MODULES = {"access_log", "app", "wsgi", "worker", "relief", "flags", "housekeeping", "processors", "doctor", "settings"}
# Who (a module, a package, or a kind of module) may import which of ours; a package means all its modules.
MAY_IMPORT = {
    "wsgi": {"app", "flags"},
    "access_log": set(),
    "gunicorn.conf": {
        "access_log",
        "app",
        "settings",
        "worker",
        "relief",
        "flags",
        "housekeeping",
        "processors",
        "stores.sqlite_library",
        "streaming",
    },
    "worker": {"relief", "streaming"},
    "relief": {"streaming.memory"},
    "flags": set(),
    "housekeeping": {"stores.errors", "streaming"},
    "processors": set(),
    "doctor": set(),
    "app": {"settings", "doctor", "processors", "blueprints", "streaming", "stores", "llm"},
    "settings": set(),
    "blueprints": {"settings", "streaming", *PROTOCOLS, "stores.errors", "llm"},
    "llm": {"settings", "llm", *PURE},
    "pure": PURE,
    "streaming": {"settings", "streaming", *PROTOCOLS, "stores.errors"},
    **dict.fromkeys(PROTOCOLS, PURE),
    "stores.base": {"stores.errors", *PURE},
    "stores.errors": set(),
    "stores": {"stores", *PURE},
}
LIBRARY = sorted(
    path for pattern in ("*.py", *(f"{package}/**/*.py" for package in PACKAGES)) for path in ROOT.glob(pattern)
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Each imported module, ``from package import module`` as ``package.module``; those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            submodules = {
                alias.name for alias in node.names if (ROOT / source.replace(".", "/") / f"{alias.name}.py").exists()
            }
            yield from (f"{source}.{name}" for name in submodules)
            if len(submodules) < len(node.names):
                yield source


def impure(path: Path) -> set[str]:
    """What a module imports and a pure one may not: third parties but encoders, sockets, threads, impure modules."""
    # isal and backports.zstd (compression.zstd since 3.14) are codecs as zlib is: bytes in, bytes out.
    codecs = {"msgspec", "isal", "backports", "compression"}
    free = (set(sys.stdlib_module_names) | codecs) - {"socket", "select", "threading"}
    return {each for each in imports(path) if each.split(".")[0] not in free and each not in PURE}


def allowed(name: str) -> set[str]:
    kind = "pure" if name in PURE else name
    return MAY_IMPORT.get(kind) or MAY_IMPORT.get(name.split(".")[0], set())


def parents(name: str) -> set[str]:
    """``a.b.c`` → a, a.b, a.b.c"""
    parts = name.split(".")
    return {".".join(parts[: end + 1]) for end in range(len(parts))}


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_a_module_imports_only_what_its_place_allows(path: Path) -> None:
    """A module imports only those of ours that MAY_IMPORT gives it."""
    name = module_name(path)
    ours = {each for each in imports(path) if each.split(".")[0] in PACKAGES | MODULES}
    assert {each for each in ours if not parents(each) & allowed(name)} == set()


@pytest.mark.parametrize("path", [path for path in LIBRARY if module_name(path) in PURE], ids=module_name)
def test_a_pure_module_knows_the_standard_library_and_an_encoder(path: Path) -> None:
    """A pure module runs without Flask, gevent or a socket: it can be fed byte by byte in a test."""
    assert impure(path) == set()


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if module_name(path).startswith(("stores", "llm"))], ids=module_name
)
def test_stores_and_models_know_no_flask(path: Path) -> None:
    """What is kept, and the model, can be used without a request."""
    assert not {"flask", "werkzeug", "gunicorn"} & {each.split(".")[0] for each in imports(path)}


def test_what_is_pure_is_listed() -> None:
    """A pure module that is new or renamed does not slip out of its rule: PURE has all of them."""
    unlisted = [path for path in LIBRARY if path.parent.name == "streaming" and module_name(path) not in PURE]
    assert [path.name for path in unlisted if path.stem != "__init__" and not impure(path)] == []


def test_every_rule_has_its_module() -> None:
    """The table names nothing that is not there."""
    names = {module_name(path) for path in LIBRARY}
    assert names >= {name for name in MAY_IMPORT if name != "pure"}
