"""`http`: a tool behind a web service of the user's, called as Agent RFT calls it.

`POST server_url` with `{"type": "function_call", "id", "call_id", "name", "arguments": "<json>", "trace_id", "item"}`,
answered by `{"type": "function_call_output", "call_id", "id", "output"}`, of which `output` is enough. `docs/
http-tools.md` has the contract, and what becomes of every other answer. Nothing is sent again from here: whoever calls
does, with the same `call_id`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from agentrft.clock import SYSTEM_CLOCK
from agentrft.errors import ToolFault, UserError
from agentrft.net.breaker import Breaker, BreakerState
from agentrft.net.exchange import WebClient
from agentrft.net.policy import Forbidden, NetworkPolicy, Server
from agentrft.net.wire import item_object
from agentrft.protocols import Clock, Tool
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.http_call import HttpTool, Upstream
from agentrft.tools.source import Hints
from agentrft.types import Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """How a server does, for people."""

    server: str
    """`host:port`."""
    tools: tuple[str, ...]
    breaker: BreakerState
    down_s: float
    """How long its breaker has let nothing but probes through; 0 while it is closed."""
    calls: int
    """Of the last 30 s, those that ended."""
    failed: int
    in_flight: int
    """Requests on their way now."""


class HttpSource:
    """The HTTP tools of a job, with their connections; `ToolSource`. Serves one event loop."""

    def __init__(
        self, bindings: Mapping[str, HttpBinding], policy: NetworkPolicy, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Opens no connection yet. `bindings` by the field of the job that each stands in (`agent.tools.0`).

        Raises UserError for an address that the policy refuses and for two tools of one name.
        """
        self._bindings: dict[str, HttpBinding] = {}
        self._client = WebClient(policy)
        self._upstreams: dict[Server, Upstream] = {}
        smallest: dict[Server, int] = {}
        for binding in bindings.values():
            server = Server.of(binding.server_url)
            smallest[server] = min(binding.max_concurrency, smallest.get(server, binding.max_concurrency))
        for param, binding in bindings.items():
            self._add(binding, param, policy)
            server = Server.of(binding.server_url)
            if server not in self._upstreams:
                slots = asyncio.Semaphore(smallest[server])
                self._upstreams[server] = Upstream(server=server, slots=slots, breaker=Breaker(clock), clock=clock)
            self._upstreams[server].tools.append(binding.name)

    @property
    def names(self) -> Sequence[str]:
        """Every tool it binds."""
        return tuple(self._bindings)

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools whose bindings describe them."""
        return tuple(spec for binding in self._bindings.values() if (spec := binding.spec))

    @property
    def can_snapshot(self) -> bool:
        """Never: what a service keeps for a `trace_id` is its own."""
        return False

    def hints(self, name: str) -> Hints:
        """Its server recognises a `call_id` that comes again; whether the tool writes is not known."""
        return Hints(repeatable=True)

    def timeout_s(self, name: str) -> float | None:
        """Seconds that one call of a tool may take; None for what the job says."""
        return self._bindings[name].timeout_s

    def status(self) -> Sequence[ServerStatus]:
        """Every server, in the order of the bindings."""
        return tuple(_status(upstream) for upstream in self._upstreams.values())

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> HttpSession:
        """The tools that the item lists, as it describes them, and those that describe themselves; asks nobody.

        Raises ToolFault for an item that cannot be written as JSON.
        """
        try:
            row = json.dumps(item_object(item), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolFault(f"item {item.id} cannot be sent to HTTP tools: {error}") from error
        described = {spec.name: spec for spec in (*self.specs, *item.tools)}
        tools = [
            HttpTool(described[name], binding, row, self._client, self._upstreams[Server.of(binding.server_url)])
            for name, binding in self._bindings.items()
            if name in described
        ]
        return HttpSession(tools)

    async def close(self) -> None:
        """Drop all connections; calls in flight end with ToolOutage."""
        await self._client.close()

    def _add(self, binding: HttpBinding, param: str, policy: NetworkPolicy) -> None:
        if binding.name in self._bindings:
            message = f"two HTTP tools are named {binding.name!r}, expected different names; rename one"
            raise UserError(message, param=f"{param}.name", code="invalid_tool")
        try:
            policy.check_url(binding.server_url)
        except Forbidden as refused:
            message = f"tool {binding.name!r}: {refused}; give another `server_url`"
            raise UserError(message, param=f"{param}.server_url", code="invalid_tool") from None
        self._bindings[binding.name] = binding


class HttpSession:
    """The HTTP tools of one episode; `SourceSession`. What they remember is kept by their servers, by `trace_id`."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools: Sequence[Tool] = tuple(tools)

    async def state_hash(self) -> str | None:
        """None: servers do not tell."""
        return None

    async def snapshot(self) -> NoReturn:
        """Raises ToolFault."""
        raise ToolFault("HTTP tools have no snapshots; their state is their servers'")

    async def restore(self, snapshot: object) -> NoReturn:
        """Raises ToolFault."""
        raise ToolFault("HTTP tools have no snapshots; their state is their servers'")

    async def close(self) -> None:
        """Nothing to let go: connections are the source's."""


def _status(upstream: Upstream) -> ServerStatus:
    calls, failed = upstream.breaker.counts()
    return ServerStatus(
        server=str(upstream.server),
        tools=tuple(upstream.tools),
        breaker=upstream.breaker.state,
        down_s=upstream.breaker.open_s,
        calls=calls,
        failed=failed,
        in_flight=upstream.in_flight,
    )
