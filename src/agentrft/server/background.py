"""What works beside requests while the server lives: the scheduler of jobs, the engine, webhooks, sweeping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from anyio import to_thread
from fastapi import FastAPI

from agentrft.clock import SYSTEM_CLOCK
from agentrft.errors import StoreFault
from agentrft.net.exchange import WebClient
from agentrft.runtime.local import LocalRuntime
from agentrft.runtime.processes import this_owner
from agentrft.runtime.scheduler import Scheduler
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.settings import WorkerSettings
from agentrft.server.config import ServerConfig
from agentrft.server.deliveries import Deliveries
from agentrft.server.engine import Engine
from agentrft.server.state import ServerState
from agentrft.store import SqlStore

LOG = logging.getLogger("agentrft.server")

_SWEEP_S = 60.0
_REST_S = 5.0
"""Before something that failed is tried again."""
_LOOK_S = 0.1
_THREADS = 128
"""For handlers: a call that pauses a job may keep one for ten seconds."""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Runs everything while the application is up; what it was doing is left so that the next server goes on."""
    state: ServerState = app.state.server
    client = WebClient(state.policy)
    to_thread.current_default_thread_limiter().total_tokens = _THREADS
    state.engine = _engine(state.config)
    state.scheduler = _scheduler(state.config, state.store)
    tasks = [
        asyncio.create_task(_keep_going(state, "scheduling", state.scheduler.run)),
        asyncio.create_task(_keep_going(state, "sweeping", lambda: _sweep(state))),
        asyncio.create_task(_keep_going(state, "webhooks", Deliveries(state.webhooks, client, state.vault).run)),
    ]
    closing = asyncio.create_task(_close_when_stopping(state, state.scheduler))
    try:
        yield
    finally:
        state.is_stopping = True
        await closing
        await _end(tasks)
        await state.engine.close()
        await client.close()


def _engine(config: ServerConfig) -> Engine:
    serving = config.serving
    client = EngineClient(
        max_models=serving.models,
        max_adapters=serving.adapters,
        threads=serving.threads,
        nice=serving.nice,
        cache_mb=serving.cache_mb,
        dtype=serving.dtype,
    )
    return Engine(client)


def _scheduler(config: ServerConfig, store: SqlStore) -> Scheduler:
    settings = WorkerSettings(store=config.store, allow=config.network.allow)
    runtime = LocalRuntime(settings, nice=config.workers.nice, threads=config.workers.threads)
    # A server that runs no jobs still looks after them: a wish to cancel is fulfilled.
    checks = 2 if config.concurrency else 0
    return Scheduler(store, runtime, SYSTEM_CLOCK, owner=this_owner(), concurrency=config.concurrency, checks=checks)


async def _close_when_stopping(state: ServerState, scheduler: Scheduler) -> None:
    """Jobs begin to save their work at the signal, not when the last request has been answered."""
    while not state.is_stopping:  # noqa: ASYNC110 (a signal handler sets it, and streams read it)
        await asyncio.sleep(_LOOK_S)
    await scheduler.close()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until they have ended: `asyncio.wait_for` of Python 3.11 can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)


async def _keep_going(state: ServerState, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Work that must not end before the server does: a bug in it is logged, and takes nothing else with it."""
    while not state.is_stopping:
        try:
            await work()
        except StoreFault as fault:
            LOG.warning("%s: %s", name, fault)
        except Exception:
            LOG.exception("%s failed and is begun again", name)
        if not state.is_stopping:
            await asyncio.sleep(_REST_S)


async def _sweep(state: ServerState) -> None:
    while True:
        await asyncio.to_thread(state.files.sweep)
        await asyncio.to_thread(state.uploads.sweep)
        await asyncio.to_thread(state.idempotency.sweep)
        await asyncio.to_thread(state.responses.sweep)
        await asyncio.sleep(_SWEEP_S)
