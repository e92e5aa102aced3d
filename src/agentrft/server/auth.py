"""Who asks: the API key's project and scopes, decided before a byte of the body is read.

    caller: Annotated[Caller, Depends(allow("jobs:write"))]

A server that has never had a key serves its own machine only and takes any bearer token as the local project's; once
there is a key, one is required. A revoked key stops at its next request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from anyio import to_thread
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agentrft.server.errors import ApiError
from agentrft.store.keys import SCOPES, Keys, KeyScope
from agentrft.store.schema import LOCAL_PROJECT

BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`agentrft keys create` makes one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent the request."""

    project: str
    key_id: str | None
    """None where the server has no keys."""
    scopes: frozenset[str]

    def may(self, scope: KeyScope) -> bool:
        """Whether the caller's key has the scope; `admin` has all."""
        return scope in self.scopes or "admin" in self.scopes


LOCAL_CALLER = Caller(project=LOCAL_PROJECT, key_id=None, scopes=frozenset(SCOPES))
"""The person at this machine."""


def allow(scope: KeyScope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, whose key has the scope; 403 otherwise."""

    # `async` keeps it on the loop: changing threads would take longer than the look.
    async def caller_with_scope(
        request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> Caller:
        caller: Caller = request.state.caller
        if not caller.may(scope):
            raise missing_scope(scope)
        return caller

    return caller_with_scope


def missing_scope(scope: str) -> ApiError:
    """403 for a key that is good, but not for this."""
    message = (
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Use a key with that scope: "
        f"`agentrft keys create --scope {scope}`"
    )
    return ApiError(403, message, code="missing_scope")


def authenticate(keys: Keys, headers: Headers) -> Caller:
    """The caller that the `Authorization` header names; raises 401. Reads the store."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token:
        raise _unauthorized(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY). `agentrft keys create` makes one"
        )
    if not keys.exist():
        return LOCAL_CALLER
    key = keys.check(token)
    if key is None:
        raise _unauthorized(
            "Incorrect API key provided. It is unknown, revoked or expired; `agentrft keys create` makes a new one"
        )
    return Caller(project=key.project, key_id=key.id, scopes=frozenset(key.scopes))


def is_loopback(scope: Scope) -> bool:
    """Whether the connection comes from this machine, and not through a proxy that says so."""
    client = scope.get("client")
    headers = Headers(scope=scope)
    if not client or "forwarded" in headers or "x-forwarded-for" in headers:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


class Authenticate:
    """Middleware: puts the caller into the request's state, or refuses. Addresses outside `/v1` decide themselves."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            caller = await to_thread.run_sync(authenticate, self._keys, Headers(scope=scope))
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
