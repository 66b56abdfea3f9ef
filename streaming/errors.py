"""Every error of the server, drawn once.

    Problem                      before the first byte: a status and application/problem+json (RFC 9457)
    ├── BadRequest          400  a parameter or a body that cannot be; names the parameter
    ├── Unauthorized        401  who asks is not known; ``expired``: it was, until a moment ago
    ├── Forbidden           403
    ├── NotFound            404
    ├── NotAcceptable       406
    ├── BodyStalled         408  the body stopped arriving
    ├── Conflict            409
    ├── Gone                410  it was here, and will not be again
    ├── PreconditionFailed  412  a protocol's version that is not ours
    ├── TooLarge            413
    ├── UnsupportedType     415
    ├── RangeNotSatisfiable 416  with the length in Content-Range
    ├── Misdirected         421  this server has not that name
    ├── Unprocessable       422
    ├── Locked              423  another request works on it
    ├── TooManyRequests     429  with Retry-After
    ├── ChecksumMismatch    460  tus's number for a piece that arrived changed
    ├── ClientLeft          499  nobody reads it: nginx's number, for the access log
    ├── UpstreamFailed      502  the model's fault
    ├── Unavailable         503  with Retry-After
    ├── UpstreamTimeout     504
    └── DiskFull            507
    StreamFailed                 after the first byte: its sentence is told in-band, or the connection is cut

What each wire says of a failure after the first byte: SSE an event ``stream-error``, NDJSON a line
``{"error": …}``, JSON text sequences such a text, the AI SDK's streams their error part; text, CSV, a JSON array and
Arrow cannot say it, and are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

# Statuses of others than the HTTP working group, and what they call them.
EXPIRED = "The token has expired."
_UNREGISTERED = {460: "Checksum Mismatch", 499: "Client Closed Request"}


class Problem(Exception):
    """An answer instead of a stream. ``detail`` is one human sentence, shown to the caller as it is.

    ``again_s``: when to come again, where whoever raises it does not know better; None: nothing is said.
    """

    status = 500
    again_s: float | None = None

    def __init__(
        self,
        detail: str,
        *,
        parameter: str = "",
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "about:blank",
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter
        self.retry_after_s = self.again_s if retry_after_s is None else retry_after_s
        self.headers = headers or {}
        self.type = type
        self.members = members or {}

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase if self.status in list(HTTPStatus) else _UNREGISTERED.get(self.status, "")


class BadRequest(Problem):
    status = 400


class Unauthorized(Problem):
    status = 401
    expired = False


class Forbidden(Problem):
    status = 403


class NotFound(Problem):
    status = 404


class NotAcceptable(Problem):
    status = 406


class BodyStalled(Problem):
    status = 408


class Conflict(Problem):
    status = 409


class Gone(Problem):
    status = 410


class PreconditionFailed(Problem):
    status = 412


class TooLarge(Problem):
    status = 413


class UnsupportedType(Problem):
    status = 415


class RangeNotSatisfiable(Problem):
    status = 416


class Misdirected(Problem):
    status = 421


class Unprocessable(Problem):
    status = 422


class Locked(Problem):
    status = 423


class TooManyRequests(Problem):
    status = 429
    again_s = 5.0


class ChecksumMismatch(Problem):
    status = 460


class ClientLeft(Problem):
    status = 499


class UpstreamFailed(Problem):
    status = 502


class Unavailable(Problem):
    status = 503
    again_s = 5.0


class UpstreamTimeout(Problem):
    status = 504


class DiskFull(Problem):
    status = 507


def of_status(status: int, detail: str, retry_after_s: float | None = None) -> Problem:
    """Return the Problem with this status; 500 where there is none."""
    kind = next((each for each in Problem.__subclasses__() if each.status == status), Problem)
    return kind(detail, retry_after_s=retry_after_s)


class StreamFailed(Exception):
    """A stream that cannot go on; its text is one sentence that the client may see."""


def public(error: Exception) -> str:
    """Return what a client may know of a failure: our own sentences, and nothing of anybody else's."""
    if isinstance(error, Problem):
        return error.detail
    return str(error) if isinstance(error, StreamFailed) else "Stream failed"
