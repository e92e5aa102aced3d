"""`/v1/uploads`: files that are too large for one request, in parts of up to 64 MB."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.files import ExpiresAfter, FileObject, Purpose, check_name, file_object
from agentrft.server.forms import read_form
from agentrft.server.state import ServerState, state_of
from agentrft.store.uploads import StoredUpload

router = APIRouter(tags=["uploads"])

Writer = Annotated[Caller, Depends(allow("files:write"))]


class CreateUpload(BaseModel, extra="forbid"):
    """What is going to arrive."""

    bytes: Annotated[int, Field(ge=1, le=2**53, strict=True)]
    filename: Annotated[str, Field(min_length=1, max_length=1000)]
    mime_type: Annotated[str, Field(min_length=1, max_length=255)]
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteUpload(BaseModel, extra="forbid"):
    """The parts, in their order."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None


class Upload(BaseModel):
    """OpenAI's upload."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None = None


class UploadPart(BaseModel):
    """OpenAI's part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


_PART_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post("/uploads")
def create_upload(request: Request, caller: Writer, body: CreateUpload) -> Upload:
    """Announce a file; it has to be complete within an hour."""
    state = state_of(request)
    if body.bytes > (most := state.config.limits.upload_bytes):
        message = f"got {body.bytes} bytes, expected {most} at most; split the file, or ask the operator for more"
        raise ApiError(400, message, param="bytes", code="upload_too_large")
    check_name(body.filename, body.purpose)
    stored = state.uploads.create(
        caller.project,
        filename=body.filename,
        purpose=body.purpose,
        mime_type=body.mime_type,
        n_bytes=body.bytes,
        file_expires_after_s=body.expires_after.seconds if body.expires_after else None,
    )
    return _shown(state, stored)


@router.post("/uploads/{upload_id}/parts", openapi_extra=_PART_FORM)
async def add_upload_part(request: Request, caller: Writer, upload_id: str) -> UploadPart:
    """Keep one part. Parts may arrive in any order, and at the same time."""
    state = state_of(request)
    await to_thread.run_sync(state.uploads.get, caller.project, upload_id)  # before 64 MB are read for nothing
    draft = await to_thread.run_sync(state.files.draft)
    try:
        form = await read_form(
            request, draft, file_field="data", max_bytes=state.config.limits.part_bytes, option="limits.part_bytes"
        )
        if form.fields:
            unknown = min(form.fields)[:100]
            raise ApiError(400, f"`{unknown}` is unknown; leave it out", param=unknown, code="unknown_parameter")
        part = await to_thread.run_sync(state.uploads.add_part, caller.project, upload_id, draft)
    finally:
        await to_thread.run_sync(draft.discard)
    return UploadPart(id=part.id, created_at=int(part.created_at), upload_id=part.upload_id)


@router.post("/uploads/{upload_id}/complete")
def complete_upload(request: Request, caller: Writer, upload_id: str, body: CompleteUpload) -> Upload:
    """Put the parts together in the order of `part_ids`; the answer holds the file."""
    state = state_of(request)
    stored, _ = state.uploads.complete(caller.project, upload_id, body.part_ids, body.md5)
    return _shown(state, stored)


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(request: Request, caller: Writer, upload_id: str) -> Upload:
    """Drop the upload and its parts."""
    state = state_of(request)
    return _shown(state, state.uploads.cancel(caller.project, upload_id))


def _shown(state: ServerState, upload: StoredUpload) -> Upload:
    file = file_object(state.files.get(upload.project, upload.file_id)) if upload.file_id else None
    return Upload.model_validate(
        {
            "id": upload.id,
            "bytes": upload.bytes,
            "created_at": int(upload.created_at),
            "expires_at": int(upload.expires_at),
            "filename": upload.filename,
            "purpose": upload.purpose,
            "status": upload.status,
            "file": file,
        }
    )
