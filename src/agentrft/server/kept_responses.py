"""`/responses/{id}`: responses that are kept, as they were answered, and the items that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.paging import ListPage, list_page
from agentrft.server.response_answer import ResponseObject
from agentrft.server.state import state_of
from agentrft.store.responses import Item

router = APIRouter(tags=["Responses"])
# Whoever may make a response may read and delete it: `models:write` would let a chat delete models, too.
Asker = Annotated[Caller, Depends(allow("models:read"))]


class ContextItem(BaseModel):
    """A message, a call, or the output of a call."""

    id: str
    type: Literal["message", "function_call", "function_call_output"]
    status: Literal["completed", "incomplete"]
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None


class ResponseDeleted(BaseModel):
    """That a response is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


@router.get("/responses/{response_id}", response_model=ResponseObject, response_model_exclude_unset=True)
def retrieve_response(request: Request, caller: Asker, response_id: str, stream: bool = False) -> Any:
    """One response, as it was answered."""
    if stream:
        message = "`stream`: a kept response has ended, there are no events to wait for; leave it out"
        raise ApiError(400, message, param="stream", code="unsupported_option")
    return state_of(request).responses.get(caller.project, response_id)


@router.delete("/responses/{response_id}")
def delete_response(request: Request, caller: Asker, response_id: str) -> ResponseDeleted:
    """Forget a response. Those that go on from it keep their conversation."""
    state_of(request).responses.delete(caller.project, response_id)
    return ResponseDeleted(id=response_id)


@router.get(
    "/responses/{response_id}/input_items",
    response_model=ListPage[ContextItem],
    response_model_exclude_unset=True,
)
def list_input_items(
    request: Request,
    caller: Asker,
    response_id: str,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Any:
    """What a response was made from: the conversation that it goes on from, then its own input."""
    items = state_of(request).responses.context(caller.project, response_id)
    rest = _behind(items if order == "asc" else items[::-1], after)
    return list_page(rest[:limit], len(rest) > limit)


def _behind(items: Sequence[Item], after: str | None) -> Sequence[Item]:
    if after is None:
        return items
    place = next((k for k, item in enumerate(items) if item["id"] == after), None)
    if place is None:
        message = f"no item {after[:200]!r} among the response's input; give the id that the page before ended with"
        raise ApiError(404, message, param="after", code="not_found")
    return items[place + 1 :]
