"""How a route is described in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html): the words of ``openapi_routes``.

Rules:
- Values in, a dictionary out. What a route takes and answers is written once, in the table of ``openapi_routes``.
- A path of Flask's own is ``/a/{name}`` here, whatever its converter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

Described = dict[str, Any]

PROBLEM = "application/problem+json"
JSON = "application/json"
EVENTS = "text/event-stream"
TEXT = "text/plain; charset=utf-8"
NDJSON = "application/x-ndjson"
OCTETS = "application/octet-stream"
HTML = "text/html; charset=utf-8"
ANY = "*/*"

_UNREGISTERED = {460: "Checksum Mismatch", 499: "Client Closed Request"}


def integer(least: int, most: int, default: int | None = None) -> Described:
    return _default({"type": "integer", "minimum": least, "maximum": most}, default)


def number(least: float, most: float, default: float | None = None) -> Described:
    return _default({"type": "number", "minimum": least, "maximum": most}, default)


def text(pattern: str = "", longest: int = 0, default: str | None = None) -> Described:
    schema: Described = {"type": "string"}
    if pattern:
        schema["pattern"] = f"^{pattern}$"
    if longest:
        schema |= {"minLength": 1, "maxLength": longest}
    return _default(schema, default)


def choice(*values: str) -> Described:
    """One of ``values``, of which the first is the default."""
    return {"type": "string", "enum": list(values), "default": values[0]}


def flag() -> Described:
    return choice("0", "1")


def record(**fields: str) -> Described:
    """An object with these fields at least; each type by its name, with "?" where it may be null."""
    properties = {name: {"type": [kind[:-1], "null"] if kind.endswith("?") else kind} for name, kind in fields.items()}
    return {"type": "object", "required": list(properties), "properties": properties}


def _default(schema: Described, default: object) -> Described:
    return schema if default is None else schema | {"default": default}


def query(name: str, schema: Described, meaning: str, *, required: bool = False) -> Described:
    return {"name": name, "in": "query", "required": required, "description": meaning, "schema": schema}


def header(name: str, schema: Described, meaning: str) -> Described:
    return {"name": name, "in": "header", "required": False, "description": meaning, "schema": schema}


def path(name: str, schema: Described) -> Described:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def conditions() -> Described:
    """Parameters of any name that ends with an operator: ``id.gt=41``."""
    meaning = "Only rows that meet all of these: `<column>.<operator>=<value>`, such as `id.gt=41`."
    schema = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 32}
    return query("conditions", schema, meaning) | {"style": "form", "explode": True}


def body(*content_types: str, schema: Described | None = None, required: bool = True) -> Described:
    """A request's body, of any of these types; without a schema it is a text or bytes."""
    return {"required": required, "content": {each: {"schema": schema or {"type": "string"}} for each in content_types}}


def answer(meaning: str, *content_types: str, schema: Described | None = None) -> Described:
    """A response; without a content type it has no body."""
    described: Described = {"description": meaning}
    if content_types:
        described["content"] = {each: {"schema": schema} if schema else {} for each in content_types}
    return described


def operation(
    summary: str,
    answers: Mapping[int, Described],
    errors: Sequence[int],
    parameters: Sequence[Described] = (),
    request: Described | None = None,
    refused_in: Sequence[str] = (PROBLEM,),
) -> Described:
    """One method of a path. ``errors``: its statuses that say what is wrong, in one of the types ``refused_in``."""
    described: Described = {"summary": summary, "responses": {str(status): each for status, each in answers.items()}}
    if parameters:
        described["parameters"] = list(parameters)
    if request:
        described["requestBody"] = request
    for status in errors:
        described["responses"][str(status)] = error(status, refused_in)
    return described


def error(status: int, content_types: Sequence[str] = (PROBLEM,)) -> Described:
    """One refusal."""
    phrase = _UNREGISTERED.get(status) or HTTPStatus(status).phrase
    schemas = {PROBLEM: {"$ref": "#/components/schemas/Problem"}}
    content = {each: {"schema": schemas[each]} if each in schemas else {} for each in content_types}
    return {"description": phrase, "content": content}


PROBLEM_SCHEMA: Described = {
    "type": "object",
    "description": "RFC 9457. `parameter` names what is wrong, where one parameter is.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "parameter": {"type": "string"},
    },
}
