"""What a request asks for: its parameters with their bounds, and the cursor that it continues from.

Rules:
- Every value out of its bounds, given twice or unknown is a 400 that names its parameter.
- A Last-Event-ID comes from a browser on its own: it is never a 400 (that would end the EventSource for good).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from flask import request

from streaming.errors import BadRequest


class Parameters:
    """The query of the current request, of which only ``names`` and ``lists`` are known; these may come often.

    ``endings``: a name that ends with one of these is known too, whatever stands before it.
    """

    def __init__(self, *names: str, lists: Sequence[str] = (), endings: tuple[str, ...] = ()) -> None:
        for name in request.args if request.query_string else ():
            if name in lists or name.endswith(endings):
                continue
            if name not in names:
                known = ", ".join((*lists, *names)) or "none"
                raise BadRequest(f"{_shown(name)} is not a parameter of this route; it knows {known}.", parameter=name)
            if len(request.args.getlist(name)) > 1:
                raise BadRequest(f"{name} was given more than once.", parameter=name)

    def has(self, name: str) -> bool:
        return name in request.args

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        text = request.args.get(name)
        if text is None:
            return default
        # int() takes "1_000", " 1" and other scripts' digits; a query does not. 18 digits bound the work.
        value = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
        if value is None or not least <= value <= most:
            raise BadRequest(
                f"{name} must be a whole number from {least} to {most}, and {_shown(text)} is not.", parameter=name
            )
        return value

    def optional_integer(self, name: str, least: int, most: int) -> int | None:
        return self.integer(name, 0, least, most) if name in request.args else None

    def number(self, name: str, default: float, least: float, most: float) -> float:
        text = request.args.get(name)
        if text is None:
            return default
        value = (
            float(text) if re.fullmatch(r"[0-9]{0,9}(\.[0-9]{0,9})?", text) and re.search("[0-9]", text) else math.nan
        )
        if not least <= value <= most:
            raise BadRequest(
                f"{name} must be a number from {least:g} to {most:g}, and {_shown(text)} is not.", parameter=name
            )
        return value

    def text(self, name: str, default: str, pattern: str, rule: str) -> str:
        """Return the value, which must match all of ``pattern``; ``rule`` says that in words: "1 to 64 letters"."""
        text = request.args.get(name, default)
        if name in request.args and not re.fullmatch(pattern, text):
            raise BadRequest(f"{name} must be {rule}, and {_shown(text)} is not.", parameter=name)
        return text

    def texts(self, name: str, default: str, pattern: str, rule: str, most: int) -> list[str]:
        """Return the values in order, each once: ``name=a&name=b`` or ``name=a,b``, each as ``text`` has it."""
        given = [text for value in request.args.getlist(name) for text in value.split(",")] or [default]
        for text in given:
            if not re.fullmatch(pattern, text):
                raise BadRequest(f"{name} must be {rule}, and {_shown(text)} is not.", parameter=name)
        if len(values := sorted(set(given))) > most:
            raise BadRequest(f"{name} may name at most {most}, and {len(values)} came.", parameter=name)
        return values

    def sequence(self, name: str, default: str, choices: Collection[str], most: int) -> list[str]:
        """Return the values in the order in which they were given, also twice: ``name=a,b,a``."""
        given = request.args.get(name, default).split(",")
        for text in given:
            if text not in choices:
                raise BadRequest(f"{name} must be of {', '.join(choices)}, and {_shown(text)} is not.", parameter=name)
        if len(given) > most:
            raise BadRequest(f"{name} may name at most {most}, and {len(given)} came.", parameter=name)
        return given

    def choice(self, name: str, default: str, *choices: str) -> str:
        text = request.args.get(name, default)
        if text not in choices and name in request.args:
            raise BadRequest(f"{name} must be one of {', '.join(choices)}, and {_shown(text)} is not.", parameter=name)
        return text

    def flag(self, name: str) -> bool:
        return self.choice(name, "0", "0", "1") == "1"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def last_event_id() -> str:
    """Return the Last-Event-ID, or "". Browsers send it as UTF-8 bytes, which WSGI shows as Latin-1."""
    return request.headers.get("Last-Event-ID", "").encode("latin-1").decode("utf-8", "replace")
