"""Tools written in Python: a function is one tool; a class is built per episode, its public methods are the tools.

The code runs in this process with all its rights: it is the user's own, not the model's. `isolation: thread` keeps slow
code off the event loop and makes the time limit real; it confines nothing.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, ClassMethodDescriptorType, MethodDescriptorType, MethodType, ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentrft.errors import ToolFault, UserError
from agentrft.protocols import ToolContext
from agentrft.tools.call import describe_crash
from agentrft.tools.schema import spec_from_function, with_integers
from agentrft.tools.shape import to_text
from agentrft.tools.thread import CallThread
from agentrft.types import Item, ToolSpec

_BUILT_IN = (MethodDescriptorType, ClassMethodDescriptorType)
_NO_SELF = (staticmethod, classmethod, MethodType, BuiltinFunctionType)
_LIFECYCLE = frozenset({"reset", "close", "state_hash", "snapshot", "restore"})
_log = logging.getLogger(__name__)


class PythonBinding(BaseModel):
    """`{type: python, target: "tools.py:FileTree", isolation: inline}` in a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["python"]
    target: str = Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")
    """`file.py:NAME`, the file relative to the job file."""
    isolation: Literal["inline", "thread"] = "inline"
    """`inline`: on the event loop, for code that answers at once. `thread`: one thread an episode, for sync code that
    waits."""


class PythonTool:
    """One Python function, open for one episode."""

    def __init__(self, spec: ToolSpec, function: Callable[..., Any], thread: CallThread | None) -> None:
        self._spec = spec
        self._function = function
        self._thread = thread

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """To be held during a call: a thread runs one at a time, inline tools run side by side."""
        return nullcontext() if self._thread is None else self._thread.turn

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What the function returns, as text (JSON unless it is a string).

        Raises whatever the function raises; ToolFault when it returns what JSON cannot hold.
        """
        schemas = self._spec.parameters["properties"]
        given = {name: with_integers(value, schemas.get(name, {})) for name, value in arguments.items()}
        value = await _run(self._function, self._thread, **given)
        try:
            return to_text(value)
        except (TypeError, ValueError) as error:
            message = f"tool {self._spec.name} returned {type(value).__name__}, expected a string or JSON: {error}"
            raise ToolFault(message) from error


class PythonSource:
    """What one binding offers: loaded once a job, opened once an episode."""

    def __init__(self, target: Any, binding: PythonBinding, param: str) -> None:
        """Raises UserError when the target gives no usable tool."""
        self._binding = binding
        self._target = target
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
        pairs = zip(specs, functions, strict=True)
        waiting = [spec.name for spec, function in pairs if inspect.iscoroutinefunction(function)]
        if binding.isolation == "thread" and waiting:
            got = f"has async {waiting[0]}, which runs on the event loop, but isolation is 'thread'"
            raise self._unusable(got, "leave isolation out, or make the tools synchronous")

    async def open(self, item: Item, timeout_s: float) -> PythonSession:
        """Tools for one episode; a class gets its own copy of the item's fields, then its `reset` is called.

        Raises ToolFault when building the class or its `reset` fails or takes longer than `timeout_s`.
        """
        thread = CallThread(self._binding.target) if self._binding.isolation == "thread" else None
        owner: Any = None
        functions = [self._target]
        try:
            if self._methods:
                async with asyncio.timeout(timeout_s):
                    owner = await _run(self._target, thread, copy.deepcopy(dict(item.fields)))
                    if (reset := getattr(owner, "reset", None)) is not None:
                        await _run(reset, thread)
                functions = [getattr(owner, name) for name in self._methods]
        except BaseException as error:
            await PythonSession((), owner, thread, timeout_s).close()
            if isinstance(error, (Exception, SystemExit)):
                raise ToolFault(describe_crash(self._binding.target, error)) from error
            raise
        pairs = zip(self.specs, functions, strict=True)
        tools = tuple(PythonTool(spec, function, thread) for spec, function in pairs)
        return PythonSession(tools, owner, thread, timeout_s)

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


class PythonSession:
    """The tools of one binding in one episode."""

    def __init__(self, tools: tuple[PythonTool, ...], owner: Any, thread: CallThread | None, timeout_s: float) -> None:
        self.tools = tools
        self._owner = owner
        self._thread = thread
        self._timeout_s = timeout_s
        self._closing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Call the class's `close` if it has one; what that raises is logged, because the episode is over.

        Behind a call that was given up it is queued, not waited for: it runs when the thread comes free.
        """
        close, thread = getattr(self._owner, "close", None), self._thread
        try:
            if close is not None and thread is not None and thread.is_stuck:
                # Queued here, not in the task, because the loop may end before the task begins.
                self._closing = asyncio.create_task(_end(thread.start(close), None))
            elif close is not None:
                await _end(_run(close, thread), self._timeout_s)
        finally:
            if thread is not None:
                thread.stop()


async def _end(closing: Awaitable[Any], timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await _settled(await closing)
    except (Exception, SystemExit) as error:
        _log.warning("%s", describe_crash("close", error))


async def _run(function: Callable[..., Any], thread: CallThread | None, /, *args: Any, **kwargs: Any) -> Any:
    call = partial(function, *args, **kwargs)
    return await _settled(call() if thread is None else await thread.run(call))


async def _settled(value: Any) -> Any:
    """The value, awaited (on the event loop) when it is one that waits."""
    return await value if inspect.isawaitable(value) else value


def load_python_source(
    binding: PythonBinding, base_dir: Path, modules: dict[Path, ModuleType], *, param: str
) -> PythonSource:
    """The binding's target, read from its file. `modules` keeps files already run, so that each runs once a job.

    Raises UserError for a missing file, a file that raises on import, a missing name, or an unusable tool.
    """
    file_name, _, name = binding.target.rpartition(":")
    path = (base_dir / file_name).resolve()
    if path not in modules:
        modules[path] = _load(path, binding.target, param)
    target = getattr(modules[path], name, None)
    if target is None:
        own = [key for key, value in vars(modules[path]).items() if _is_own(key, value, modules[path])]
        found = f"it has {', '.join(own)}" if own else "it has no public functions or classes"
        message = f"tool {binding.target}: {path} has no {name}; {found}"
        raise UserError(message, param=param, code="tool_not_found")
    return PythonSource(target, binding, param)


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    is_code = inspect.isfunction(value) or inspect.isclass(value)
    return is_code and not name.startswith("_") and value.__module__ == module.__name__


def _load(path: Path, target: str, param: str) -> ModuleType:
    if not path.is_file():
        message = f"tool {target}: no file {path}; the path is relative to the job file, as in `tools.py:search`"
        raise UserError(message, param=param, code="tool_not_found")
    # The name is made from the path so that two examples' `tools.py` never answer for each other.
    module_name = f"agentrft_tools_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        hint = f"run `python {path}` to see it"
        if isinstance(error, ModuleNotFoundError):
            # `python FILE` adds the file's folder to `sys.path`, so it may well succeed.
            hint = f"{path.parent} is not on sys.path: install that module, or put its code into {path.name}"
        message = f"tool {target}: {path} raised {type(error).__name__} on import: {error}; {hint}"
        raise UserError(message, param=param, code="invalid_tool") from error
    return module


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
