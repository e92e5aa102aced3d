"""`/healthz` for whoever restarts servers, and `/metrics` for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Security
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel

import agentrft
from agentrft.server.auth import BEARER, authenticate, is_loopback, missing_scope
from agentrft.server.engine import EngineHealth
from agentrft.server.request_metrics import BUCKETS_S, RequestMetrics
from agentrft.server.state import ServerState, state_of

router = APIRouter(tags=["health"])

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    """That the server answers, and its store too."""

    status: Literal["ok"] = "ok"
    version: str


@router.get("/healthz")
def healthz(request: Request) -> Health:
    """200 while the server can serve, 503 while its store refuses. Needs no key."""
    state_of(request).store.list_jobs(limit=1)
    return Health(version=agentrft.__version__)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> PlainTextResponse:
    """Figures of this server. From this machine without a key, from elsewhere with the scope `metrics:read`."""
    state = state_of(request)
    if "authorization" in request.headers or not is_loopback(request.scope):
        caller = await to_thread.run_sync(authenticate, state.keys, request.headers)
        if not caller.may("metrics:read"):
            raise missing_scope("metrics:read")
    jobs = await to_thread.run_sync(state.store.count_jobs)
    return PlainTextResponse("\n".join(_lines(state, jobs)) + "\n", media_type=_PROMETHEUS)


def _lines(state: ServerState, jobs: Mapping[str, int]) -> Iterator[str]:
    yield from _requests(state.metrics)
    yield from _family(
        "agentrft_jobs", "gauge", "Jobs by status.", (({"status": s}, n) for s, n in sorted(jobs.items()))
    )
    is_well = state.scheduler is not None and state.scheduler.trouble is None
    yield from _family("agentrft_scheduler_up", "gauge", "0 while the store keeps jobs waiting.", [({}, int(is_well))])
    engine = state.engine.health() if state.engine else EngineHealth(is_running=False, starts=0)
    is_up = int(engine.is_running)
    yield from _family("agentrft_engine_up", "gauge", "1 while the serving engine's process runs.", [({}, is_up)])
    yield from _family("agentrft_engine_starts_total", "counter", "Times that it was started.", [({}, engine.starts)])


def _requests(metrics: RequestMetrics) -> Iterator[str]:
    counted = sorted(metrics.requests.items())
    yield from _family(
        "agentrft_requests_total",
        "counter",
        "Requests answered; status 0: the client left first.",
        (({"method": method, "route": route, "status": str(status)}, n) for (method, route, status), n in counted),
    )
    yield from _family("agentrft_requests_in_flight", "gauge", "Requests being answered.", [({}, metrics.n_in_flight)])
    name = "agentrft_request_seconds"
    yield f"# HELP {name} How long answers took, streams to their end."
    yield f"# TYPE {name} histogram"
    for route, n in sorted(metrics.answers.items()):
        for bucket in BUCKETS_S:
            yield _sample(f"{name}_bucket", {"route": route, "le": str(bucket)}, metrics.within[route, bucket])
        yield _sample(f"{name}_bucket", {"route": route, "le": "+Inf"}, n)
        yield _sample(f"{name}_sum", {"route": route}, round(metrics.seconds[route], 6))
        yield _sample(f"{name}_count", {"route": route}, n)


def _family(name: str, kind: str, help_text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    quoted = {key: text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for key, text in labels.items()}
    inside = ",".join(f'{key}="{text}"' for key, text in quoted.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
