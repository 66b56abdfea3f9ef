"""What a request for an export asks for: rows, a format, a file's name, and how they travel."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from flask import current_app, request

from stores.tables import Query, Tables
from streaming import callers
from streaming.content_codings import coding
from streaming.cursors import Parameters
from streaming.errors import BadRequest, NotAcceptable
from streaming.file_names import disposition
from streaming.formats import BY_NAME, BY_TYPE, FORMATS, Format, by_file_name
from streaming.queries import ENDINGS, NAMES, read_query
from streaming.table_schemas import CSVW_TYPE, METADATA_ENDING

ID = ("[A-Za-z0-9_-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 _ -")
_OPTIONS = ("format", "filename", "excel", "length", "id")


@dataclass(frozen=True, slots=True)
class AskedExport:
    """``coding``: of its content, "" for identity; ``vary``: what of the request it depends on."""

    query: Query
    format: Format
    filename: str
    exact: bool
    id: str
    coding: str
    vary: str

    @property
    def headers(self) -> dict[str, str]:
        query = self.query
        columns = f"?{urlencode({'columns': ','.join(query.columns)})}" if query.columns != query.table.columns else ""
        schema = f"/api/export/{quote(query.table.name, safe='')}{METADATA_ENDING}{columns}"
        return {
            "Content-Disposition": disposition(self.filename),
            "Link": f'<{schema}>; rel="describedby"; type="{CSVW_TYPE}"',
            **({"Vary": self.vary} if self.vary else {}),
        }


def asked_export(table: str, format: Format | None) -> AskedExport:
    """Read the request. Raises BadRequest, NotAcceptable, NotFound."""
    names = [name for name in NAMES if not (table and name == "table")]
    asked = Parameters(*names, *_OPTIONS, endings=ENDINGS)
    filename = asked.text("filename", "", r'[^\x00-\x1f\x7f"\\/.][^\x00-\x1f\x7f"\\/]{0,199}', "a plain file name")
    named = by_file_name(filename)[1] if filename else None
    chosen = BY_NAME.get(asked.choice("format", "", *BY_NAME)) or named or format
    negotiated = chosen is None
    chosen = chosen or _accepted()
    excel, exact = asked.flag("excel"), asked.choice("length", "", "exact") == "exact"
    if excel and chosen.name != "csv":
        raise BadRequest("excel=1 is for CSV.", parameter="excel")
    if exact and not chosen.exact:
        raise BadRequest(f"length=exact is not for {chosen.name}.", parameter="length")
    tables: Tables = current_app.extensions["tables"]
    query = read_query(asked, tables, table, guarded=excel)
    # With a length, the bytes of a range are those of the rows: identity.
    coded = "" if exact else coding(request.headers.get("Accept-Encoding", ""))
    vary = ", ".join([*(["Accept"] if negotiated else []), *([] if exact else ["Accept-Encoding"])])
    id = callers.scoped(asked.text("id", "", *ID) or secrets.token_urlsafe(12))
    return AskedExport(query, chosen, filename or f"{query.table.name}.{chosen.endings[0]}", exact, id, coded, vary)


def _accepted() -> Format:
    """The format that ``Accept`` likes best, CSV where it likes several the same."""
    if not request.accept_mimetypes:
        return FORMATS[0]
    best = request.accept_mimetypes.best_match(list(BY_TYPE))
    if best is None:
        raise NotAcceptable(f"An export can be {', '.join(BY_TYPE)}.")
    return BY_TYPE[best]
