"""What the server has at hand for every request; made once, by `open_state`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from agentrft.home import home
from agentrft.jobs.vault import Vault, open_vault
from agentrft.net.policy import NetworkPolicy
from agentrft.runtime.scheduler import Scheduler
from agentrft.server.config import ServerConfig
from agentrft.server.engine import Engine
from agentrft.server.request_metrics import RequestMetrics
from agentrft.store import Artifacts, SqlStore, open_store
from agentrft.store.files import FileBytes, Files
from agentrft.store.idempotency import Idempotency
from agentrft.store.keys import Keys
from agentrft.store.responses import Responses
from agentrft.store.uploads import Uploads
from agentrft.store.webhooks import Webhooks

_DAY_S = 24 * 3600.0


@dataclass(kw_only=True)
class ServerState:
    """The parts that handlers use."""

    config: ServerConfig
    policy: NetworkPolicy
    """Which services of users may be reached."""
    store: SqlStore
    """Jobs and what they leave behind."""
    files: Files
    uploads: Uploads
    keys: Keys
    webhooks: Webhooks
    idempotency: Idempotency
    responses: Responses
    """Those that others may go on from."""
    vault: Vault
    """Seals what only the server may read."""
    listens_on: str = "127.0.0.1"
    """The address that the server is bound to."""
    engine: Engine | None = None
    """Starts its process with the first request for tokens. Made when the application starts, as `scheduler` is."""
    scheduler: Scheduler | None = None
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    is_stopping: bool = False
    """Streams end soon after this is set."""

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def open_state(config: ServerConfig, *, store: SqlStore | None = None, listens_on: str = "127.0.0.1") -> ServerState:
    """The state under `AGENTRFT_HOME`, or on a store that was opened already. Runs nothing yet."""
    store = store or open_store(config.store)
    content = FileBytes(Artifacts(home() / "files"), project_bytes=config.limits.project_bytes)
    files = Files(store.database, content)
    return ServerState(
        config=config,
        policy=config.policy(),
        store=store,
        files=files,
        uploads=Uploads(store.database, content, files),
        keys=Keys(store.database),
        webhooks=Webhooks(store.database),
        idempotency=Idempotency(store.database, keep_s=config.idempotency_days * _DAY_S),
        responses=Responses(store.database, keep_s=config.responses_days * _DAY_S),
        vault=open_vault(),
        listens_on=listens_on,
    )


def state_of(request: Request) -> ServerState:
    """The state of the server that got the request."""
    return request.app.state.server
