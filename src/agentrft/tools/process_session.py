"""Python tools of one episode that live in a worker: `isolation: process`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from agentrft.errors import ToolFault
from agentrft.protocols import ToolContext
from agentrft.tools.process import Forker
from agentrft.tools.process_episode import Worker
from agentrft.tools.process_worker import MAX_CALL_BYTES
from agentrft.tools.schema import with_integers
from agentrft.types import ToolSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker finds a function or class."""

    target: str
    """As the binding names it."""
    module: str
    name: str
    fields: Mapping[str, Any] | None
    """The item's, for the class; None for a function."""


class Slot:
    """A function, or an object of a class, in a worker."""

    def __init__(self, target: str, worker: Worker) -> None:
        self.target = target
        self.worker = worker
        self._number = next(worker.slots)

    async def open(self, module: str, name: str, fields: Mapping[str, Any] | None) -> None:
        """Find the function, or build the object from an item's fields. Raises ToolFault."""
        request = {"op": "open", "module": module, "name": name, "fields": fields, "form": "nothing"}
        await self._text(request)

    async def call(self, method: str | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer to a tool call."""
        request = {"op": "call", "method": method, "positional": [], "named": arguments, "form": "output"}
        return await self.worker.ask({**request, "slot": self._number, "optional": False})

    async def run(self, method: str, *arguments: Any, form: str = "nothing", optional: bool = True) -> str | None:
        """What a method of the object's life gave; None when it is `optional` and there is none. Raises ToolFault."""
        request = {"op": "call", "method": method, "positional": arguments, "named": {}, "form": form}
        return await self._text({**request, "optional": optional}, f".{method}")

    async def drop(self) -> None:
        """Forget the function or object."""
        await self._text({"op": "drop", "form": "nothing"})

    async def _text(self, request: dict[str, Any], method: str = "") -> str | None:
        answer = await self.worker.ask({"optional": False, **request, "slot": self._number})
        if "fault" in answer:
            raise ToolFault(f"tool {self.target}{method} {answer['fault']}")
        return answer["text"]


class ProcessTool:
    """One Python function or method in an episode's worker."""

    def __init__(self, spec: ToolSpec, slot: Slot, method: str | None, *, waits: bool) -> None:
        """`waits`: it is async, and runs beside others; a synchronous one keeps the worker to itself."""
        self._spec = spec
        self._slot = slot
        self._method = method
        self._turn = nullcontext() if waits else slot.worker.turn

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return self._turn

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What the function returns, as text (JSON unless it is a string).

        Raises ValueError with the message of a ValueError or TypeError, and when arguments or output are larger than
        1 MB; ToolFault for any other exception, a value that JSON cannot hold, the death of the worker. Cancelling
        kills the worker.
        """
        schemas = self._spec.parameters["properties"]
        given = {name: with_integers(value, schemas.get(name, {})) for name, value in arguments.items()}
        n_bytes = len(json.dumps(given, ensure_ascii=False).encode("utf-8", "replace"))
        if n_bytes > MAX_CALL_BYTES:
            raise ValueError(f"the arguments have {n_bytes} bytes, at most {MAX_CALL_BYTES} can be sent")
        answer = await self._slot.call(self._method, given)
        if "mistake" in answer:
            raise ValueError(answer["mistake"])
        if "fault" in answer:
            raise ToolFault(f"tool {self._spec.name} {answer['fault']}")
        return answer["text"]


class ProcessSession:
    """The tools of one binding in one episode."""

    def __init__(self, slot: Slot, forker: Forker, user: object, timeout_s: float) -> None:
        self.tools: tuple[ProcessTool, ...] = ()
        self._slot = slot
        self._forker = forker
        self._user = user
        self._timeout_s = timeout_s
        self._is_object = False
        self._is_closed = False

    @classmethod
    async def open(cls, place: Place, forker: Forker, trace_id: str, user: object, timeout_s: float) -> ProcessSession:
        """A session without tools yet; a class is built, then its `reset` is called. Raises ToolFault."""
        what = f"tool {place.target}"
        try:
            async with asyncio.timeout(timeout_s):
                worker = await forker.lend(trace_id, user)
        except TimeoutError as error:
            waited = f"{what} waited {timeout_s:g} s for one of {forker.max_workers} processes to end"
            raise ToolFault(waited) from error
        session = cls(Slot(place.target, worker), forker, user, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await session._slot.open(place.module, place.name, place.fields)
                if place.fields is not None:
                    session._is_object = True
                    await session._slot.run("reset")
        except BaseException as error:
            await session.close()
            if isinstance(error, TimeoutError):
                raise ToolFault(f"{what} was not ready within {timeout_s:g} s") from error
            raise
        return session

    def offer(self, spec: ToolSpec, method: str | None, *, waits: bool) -> None:
        """Add a tool: the function itself, or a method of the object."""
        self.tools += (ProcessTool(spec, self._slot, method, waits=waits),)

    async def state_hash(self) -> str | None:
        return await self._run("state_hash", form="str") if self._is_object else None

    async def snapshot(self) -> object:
        """What the class's `snapshot` gives, as JSON text; raises ToolFault when it is not JSON."""
        return await self._run("snapshot", form="json", optional=False)

    async def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, str), type(snapshot)
        await self._run("restore", json.loads(snapshot), optional=False)

    async def close(self) -> None:
        """Call the class's `close` if there is someone to ask; what it raises is logged. Then the process may end."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._is_object and self._slot.worker.cause is None:
                async with asyncio.timeout(self._timeout_s):
                    await self._slot.run("close")
                    await self._slot.drop()  # files that were left open are flushed
        except (ToolFault, TimeoutError) as error:
            _log.warning("%s", str(error) or f"tool {self._slot.target}.close took longer than {self._timeout_s:g} s")
        finally:
            await self._forker.give_back(self._slot.worker, self._user)

    async def _run(self, method: str, *arguments: Any, form: str = "nothing", optional: bool = True) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._slot.run(method, *arguments, form=form, optional=optional)
        except TimeoutError as error:
            late = f"tool {self._slot.target}.{method} gave no answer within {self._timeout_s:g} s"
            raise ToolFault(late) from error
