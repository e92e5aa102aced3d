"""`/fine_tuning/checkpoints/{name}/permissions`: letting other projects use what a job of this one trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, StringConstraints

from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.models import TrainedModel, find_trained
from agentrft.server.paging import ListPage, list_page
from agentrft.server.parameters import Body
from agentrft.server.state import ServerState, state_of
from agentrft.store.permissions import Permissions

router = APIRouter(prefix="/fine_tuning/checkpoints/{ft_checkpoint}/permissions", tags=["Fine-tuning"])
Admin = Annotated[Caller, Depends(allow("admin"))]
ProjectId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class CheckpointPermission(BaseModel):
    """One project that may use a checkpoint."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


class PermissionRequest(Body):
    """Who is to use it."""

    project_ids: list[ProjectId] = Field(min_length=1, max_length=100)


class DeletedPermission(BaseModel):
    """A permission that is no more."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool


@router.post("", response_model=ListPage[CheckpointPermission])
def create_permissions(request: Request, ft_checkpoint: str, body: PermissionRequest, caller: Admin) -> Any:
    """Let the projects use the checkpoint; what they have already is given back as it is."""
    state = state_of(request)
    model = _own(state, caller, ft_checkpoint)
    made = Permissions(state.store.database).create(model.job["id"], model.name, body.project_ids)
    return list_page([_shown(one) for one in made], False)


@router.get("", response_model=ListPage[CheckpointPermission])
def list_permissions(
    request: Request,
    ft_checkpoint: str,
    caller: Admin,
    project_id: ProjectId | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
) -> Any:
    """Who may use the checkpoint."""
    state = state_of(request)
    model = _own(state, caller, ft_checkpoint)
    permissions = Permissions(state.store.database)
    found = permissions.list(model.name, project_id=project_id, after=after, limit=limit + 1, order=order)
    return list_page([_shown(one) for one in found[:limit]], len(found) > limit)


@router.delete("/{permission_id}", response_model=DeletedPermission)
def delete_permission(request: Request, ft_checkpoint: str, permission_id: str, caller: Admin) -> Any:
    """Take a permission back."""
    state = state_of(request)
    model = _own(state, caller, ft_checkpoint)
    Permissions(state.store.database).delete(model.name, permission_id)
    return {"id": permission_id, "deleted": True}


def _own(state: ServerState, caller: Caller, name: str) -> TrainedModel:
    """What a job of the caller's own project trained; what others let it use cannot be passed on."""
    model = find_trained(state, caller, name)
    if model.job["project_id"] != caller.project:
        message = f"{name!r} is another project's, which lets yours use it; only its own can let others"
        raise ApiError(403, message, param="ft_checkpoint", code="forbidden")
    return model


def _shown(permission: dict[str, Any]) -> dict[str, Any]:
    return {**permission, "created_at": int(permission["created_at"])}
