"""The one file of a ``multipart/form-data`` body, piece by piece; Werkzeug's sans-IO decoder does the parsing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from streaming.errors import BadRequest, TooLarge

# Of what is no file, a header or a piece of a field is bounded by this.
_BUFFER_BYTES = 2**20
_PIECE_BYTES = 256 * 1024
_LINE_ENDS = (b"\r\n", b"\n", b"\r")
# How much may follow a boundary on its line (RFC 2046, 5.1.1: padding).
_PADDING_BYTES = 1024
# What a field counts beside its name and value: a form of empty ones is a large one, too.
_FIELD_BYTES = 100


class FormFile:
    """The bytes of the one file in a form body. ``filename`` is known as soon as the first piece has come.

    ``fields``: those that have come, by name, where ``fields_bytes`` of them may be kept; else they are read over.
    Iterating reads the body to its end, other fields too. Raises BadRequest when there is more than one file, or none
    and it is ``required``, or the form is cut off; TooLarge when a header or the fields are beyond all measure.
    """

    def __init__(
        self, pieces: Iterable[bytes | memoryview], boundary: bytes, fields_bytes: int = 0, required: bool = True
    ) -> None:
        self._pieces = pieces
        self._delimiter = b"--" + boundary
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=_BUFFER_BYTES)
        self._fields_bytes = fields_bytes
        self._required = required
        self._kept: list[tuple[str, bytearray]] = []
        self._kept_bytes = 0
        self.filename = ""

    @property
    def fields(self) -> dict[str, list[str]]:
        """Raises BadRequest for what is no UTF-8."""
        fields: dict[str, list[str]] = {}
        try:
            for name, value in self._kept:
                fields.setdefault(name, []).append(value.decode())
        except UnicodeDecodeError as error:
            raise BadRequest("A field of the form is not UTF-8.") from error
        return fields

    def __iter__(self) -> Iterator[bytes]:
        files = 0
        in_file = False
        for event in self._events():
            if isinstance(event, File):
                files, in_file, self.filename = files + 1, True, event.filename or self.filename
                if files > 1:
                    raise BadRequest("The form has more than one file; send one at a time.")
            elif isinstance(event, Field):
                in_file = False
                self._keep(event.name)
            elif in_file and event.data:
                yield event.data
            elif not in_file:
                self._keep(event.data)
        if not files and self._required:
            raise BadRequest("The form has no file.")

    def _keep(self, piece: str | bytes | None) -> None:
        """Keep a field's name, or a piece of its value."""
        if not self._fields_bytes:
            return
        if piece is None:  # whatever Werkzeug says its type is
            raise BadRequest("A field of the form has no name.")  # RFC 7578, 4.2: it must
        self._kept_bytes += len(piece) + (_FIELD_BYTES if isinstance(piece, str) else 0)
        if self._kept_bytes > self._fields_bytes:
            raise TooLarge(f"The fields of the form have more than the {self._fields_bytes} bytes that are taken.")
        if isinstance(piece, str):
            self._kept.append((piece, bytearray()))
        else:
            self._kept[-1][1].extend(piece)

    def _events(self) -> Iterator[File | Field | Data]:
        held = b""
        try:
            for piece in self._pieces:
                for at in range(0, len(piece), _PIECE_BYTES):
                    data = held + piece[at : at + _PIECE_BYTES]
                    cut = self._undecided_at(data)
                    held = data[cut:]
                    self._decoder.receive_data(data[:cut])
                    yield from self._ready()
            self._decoder.receive_data(held)
            self._decoder.receive_data(None)
            yield from self._ready()
        except RequestEntityTooLarge as error:
            raise TooLarge("A header of the form is too large.") from error
        except ValueError as error:
            raise BadRequest(f"The form cannot be read: {error}") from error

    def _undecided_at(self, data: bytes) -> int:
        """Return where a boundary may begin whose line is not there whole, with the line end before it; or the length.

        Werkzeug 3.1 takes a part of such a line for content: a file whose form was cut between the two hyphens after
        the last boundary got a CR too many. Without its line end a boundary that follows the headers at once is none.
        """
        cut = None
        if (at := data.rfind(self._delimiter)) >= 0:
            after = data[at + len(self._delimiter) :]
            if after.startswith(b"--") or after.strip(b" \t") in (b"\r\n", b"\n"):
                return len(data)
            if b"\n" not in after and len(after) <= _PADDING_BYTES:
                cut = at
        if cut is None:
            starts = range(max(len(data) - len(self._delimiter) + 1, 0), len(data))
            cut = next((at for at in starts if self._delimiter.startswith(data[at:])), len(data))
        return cut - next((len(end) for end in _LINE_ENDS if data.endswith(end, 0, cut)), 0)

    def _ready(self) -> Iterator[File | Field | Data]:
        while not isinstance(event := self._decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, File | Field | Data):
                yield event
