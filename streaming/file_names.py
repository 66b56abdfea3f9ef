"""The names of files that come from clients: never trusted, and never more than a name."""

from __future__ import annotations

from urllib.parse import quote

NAME_BYTES = 200
UNNAMED = "upload.bin"


def plain(name: str) -> str:
    """Return ``name`` without what makes it more than a name: a path, a leading dot, controls, too many bytes."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(c for c in last if c.isprintable()).lstrip(".")  # last: a dot may stand behind a control
    return printable.encode("utf-8", "ignore")[:NAME_BYTES].decode("utf-8", "ignore")


def numbered(name: str, number: int) -> str:
    """Return ``name`` as the first of its kind, then "name (2)", "name (3)", …, the number before the suffix."""
    if number == 1:
        return name
    stem, dot, suffix = name.rpartition(".") if "." in name.strip(".") else (name, "", "")
    return f"{stem} ({number}){dot}{suffix}"


def disposition(name: str) -> str:
    """RFC 6266 and 8187: a plain ``filename`` for old readers, ``filename*`` for every other name."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%/' else "_" for c in name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~', errors='replace')}"
    return f'attachment; filename="{plain}"{extended}'
