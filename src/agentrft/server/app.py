"""The application: OpenAI's paths and ours under `/v1`, and the parts that work beside them while it lives."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route

import agentrft
from agentrft.server import (
    chat,
    checkpoints,
    episodes,
    events,
    files,
    findings,
    graders,
    health,
    jobs,
    kept_responses,
    models,
    permissions,
    responses,
    tool_run,
    uploads,
    webhooks,
)
from agentrft.server.auth import Authenticate
from agentrft.server.background import lifespan
from agentrft.server.envelope import Envelope
from agentrft.server.errors import ErrorBody, as_api_error
from agentrft.server.idempotency import Idempotent
from agentrft.server.limits import Bodies, RateLimit
from agentrft.server.openapi import DescribedApp
from agentrft.server.origin import OriginGuard
from agentrft.server.state import ServerState

V1 = (
    files,
    uploads,
    jobs,
    events,
    checkpoints,
    permissions,
    episodes,
    findings,
    graders,
    tool_run,
    models,
    chat,
    responses,
    kept_responses,
    webhooks,
)
"""One module a resource; their paths are without `/v1`."""


def create_app(state: ServerState) -> FastAPI:
    """The application on that state; `lifespan` starts and stops what works in the background."""
    app = DescribedApp(
        title="agentrft",
        description="OpenAI's fine-tuning API on this machine, and ours under the same conventions.",
        version=agentrft.__version__,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        responses={
            "4XX": {"model": ErrorBody, "description": "The request cannot be fulfilled."},
            "5XX": {"model": ErrorBody, "description": "The server, or what it needs, failed."},
        },
        middleware=_middleware(state),
    )
    app.state.server = state
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(RequestValidationError, _framework_error)
    for resource in V1:
        app.include_router(resource.router, prefix="/v1")
    app.include_router(health.router)
    return app


def _middleware(state: ServerState) -> list[Middleware]:
    """Outermost first: each one may refuse, and everything inside `Envelope` is answered in its form."""
    config = state.config
    # No cookies are ever read, so pages may send none.
    pages = Middleware(CORSMiddleware, allow_origins=config.origins, allow_methods=["*"], allow_headers=["*"])
    return [
        *([pages] if config.origins else []),
        Middleware(Envelope, state.metrics),
        Middleware(OriginGuard, config, state.listens_on),
        Middleware(Authenticate, state.keys),
        Middleware(RateLimit, config.limits, state.metrics),
        Middleware(Bodies, config.limits),
        Middleware(Idempotent, state.idempotency, state.vault),
    ]


async def _framework_error(request: Request, error: Exception) -> JSONResponse:
    """What FastAPI itself raises, in OpenAI's form."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, headers={"allow": ", ".join(_methods_at(request))})
    known = as_api_error(error)
    assert known
    return JSONResponse(known.body(), known.status, headers=known.headers)


def _methods_at(request: Request) -> list[str]:
    """What the address takes: each route knows its own methods only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    there = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in there for method in route.methods or ()})


def _operation_id(route: APIRoute) -> str:
    return route.name
