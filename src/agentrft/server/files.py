"""`/v1/files`: upload, list, retrieve, download, delete. What a training file holds is checked when a job is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.types import Message, Receive, Scope, Send

from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.forms import Form, read_form
from agentrft.server.paging import ListPage, list_page
from agentrft.server.state import state_of
from agentrft.store.files import StoredFile

router = APIRouter(tags=["files"])

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""What a client may upload."""
AnyPurpose = Literal[
    "assistants", "assistants_output", "batch", "batch_output", "fine-tune", "fine-tune-results", "vision", "user_data",
    "evals",
]  # fmt: skip

Reader = Annotated[Caller, Depends(allow("files:read"))]
Writer = Annotated[Caller, Depends(allow("files:write"))]

_NAMELESS = ("upload", "file")
"""What SDKs call a file that was given as bytes only."""


class ExpiresAfter(BaseModel, extra="forbid"):
    """When the file is to vanish."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class FileObject(BaseModel):
    """OpenAI's file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: AnyPurpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileDeleted(BaseModel):
    """That a file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(get_args(Purpose))},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post("/files", openapi_extra=_FORM)
async def create_file(request: Request, caller: Writer) -> FileObject:
    """Keep a file. Only its size and, for `fine-tune`, its name are checked here."""
    state = state_of(request)
    draft = await to_thread.run_sync(state.files.draft)
    try:
        form = await read_form(
            request, draft, file_field="file", max_bytes=state.config.limits.file_bytes, option="limits.file_bytes"
        )
        fields = _FormFields.read(form)
        name = form.filename or _NAMELESS[0]
        check_name(name, fields.purpose)
        stored = await to_thread.run_sync(
            lambda: state.files.add(
                caller.project, draft, filename=name, purpose=fields.purpose, expires_after_s=fields.expires_after_s
            )
        )
    finally:
        await to_thread.run_sync(draft.discard)
    return file_object(stored)


@router.get("/files")
def list_files(
    request: Request,
    caller: Reader,
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> ListPage[FileObject]:
    """The project's files, by the order of their upload."""
    found, has_more = state_of(request).files.list(
        caller.project, purpose=purpose, order=order, after=after, limit=limit
    )
    return ListPage[FileObject].model_validate(list_page([file_object(file) for file in found], has_more))


@router.get("/files/{file_id}")
def retrieve_file(request: Request, caller: Reader, file_id: str) -> FileObject:
    """One file, without its content."""
    return file_object(state_of(request).files.get(caller.project, file_id))


@router.delete("/files/{file_id}")
def delete_file(request: Request, caller: Writer, file_id: str) -> FileDeleted:
    """Take a file away. Jobs that were made from it go on."""
    state_of(request).files.delete(caller.project, file_id)
    return FileDeleted(id=file_id)


@router.get(
    "/files/{file_id}/content",
    response_class=FileResponse,
    responses={
        200: {
            "description": "The file's bytes.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
def download_file(request: Request, caller: Reader, file_id: str) -> Any:
    """The bytes, as they were sent. Browsers are told to save them, never to show them."""
    files = state_of(request).files
    stored = files.get(caller.project, file_id)
    disposition = f"attachment; filename*=UTF-8''{quote(stored.filename, safe='')}"
    headers = {"content-disposition": disposition}
    return _Download(files.path(stored), media_type="application/octet-stream", headers=headers)


def file_object(file: StoredFile) -> FileObject:
    """The file as the API shows it."""
    return FileObject.model_validate(
        {
            "id": file.id,
            "bytes": file.bytes,
            "created_at": int(file.created_at),
            "expires_at": None if file.expires_at is None else int(file.expires_at),
            "filename": file.filename,
            "purpose": file.purpose,
        }
    )


def check_name(filename: str, purpose: str) -> None:
    """400 for a training file that is no `.jsonl`."""
    if purpose == "fine-tune" and not filename.lower().endswith(".jsonl") and filename not in _NAMELESS:
        message = f"the file is named {filename[:200]!r}, expected .jsonl for fine-tune; write one JSON object a line"
        raise ApiError(400, message, param="file", code="invalid_file_format")


class _Download(FileResponse):
    """The file, or the part of it that `Range` asks for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                what = "the file has no such range, expected one as `bytes=0-99`; ask for another, or for all of it"
                raise ApiError(message["status"], what, param="range", code="invalid_range")
            await send(message)

        await super().__call__(scope, receive, send_unless_refused)


class _FormFields(BaseModel, extra="forbid"):
    """The fields beside the file."""

    purpose: Purpose
    expires_after: ExpiresAfter | None = None

    @property
    def expires_after_s(self) -> int | None:
        return None if self.expires_after is None else self.expires_after.seconds

    @classmethod
    def read(cls, form: Form) -> _FormFields:
        """400 for fields that are unknown or not as expected; `expires_after[seconds]` is how forms nest."""
        nested: dict[str, Any] = {}
        for name, value in form.fields.items():
            outer, bracket, inner = name.partition("[")
            if bracket and outer == "expires_after":
                nested.setdefault(outer, {})[inner.removesuffix("]")] = value
            else:
                nested[name] = value
        try:
            return _FORM_FIELDS.validate_python(nested)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from None


_FORM_FIELDS = TypeAdapter(_FormFields)
