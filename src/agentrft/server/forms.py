"""Multipart forms with one file, read as a stream: the file goes to the disk piece by piece and never into memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread
from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from agentrft.server.errors import ApiError
from agentrft.server.limits import too_large
from agentrft.store.files import Draft

_MAX_FIELDS_BYTES = 65_536
_MAX_PARTS = 20
_FRAME_BYTES = 65_536
"""What a form may hold beside its file: boundaries, headers, other fields."""
_WRITE_FROM_BYTES = 1 << 20


@dataclass(slots=True)
class Form:
    """What a form held beside the bytes of its file."""

    filename: str | None = None
    """As the client named it; None when the file's part has no name."""
    has_file: bool = False
    fields: dict[str, str] = field(default_factory=dict)


async def read_form(request: Request, draft: Draft, *, file_field: str, max_bytes: int, option: str) -> Form:
    """Reads the whole form; the bytes of its part `file_field` go into the draft, which is then on the disk.

    Raises 400 for a body that is no such form, 413 for a file of more than `max_bytes` (server.yaml's `option`).
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        message = "expected multipart/form-data with a boundary; send the file as a form, as OpenAI's SDKs do"
        raise ApiError(415, message, code="unsupported_media_type")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes + _FRAME_BYTES:
        raise too_large(max_bytes, option)
    reader = _Reader(boundary, file_field, max_bytes, option)
    try:
        async for piece in request.stream():
            reader.feed(piece)
            if len(reader.pending) >= _WRITE_FROM_BYTES:
                await to_thread.run_sync(draft.write, reader.take())
    except ClientDisconnect:
        raise _bad("the connection closed in the middle of it") from None
    await to_thread.run_sync(draft.write, reader.take())
    form = reader.finish()
    await to_thread.run_sync(draft.finish)
    return form


class _Reader:
    """Collects what the parser finds; file bytes wait in `pending` until they are taken."""

    def __init__(self, boundary: bytes, file_field: str, max_bytes: int, option: str) -> None:
        self.pending = bytearray()
        self._form = Form()
        self._file_field = file_field
        self._max_bytes, self._option = max_bytes, option
        self._n_file_bytes, self._n_field_bytes, self._n_parts = 0, 0, 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name: str | None = None
        self._value = bytearray()
        self._is_file = False
        self._is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._grow(self._header_name, data[start:end]),
                "on_header_value": lambda data, start, end: self._grow(self._header_value, data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
        )

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise _bad(f"it is not well-formed at byte {error.offset}") from None

    def take(self) -> bytes:
        taken = bytes(self.pending)
        self.pending.clear()
        return taken

    def finish(self) -> Form:
        if not self._is_whole:
            raise _bad("it ends before its last boundary")
        if not self._form.has_file:
            message = f"the form has no file in `{self._file_field}`; send one"
            raise ApiError(400, message, param=self._file_field, code="missing_required_parameter")
        return self._form

    def _grow(self, buffer: bytearray, data: bytes) -> None:
        self._n_field_bytes += len(data)
        if self._n_field_bytes > _MAX_FIELDS_BYTES:
            raise _bad(f"its fields and headers hold more than {_MAX_FIELDS_BYTES} bytes")
        buffer += data

    def _part_begins(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise _bad(f"it has more than {_MAX_PARTS} parts")
        self._headers, self._name, self._is_file = {}, None, False
        self._value = bytearray()

    def _header_ends(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = _text(options.get(b"name", b""))
        self._is_file = self._name == self._file_field
        if self._is_file:
            if self._form.has_file:
                raise _bad(f"it has `{self._file_field}` twice")
            self._form.has_file = True
            name = options.get(b"filename")
            self._form.filename = None if name is None else _text(name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._grow(self._value, data[start:end])
            return
        self._n_file_bytes += end - start
        if self._n_file_bytes > self._max_bytes:
            raise too_large(self._max_bytes, self._option)
        self.pending += data[start:end]

    def _part_ends(self) -> None:
        if self._name and not self._is_file:
            if self._name in self._form.fields:
                raise _bad(f"it has `{self._name[:100]}` twice")
            self._form.fields[self._name] = _text(bytes(self._value))

    def _ends(self) -> None:
        self._is_whole = True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _bad(why: str) -> Any:
    return ApiError(400, f"the form cannot be read: {why}; send it again", code="invalid_form")
