"""`/webhook_endpoints` and `/webhook_event_types`: where a project wants to hear that its jobs are over.

A signing secret is shown once, when it is made; at rest it is sealed. docs/webhooks.md says what receivers get.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from typing import Annotated, Any, Literal, get_args

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, Field

from agentrft.net.exchange import Lost, WebClient
from agentrft.net.policy import Forbidden
from agentrft.net.secrets import web_address
from agentrft.server.auth import Caller, allow
from agentrft.server.deliveries import event_body, opened_secrets, secret_context, send
from agentrft.server.errors import ApiError
from agentrft.server.paging import ListPage, list_page
from agentrft.server.parameters import Body
from agentrft.server.state import ServerState, state_of
from agentrft.store.webhooks import WebhookEndpoint, new_endpoint_id

router = APIRouter(tags=["Webhooks"])
Reader = Annotated[Caller, Depends(allow("webhooks:read"))]
Writer = Annotated[Caller, Depends(allow("webhooks:write"))]

_SECRET_BYTES = 32

EventType = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
"""What can happen here of what OpenAI has events for."""


def _distinct(kinds: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(kinds))


Kinds = Annotated[list[EventType], Field(min_length=1, max_length=50), AfterValidator(_distinct)]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
Url = Annotated[str, AfterValidator(web_address), Field(description="https, or what the operator has listed.")]


class NewEndpoint(Body):
    name: Name
    url: Url
    event_types: Kinds


class EndpointChange(Body):
    name: Name | None = None
    url: Url | None = None
    event_types: Kinds | None = None


class Rotation(Body):
    keep_old_secret_active_for_24_hours: bool = False


class EndpointTrial(Body):
    event_type: EventType


class Endpoint(BaseModel):
    """Where a project wants which events."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class EndpointWithSecret(Endpoint):
    """The only answer that shows the secret."""

    signing_secret: str


class DeletedEndpoint(BaseModel):
    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: bool


class EndpointTestResult(BaseModel):
    """The receiver answered; its status says how."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    success: Literal[True]
    status_code: int


class EventTypes(BaseModel):
    object: Literal["list"]
    data: list[EventType]


@router.get("/webhook_event_types", response_model=EventTypes)
def list_event_types(caller: Reader) -> Any:
    """The events that this server sends."""
    return {"object": "list", "data": list(get_args(EventType))}


@router.post("/webhook_endpoints", response_model=EndpointWithSecret)
def create_endpoint(request: Request, body: NewEndpoint, caller: Writer) -> Any:
    """A new endpoint, and its secret, which is not shown again."""
    state = state_of(request)
    _check_url(state, body.url)
    endpoint_id, secret = new_endpoint_id(), _new_secret()
    made = state.webhooks.create(
        caller.project,
        endpoint_id,
        name=body.name,
        url=body.url,
        event_types=body.event_types,
        sealed=state.vault.seal(secret, secret_context(endpoint_id)),
        hint=_hint(secret),
    )
    return {**_object(made), "signing_secret": secret}


@router.get("/webhook_endpoints", response_model=ListPage[Endpoint])
def list_endpoints(
    request: Request,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Any:
    """The project's endpoints, oldest first."""
    found, has_more = state_of(request).webhooks.list(caller.project, after=after, limit=limit)
    return list_page([_object(one) for one in found], has_more)


@router.get("/webhook_endpoints/{webhook_endpoint_id}", response_model=Endpoint)
def retrieve_endpoint(request: Request, webhook_endpoint_id: str, caller: Reader) -> Any:
    """One endpoint."""
    return _object(state_of(request).webhooks.get(caller.project, webhook_endpoint_id))


@router.post("/webhook_endpoints/{webhook_endpoint_id}", response_model=Endpoint)
def update_endpoint(request: Request, webhook_endpoint_id: str, body: EndpointChange, caller: Writer) -> Any:
    """Change what is given."""
    state = state_of(request)
    if body.url is not None:
        _check_url(state, body.url)
    changed = state.webhooks.update(
        caller.project, webhook_endpoint_id, name=body.name, url=body.url, event_types=body.event_types
    )
    return _object(changed)


@router.delete("/webhook_endpoints/{webhook_endpoint_id}", response_model=DeletedEndpoint)
def delete_endpoint(request: Request, webhook_endpoint_id: str, caller: Writer) -> Any:
    """Forget an endpoint and what it is still owed."""
    state_of(request).webhooks.delete(caller.project, webhook_endpoint_id)
    return {"id": webhook_endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", response_model=EndpointWithSecret)
def rotate_secret(request: Request, webhook_endpoint_id: str, caller: Writer, body: Rotation | None = None) -> Any:
    """A new secret; the old one signs beside it for a day where that is asked for."""
    state, secret = state_of(request), _new_secret()
    changed = state.webhooks.rotate(
        caller.project,
        webhook_endpoint_id,
        sealed=state.vault.seal(secret, secret_context(webhook_endpoint_id)),
        hint=_hint(secret),
        keep_old=body is not None and body.keep_old_secret_active_for_24_hours,
    )
    return {**_object(changed), "signing_secret": secret}


@router.post("/webhook_endpoints/{webhook_endpoint_id}/test", response_model=EndpointTestResult)
async def send_test_event(request: Request, webhook_endpoint_id: str, body: EndpointTrial, caller: Writer) -> Any:
    """Send a sample event now, once; what the receiver answers."""
    state = state_of(request)
    endpoint = await to_thread.run_sync(state.webhooks.get, caller.project, webhook_endpoint_id)
    now = state.store.database.clock.now()
    signing = opened_secrets(state.vault, endpoint, now)
    event_id = f"evt_{uuid.uuid4().hex}"
    content = event_body(event_id, body.event_type, now, {"id": "ftjob-sample"})
    client = WebClient(state.policy)
    try:
        answer = await send(client, endpoint.url, event_id, content, signing, now)
    except (Lost, Forbidden) as error:
        message = f"the receiver at the endpoint's `url` gave no answer ({error}); check the address and try again"
        raise ApiError(400, message, param="url", code="webhook_unreachable") from None
    finally:
        await client.close()
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint.id,
        "event_type": body.event_type,
        "success": True,
        "status_code": answer.status,
    }


def _check_url(state: ServerState, url: str) -> None:
    try:
        state.policy.check_url(url)
    except Forbidden as error:
        raise ApiError(400, f"`url` may not be asked: {error}", param="url", code="invalid_webhook_url") from None


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def _hint(secret: str) -> str:
    return f"whsec_…{secret.rstrip('=')[-4:]}"


def _object(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": int(endpoint.created_at),
        "updated_at": int(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "signing_secret_hint": endpoint.hint,
    }
