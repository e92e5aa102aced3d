"""One session with an MCP server.

The SDK's context managers must be entered and left in one task, so a task of its own holds them as long as the session
lives. Calls need no detour through it: they come from any task, side by side, and cancelling one tells the server to
drop that one only.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from agentrft.errors import ToolFault, ToolOutage
from agentrft.net.secrets import Hider
from agentrft.tools.mcp_http import (
    SESSION_LOST,
    UNREACHABLE,
    OpenHttpClient,
    connect_http,
    is_oversized_event,
    plain_client,
)
from agentrft.tools.mcp_server import OVERSIZED, TOO_LONG, Command, ServerNotes, run_server

_CLOSE_S = 2.0
_FAREWELL_S = 6.0
_MAX_PAGES = 100
_ANSWER: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)
_CLIENT = types.Implementation(name="agentrft", version="0.1.0")
_log = logging.getLogger(__name__)

Connect = Callable[[ServerNotes, Callable[[], None]], AbstractAsyncContextManager[Any]]
"""From where to note what is learnt of the server, and whom to tell of its end, to the streams of `ClientSession`."""


def to_command(command: Command) -> Connect:
    """How to reach a server that is started for the session."""
    return lambda notes, on_end: run_server(command, notes, on_end)


def to_url(url: str, headers: Mapping[str, str], open_client: OpenHttpClient | None) -> Connect:
    """How to reach a server that runs already, over streamable HTTP."""
    return lambda notes, on_end: connect_http(url, headers, open_client or plain_client)


class Connection:
    """A session, open or dead; made by `open_connection`."""

    def __init__(self, label: str, connect: Connect, hider: Hider) -> None:
        self._label = label
        self._connect = connect
        self._hider = hider
        self._notes = ServerNotes()
        self._leaving = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._session: ClientSession | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reason = ""
        self._is_lost = False
        self._owner = asyncio.create_task(self._own(), name=f"mcp {label}")

    @property
    def is_dead(self) -> bool:
        """The server has ended, or does not know the session any more: every further call fails."""
        return self._is_lost or self._leaving.is_set() or self._owner.done()

    def on_closed(self, callback: Callable[[], None]) -> None:
        """Call back once the server's process is gone or its connection closed."""
        self._owner.add_done_callback(lambda _: callback())

    async def tools(self) -> list[types.Tool]:
        """All pages of the server's list; raises ToolFault when it cannot be read or does not end."""
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor is not None else None
            page = await self._asked("its list of tools", self._client().list_tools(params=params))
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ToolFault(f"MCP server {self._label} lists its tools on more than {_MAX_PAGES} pages")

    async def call(self, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
        """What the tool answers, as text for the model.

        Raises ValueError for what the tool or the server says of the arguments, ToolOutage when the server cannot be
        reached or has ended, ToolFault for everything else.
        """
        _check_encodable(name, arguments)
        sent_meta: Any = dict(meta) or None
        params = types.CallToolRequestParams(name=name, arguments=dict(arguments), _meta=sent_meta)
        answer = await self._asked(name, self._client().send_request(types.CallToolRequest(params=params), _ANSWER))
        if isinstance(answer, types.InputRequiredResult):
            raise ToolFault(f"{self._of(name)} asks a person for input, and there is none")
        text = self._hider.hide_in_output(answer_text(answer))
        if answer.is_error:
            raise ValueError(text or f"{name} failed and gave no reason")
        return text

    async def close(self) -> None:
        """End the session and its server; waits until its process is gone. Safe to call twice, raises nothing."""
        if self._session is None:
            self._scope.cancel()  # it has not begun: there is nobody to take leave of
        self._leaving.set()
        await asyncio.wait({self._owner})

    async def begin(self, timeout_s: float) -> None:
        """Wait until the server has answered; raises ToolOutage when it ends, refuses, or takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            await self.close()
            raise ToolOutage(self._died(f"did not start within {timeout_s:g} s")) from error
        except BaseException:
            await self.close()
            raise

    def _client(self) -> ClientSession:
        if self._session is None or self.is_dead:
            raise ToolOutage(self._died(self._reason or "has ended"))
        return self._session

    async def _own(self) -> None:
        try:
            with self._scope:
                async with (
                    self._connect(self._notes, self._leaving.set) as streams,
                    ClientSession(*streams, client_info=_CLIENT, message_handler=self._on_message) as session,
                ):
                    await _greet(session)
                    self._session = session
                    if not self._ready.done():
                        self._ready.set_result(None)
                    try:
                        await self._leaving.wait()
                    finally:
                        self._scope.deadline = anyio.current_time() + _CLOSE_S
        except Exception as error:
            self._reason = _describe(error)
        finally:
            self._leaving.set()
            if not self._ready.done():
                self._ready.set_exception(ToolOutage(self._died(self._reason or "ended before it was ready")))
                self._ready.exception()  # nobody may be waiting any more

    async def _asked(self, what: str, request: Awaitable[Any]) -> Any:
        try:
            return await request
        except MCPError as error:
            raise await self._translated(what, error) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ToolFault(f"{self._of(what)} answered against the protocol: {where}: {first['msg']}") from error

    async def _translated(self, what: str, error: MCPError) -> Exception:
        words = self._hidden(f"{self._of(what)}: {error.message}")
        if error.code == OVERSIZED or is_oversized_event(error.message):
            return ValueError(TOO_LONG)
        if error.code == types.INVALID_PARAMS:
            return ValueError(self._hider.hide_in_output(error.message))
        if error.code == SESSION_LOST:
            self._is_lost = True
            return ToolOutage(f"{words}; it does not know the session any more")
        if error.code == UNREACHABLE:
            return ToolOutage(words, wait_s=error.data if isinstance(error.data, int | float) else None)
        if error.code == types.CONNECTION_CLOSED:
            if self._leaving.is_set():
                # Its exit code and last words are there when its process is reaped.
                await asyncio.wait({self._owner}, timeout=_FAREWELL_S)
                return ToolOutage(self._died(f"ended while {what} waited for it"))
            return ToolOutage(words)
        return ToolFault(f"{words} (JSON-RPC error {error.code})")

    async def _on_message(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            _log.warning("MCP server %s changed its list of tools; the job keeps the list it began with", self._label)

    def _of(self, what: str) -> str:
        return f"{what} of MCP server {self._label}"

    def _died(self, how: str) -> str:
        notes = str(self._notes)
        return self._hidden(f"MCP server {self._label} {how}" + (f" ({notes})" if notes else ""))

    def _hidden(self, text: str) -> str:
        return self._hider.hide(text)


async def open_connection(label: str, connect: Connect, hider: Hider, timeout_s: float) -> Connection:
    """A session that is ready; raises ToolOutage when the server cannot be reached, or takes longer to answer."""
    connection = Connection(label, connect, hider)
    await connection.begin(timeout_s)
    return connection


async def _greet(session: ClientSession) -> None:
    # The older handshake first: only it gives a session over HTTP, and most servers know only it.
    try:
        await session.initialize()
    except MCPError as error:
        if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
            raise
        await session.discover()


def answer_text(answer: types.CallToolResult) -> str:
    """The text of an answer; the structured content as JSON when there is none. Says what is left out."""
    parts: list[str] = []
    has_text = False
    for block in answer.content:
        if isinstance(block, types.TextContent):
            parts.append(block.text)
            has_text = True
        elif isinstance(block, types.EmbeddedResource) and isinstance(block.resource, types.TextResourceContents):
            parts.append(block.resource.text)
            has_text = True
        else:
            parts.append(_left_out(block))
    if not has_text and answer.structured_content is not None:
        parts.insert(0, json.dumps(answer.structured_content, ensure_ascii=False, separators=(",", ":")))
    return "\n".join(parts)


def _left_out(block: types.ContentBlock) -> str:
    if isinstance(block, types.ImageContent | types.AudioContent):
        return f"[{block.type} left out: {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
    if isinstance(block, types.ResourceLink):
        return f"[link left out: {block.name}, {block.uri}]"
    assert isinstance(block, types.EmbeddedResource)
    return f"[resource left out: {block.resource.uri}]"


def _check_encodable(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for what the model may write but no message can carry."""
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"arguments of {name} hold half of a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise ValueError(f"arguments of {name} are nested too deeply") from error


def _describe(error: BaseException) -> str:
    """How the server failed, out of the groups that task groups put errors in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        is_plain_end = error.code == types.CONNECTION_CLOSED and error.message == "Connection closed"
        return "ended before it was ready" if is_plain_end else f"gave no session: {error.message}"
    return f"failed: {type(error).__name__}: {error}"
