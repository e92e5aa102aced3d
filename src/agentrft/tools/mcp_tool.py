"""Tools of an MCP server: a program started here, or a service over streamable HTTP.

What a server says about itself is taken for what it is: its list of tools is read once a job, its annotations never
make a guardrail laxer, and only text gets to the model. The `mcp` package is imported when a server is first needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from agentrft.errors import ToolFault, ToolOutage, UserError
from agentrft.net.secrets import Hider
from agentrft.protocols import ToolContext
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.source import Hints
from agentrft.types import Item, ToolSpec

if TYPE_CHECKING:
    from agentrft.tools.mcp_http import OpenHttpClient
    from agentrft.tools.mcp_listing import ListedTool
    from agentrft.tools.mcp_session import Connection

Connecting = Callable[[float], Awaitable["Connection"]]
"""From how long it may take, in seconds, to a session that is ready; raises ToolOutage."""

MAX_SESSIONS = 32
"""Of episodes at a time, unless the binding says otherwise."""


class McpTool:
    """One tool of a server, open for one episode."""

    def __init__(self, listed: ListedTool, session: McpSession) -> None:
        self._listed = listed
        self._session = session

    @property
    def spec(self) -> ToolSpec:
        return self._listed.spec

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """Nothing to wait for: a session takes calls side by side."""
        return nullcontext()

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """The text of the answer; says what is left out of it, such as images.

        Raises ValueError when the server calls the result an error or refuses the arguments, ToolOutage when it cannot
        be reached or the job's session has ended, ToolFault when the episode's own session has ended, and for all else.
        """
        sent, meta = self._listed.to_send(arguments, context.trace_id)
        return await self._session.call(self._listed.name, sent, meta)


class McpSession:
    """The tools of one server in one episode."""

    def __init__(self, listed: Sequence[ListedTool], own: Connection | None, shared: SharedConnection | None) -> None:
        self.tools: Sequence[McpTool] = tuple(McpTool(tool, self) for tool in listed)
        self._own = own
        self._shared = shared
        self._is_closed = False

    async def call(self, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
        """See `McpTool.call`."""
        if self._is_closed:
            raise ToolFault(f"tool {name} was called after its episode ended")
        if self._own is None:
            assert self._shared is not None
            return await (await self._shared.get()).call(name, arguments, meta)
        try:
            return await self._own.call(name, arguments, meta)
        except ToolOutage as outage:
            if self._own.is_dead:
                raise ToolFault(f"{outage}; what it kept of the episode is lost") from outage
            raise

    async def state_hash(self) -> str | None:
        """None: MCP has no word for it."""
        return None

    async def snapshot(self) -> object:
        """Raises ToolFault: MCP has no word for it."""
        raise ToolFault("an MCP server cannot be asked for its state")

    async def restore(self, snapshot: object) -> None:
        """Raises ToolFault: MCP has no word for it."""
        raise ToolFault("an MCP server cannot be set back")

    async def close(self) -> None:
        """End the episode's own session and its program; safe to call twice."""
        self._is_closed = True
        if self._own is not None:
            await self._own.close()


class SharedConnection:
    """The job's session, opened again when it has ended."""

    def __init__(self, connect: Connecting, timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self._is_closed = False

    async def get(self) -> Connection:
        """The session; raises ToolOutage when it has ended and cannot be opened again."""
        async with self._opening:
            if self._is_closed:
                raise ToolFault("an MCP server was called after the job ended")
            if self._connection is None or self._connection.is_dead:
                await self._drop()
                self._connection = await self._connect(self._timeout_s)
            return self._connection

    async def close(self) -> None:
        """End the session; safe to call twice."""
        self._is_closed = True
        async with self._opening:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class McpSource:
    """What one server offers to a job; made by `load`."""

    can_snapshot = False

    def __init__(self, binding: McpBinding, listed: Sequence[ListedTool], connect: Connecting) -> None:
        self._binding = binding
        self._connect = connect
        self._listed = {tool.spec.name: tool for tool in listed}
        self.names: Sequence[str] = tuple(self._listed)
        self.specs: Sequence[ToolSpec] = tuple(tool.spec for tool in listed)
        self._slots = asyncio.Semaphore(binding.max_sessions or MAX_SESSIONS)
        self._own: set[Connection] = set()
        self._shared: SharedConnection | None = None
        self._is_closed = False

    @classmethod
    async def load(
        cls,
        binding: McpBinding,
        base_dir: Path,
        *,
        param: str,
        timeout_s: float = 30.0,
        open_http_client: OpenHttpClient | None = None,
    ) -> Self:
        """The server's tools, read from it now in a session that ends again.

        Paths are relative to `base_dir`. `timeout_s` bounds the start, unless the binding says otherwise, and then the
        list. `open_http_client` gives the client for a `server_url`, where a network policy holds. Raises UserError
        (`param`) when the server cannot be reached, has no allowed tool, or one that cannot be offered.
        """
        connect = _connecting(binding, base_dir, open_http_client, param)
        from agentrft.tools.mcp_listing import read_listing

        try:
            connection = await connect(binding.start_timeout_s or timeout_s)
            try:
                async with asyncio.timeout(timeout_s):
                    listing = await connection.tools()
            finally:
                await connection.close()
        except TimeoutError:
            words = f"MCP server {binding.server_label} did not list its tools within {timeout_s:g} s"
            _unreachable(words, binding, param)
        except (ToolFault, ValueError) as error:
            _unreachable(str(error), binding, param)
        return cls(binding, read_listing(listing, binding, param), connect)

    def annotations(self, name: str) -> Mapping[str, bool]:
        """What a tool says about itself (`readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`)."""
        return self._listed[name].annotations

    def timeout_s(self, name: str) -> float | None:
        """The job's limit holds."""
        return None

    def hints(self, name: str) -> Hints:
        """By MCP's default a tool writes, and one that says it only reads is not believed: the job declares it."""
        return Hints(writes=True, says_it_reads=suggested_effect(self.annotations(name)) == "read")

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> McpSession:
        """A session of the episode's own, or the job's.

        The wait for one of `max_sessions` does not count; open the sources of an episode one after the other, in the
        same order for all, or episodes wait for each other. Raises ToolOutage when the server cannot be started or
        reached, or does not answer within `start_timeout_s` (`timeout_s` unless given).
        """
        timeout_s = self._binding.start_timeout_s or timeout_s
        listed = tuple(self._listed.values())
        if self._binding.is_shared:
            self._shared = self._shared or SharedConnection(self._connect, timeout_s)
            await self._shared.get()
            return McpSession(listed, None, self._shared)
        await self._slots.acquire()
        try:
            if self._is_closed:
                raise ToolFault("an MCP server was asked for a session after the job ended")
            connection = await self._connect(timeout_s)
        except BaseException:
            self._slots.release()
            raise
        self._own.add(connection)
        connection.on_closed(lambda: self._let_go(connection))
        return McpSession(listed, connection, None)

    async def close(self) -> None:
        """End all sessions and programs; safe to call twice."""
        self._is_closed = True
        for connection in tuple(self._own):
            await connection.close()
        if self._shared is not None:
            await self._shared.close()

    def _let_go(self, connection: Connection) -> None:
        self._own.discard(connection)
        self._slots.release()


def suggested_effect(annotations: Mapping[str, bool]) -> Literal["read", "write"]:
    """What to propose as a guardrail's `effect`, for a person to confirm: the server may be wrong, or lie."""
    return "read" if annotations.get("readOnlyHint") is True else "write"


def _connecting(binding: McpBinding, base_dir: Path, open_http_client: OpenHttpClient | None, param: str) -> Connecting:
    try:
        # Half a second of imports, for jobs that have such a server.
        from agentrft.tools.mcp_server import Command
        from agentrft.tools.mcp_session import open_connection, to_command, to_url
    except ModuleNotFoundError as error:
        message = f"MCP server {binding.server_label} needs the package {error.name}; pip install 'agentrft[mcp]'"
        raise UserError(message, param=param, code="missing_extra") from error
    env = {name: value.get_secret_value() for name, value in binding.env.items()}
    headers = {name: value.get_secret_value() for name, value in binding.headers.items()}
    if binding.command is not None:
        command = Command(words=binding.command, env=env, cwd=(base_dir / (binding.cwd or ".")).resolve())
        way = to_command(command)
    else:
        assert binding.server_url is not None
        way = to_url(binding.server_url, headers, open_http_client)
    hider = Hider({**env, **headers})
    return lambda timeout_s: open_connection(binding.server_label, way, hider, timeout_s)


def _unreachable(words: str, binding: McpBinding, param: str) -> NoReturn:
    next_step = "check `server_url`" if binding.command is None else f"run `{' '.join(binding.command)}` by hand"
    raise UserError(f"{words}; {next_step}", param=param, code="tool_unreachable")
