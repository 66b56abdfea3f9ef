"""Files, uploads and exports in OpenAPI: what has ranges, or a body that is kept."""

from __future__ import annotations

from streaming.openapi import (
    ANY,
    EVENTS,
    JSON,
    OCTETS,
    Described,
    answer,
    body,
    choice,
    conditions,
    flag,
    header,
    integer,
    operation,
    path,
    query,
    record,
    text,
)

_ID = text("[A-Za-z0-9_-]{1,64}")
LAST_EVENT = header("Last-Event-ID", text(), "Go on after that event; wins over `after`.")
ROWS = (
    query("columns", text(), "Which, in which order, comma-separated."),
    query("after", text(), "Only rows behind that key."),
    query("limit", integer(0, 1_000_000_000), "At most that many rows."),
    query("order", choice("asc", "desc"), "By the key, or against it."),
    conditions(),
)
_RANGE = (
    header("Range", text(), "RFC 9110, 14.2."),
    header("If-Range", text(), "RFC 9110, 13.1.5."),
    header("If-None-Match", text(), "RFC 9110, 13.1.2."),
)
_FILE = {
    200: answer("The whole.", ANY),
    206: answer("The ranges asked for.", ANY),
    304: answer("As it was."),
}
_BODY_ERRORS = (400, 408, 409, 413, 415, 503, 507)


def files() -> Described:
    listed = record(files="array", after="string?")
    page = [query("after", text(longest=4096), "Behind that name."), query("limit", integer(1, 1000, 100), "At most.")]
    posted = answer("Stored.", JSON, schema=record(id="string", received="integer", url="string"))
    name, exists = (
        query("filename", text(), "What it will be called."),
        query("exists", choice("rename", "refuse"), "Where there is one of that name."),
    )
    file = body(OCTETS, "multipart/form-data")
    progress = {200: answer("`progress`, at last `complete` or `failed`.", EVENTS), 204: answer("It has ended.")}
    return {
        "/api/files": {"get": operation("What can be downloaded.", {200: answer("A page of it.", JSON, schema=listed)}, (400,), page)},
        "/api/download/{filename}": {"get": operation("A file as an attachment.", _FILE, (400, 404, 412, 416), [path("filename", text()), *_RANGE])},
        "/api/video/{id}": {"get": operation("A film.", _FILE, (400, 404, 412, 416), [path("id", _ID), query("download", flag(), "As an attachment."), *_RANGE])},
        "/api/video": {"post": operation("Store a film.", {201: posted}, _BODY_ERRORS, [query("id", _ID, "What it will be called.")], body("video/mp4", OCTETS))},
        "/api/upload-progress": {"post": operation("Store a file.", {201: posted}, _BODY_ERRORS, [name, exists, query("id", _ID, "Under which progress is told.")], file)},
        "/api/upload-progress/{id}": {"get": operation("The progress of an upload.", progress, (400, 404, 503), [path("id", _ID), query("after", text(), "Go on after that id."), LAST_EVENT])},
    }  # fmt: skip


def resumables() -> Described:
    errors = (400, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 423, 460, 503, 507)
    version = header("Tus-Resumable", {"type": "string", "const": "1.0.0"}, "tus 1.0; without it, the IETF's draft.")
    at = header("Upload-Offset", integer(0, 2**53 - 1), "Where the body begins.")
    length = header("Upload-Length", integer(0, 2**53 - 1), "How many bytes it will have.")
    piece = body("application/offset+octet-stream", "application/partial-upload", OCTETS, required=False)
    one, told = (
        [path("id", text()), version],
        {200: answer("Done."), 204: answer("Where it stands, in Upload-Offset.")},
    )
    made = {201: answer("Its URL is in Location."), 200: answer("Stored whole.")}
    return {
        "/api/uploads": {"post": operation("Make a resumable upload.", made, errors, [version, length], piece)},
        "/api/uploads/{id}": {
            "head": operation("Where it stands.", told, errors, one),
            "get": operation("As HEAD.", told, errors, one),
            "patch": operation("Append at an offset.", told, errors, [*one, at], piece),
            "delete": operation("Forget it.", told, errors, one),
            "post": operation("Another method, by X-HTTP-Method-Override.", told, errors, one, piece),
        },
    }


def exports() -> Described:
    formats = query(
        "format", choice("csv", "ndjson", "json", "json-seq", "arrow"), "Else by the file's ending, or Accept."
    )
    asked = [
        *ROWS,
        formats,
        query("excel", flag(), "CSV for spreadsheets."),
        query("length", {"type": "string", "const": "exact"}, "With Content-Length, and ranges."),
        query("filename", text(longest=200), "What the file is called."),
        query("id", _ID, "Of the receipt."),
        *_RANGE,
    ]
    errors = (400, 404, 406, 409, 412, 416, 503)
    done = _FILE | {204: answer("This receipt's events have ended.")}
    return {
        "/api/export": {"get": operation("A table as a file; without parameters, what there is.", _FILE, errors, [query("table", text(), "One of EXPORT_TABLES."), *asked])},
        "/api/export/{name}": {"get": operation("A table as a file, its schema, or a receipt.", done, errors, [path("name", text()), *asked])},
    }  # fmt: skip
