"""Tools written in Python: a function is one tool; a class is built per episode, its public methods are the tools.

The code has all the rights of this process: it is the user's own, not the model's. Isolation is about time and state,
not about trust: see `process`, `thread`, `python_local`.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, ClassMethodDescriptorType, MethodDescriptorType, MethodType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentrft.errors import ToolFault, UserError
from agentrft.tools.attempt import describe_crash
from agentrft.tools.process import SourceFile
from agentrft.tools.process_session import Place, ProcessSession
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_local import LocalSession, LocalTool, run
from agentrft.tools.schema import spec_from_function
from agentrft.tools.source import Hints, SourceSession
from agentrft.types import Item, ToolSpec

_BUILT_IN = (MethodDescriptorType, ClassMethodDescriptorType)
_NO_SELF = (staticmethod, classmethod, MethodType, BuiltinFunctionType)
_LIFECYCLE = frozenset({"reset", "close", "state_hash", "snapshot", "restore"})


class PythonBinding(BaseModel):
    """`{type: python, target: "tools.py:FileTree", isolation: inline}` in a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["python"]
    target: str = Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")
    """`file.py:NAME`, the file relative to the job file."""
    isolation: Literal["process", "thread", "inline"] = "process"
    """`process`: in one process an episode, which is killed when a call is late. `thread`: one thread an episode, for
    synchronous code that waits and cannot be in another process. `inline`: on the event loop, for code that answers at
    once."""


class PythonSource:
    """What one binding offers: loaded once a job, opened once an episode."""

    def __init__(self, target: Any, binding: PythonBinding, file: SourceFile, files: PythonFiles, param: str) -> None:
        """Raises UserError when the target gives no usable tool."""
        self._target = target
        self._binding = binding
        self._file = file
        self._files = files
        self._param = param
        self._methods = _method_names(target) if inspect.isclass(target) else ()
        if inspect.isclass(target):
            specs, functions = self._read_class(target)
        elif inspect.isroutine(target):
            specs, functions = (spec_from_function(target, param=param),), [target]
        else:
            got = f"is a {type(target).__name__}"
            raise self._unusable(got, "name a function, or a class whose public methods are the tools")
        self.specs: tuple[ToolSpec, ...] = specs
        self._waits = tuple(map(inspect.iscoroutinefunction, functions))
        self._check_isolation()

    @property
    def names(self) -> Sequence[str]:
        return tuple(spec.name for spec in self.specs)

    def timeout_s(self, name: str) -> float | None:
        """The job's limit holds."""
        return None

    def hints(self, name: str) -> Hints:
        """Nothing is known of a Python function."""
        return Hints()

    @property
    def can_snapshot(self) -> bool:
        methods = [getattr(self._target, name, None) for name in ("snapshot", "restore")]
        return bool(self._methods) and all(map(callable, methods))

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> SourceSession:
        """Tools for one episode; a class gets its own copy of the item's fields, then its `reset` is called.

        Raises ToolFault when building the class or its `reset` fails or takes longer than `timeout_s`, UserError when
        the file does not run in the process for tools, and when too many threads hang.
        """
        if self._binding.isolation == "process":
            return await self._open_process(item, trace_id, timeout_s)
        return await self._open_here(item, timeout_s)

    async def close(self) -> None:
        if self._binding.isolation == "process":
            await self._files.forker.close(self)

    async def _open_process(self, item: Item, trace_id: str, timeout_s: float) -> ProcessSession:
        forker = self._files.forker
        await forker.started(self)
        place = Place(
            target=self._binding.target,
            module=self._file.module,
            name=self._binding.target.rpartition(":")[2],
            fields=dict(item.fields) if self._methods else None,
        )
        session = await ProcessSession.open(place, forker, trace_id, self, timeout_s)
        for spec, method, waits in zip(self.specs, self._methods or (None,), self._waits, strict=True):
            session.offer(spec, method, waits=waits)
        return session

    async def _open_here(self, item: Item, timeout_s: float) -> LocalSession:
        target = self._binding.target
        thread = self._files.threads.start(target) if self._binding.isolation == "thread" else None
        owner: Any = None
        functions = [self._target]
        try:
            if self._methods:
                async with asyncio.timeout(timeout_s):
                    owner = await run(self._target, thread, copy.deepcopy(dict(item.fields)))
                    if (reset := getattr(owner, "reset", None)) is not None:
                        await run(reset, thread)
                functions = [getattr(owner, name) for name in self._methods]
        except BaseException as error:
            await LocalSession(target, (), owner, thread, timeout_s).close()
            if isinstance(error, (Exception, SystemExit)):
                raise ToolFault(describe_crash(target, error)) from error
            raise
        pairs = zip(self.specs, functions, strict=True)
        tools = tuple(LocalTool(spec, function, thread) for spec, function in pairs)
        return LocalSession(target, tools, owner, thread, timeout_s)

    def _check_isolation(self) -> None:
        if self._binding.isolation == "process":
            if not hasattr(os, "fork"):
                raise self._unusable("needs fork, which this system does not have", "write isolation: thread")
            self._files.forker.add(self._file, self)
        waiting = [spec.name for spec, waits in zip(self.specs, self._waits, strict=True) if waits]
        if self._binding.isolation == "thread" and waiting:
            got = f"has async {waiting[0]}, which runs on the event loop, but isolation is 'thread'"
            raise self._unusable(got, "leave isolation out, or make the tools synchronous")

    def _read_class(self, target: type) -> tuple[tuple[ToolSpec, ...], list[Callable[..., Any]]]:
        if not self._methods:
            raise self._unusable("has no public methods", "give it one method for each tool")
        try:
            inspect.signature(target).bind({})
        except (TypeError, ValueError) as error:
            got = f"cannot be built from one item ({error})"
            raise self._unusable(got, "write `def __init__(self, item: dict)`") from error
        functions = {name: getattr(target, name) for name in self._methods}
        specs = tuple(
            spec_from_function(function, name=name, is_method=_takes_self(target, name), param=self._param)
            for name, function in functions.items()
        )
        return specs, list(functions.values())

    def _unusable(self, got: str, next_step: str) -> UserError:
        return UserError(f"tool {self._binding.target}: it {got}; {next_step}", param=self._param, code="invalid_tool")


def load_python_source(binding: PythonBinding, files: PythonFiles, *, param: str) -> PythonSource:
    """The binding's target, read from its file; `files` are the job's.

    Raises UserError for a missing file, a file that raises on import, a missing name, or an unusable tool.
    """
    target, file = files.find(binding.target, param)
    return PythonSource(target, binding, file, files, param)


def _method_names(target: type) -> tuple[str, ...]:
    """Public methods in the order they are defined, base classes first; an override keeps its place."""
    names = dict.fromkeys(name for owner in reversed(target.__mro__[:-1]) for name in vars(owner))
    public = (name for name in names if not name.startswith("_") and name not in _LIFECYCLE)
    return tuple(name for name in public if _is_method(target, name))


def _is_method(target: type, name: str) -> bool:
    """Whether it can be called: `@lru_cache` on a method counts, a property and a `cached_property` do not.

    Nor do the methods of a built-in base such as dict, which nobody wrote for the model.
    """
    found = inspect.getattr_static(target, name)
    return inspect.isroutine(found) and not isinstance(found, _BUILT_IN) and callable(getattr(target, name))


def _takes_self(target: type, name: str) -> bool:
    return not isinstance(inspect.getattr_static(target, name), _NO_SELF)
