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
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentrft.errors import ToolFault, UserError
from agentrft.protocols import Tool, ToolContext
from agentrft.tools.call import describe_crash
from agentrft.tools.schema import spec_from_function
from agentrft.tools.shape import to_text
from agentrft.tools.thread import CallThread
from agentrft.types import Item, ToolSpec

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
        properties = spec.parameters["properties"]
        self._integers = frozenset(name for name in properties if properties[name].get("type") == "integer")

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What the function returns, as text (JSON unless it is a string).

        Raises whatever the function raises; ToolFault when it returns what JSON cannot hold.
        """
        # JSON Schema counts 3.0 as an integer, Python code does not.
        given = {
            name: int(value) if name in self._integers and isinstance(value, float) else value
            for name, value in arguments.items()
        }
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
        waiting = [function.__name__ for function in functions if inspect.iscoroutinefunction(function)]
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
                    await _lifecycle(owner, "reset", thread)
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
        functions = [getattr(target, name) for name in self._methods]
        plain = [inspect.isfunction(inspect.getattr_static(target, name)) for name in self._methods]
        specs = tuple(
            spec_from_function(function, is_method=is_method, param=self._param)
            for function, is_method in zip(functions, plain, strict=True)
        )
        return specs, functions

    def _unusable(self, got: str, next_step: str) -> UserError:
        return UserError(f"tool {self._binding.target}: it {got}; {next_step}", param=self._param, code="invalid_tool")


class PythonSession:
    """The tools of one binding in one episode."""

    def __init__(self, tools: tuple[Tool, ...], owner: Any, thread: CallThread | None, timeout_s: float) -> None:
        self.tools = tools
        self._owner = owner
        self._thread = thread
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Call the class's `close` if it has one; what that raises is logged, because the episode is over."""
        try:
            if self._thread is None or not self._thread.is_stuck:
                async with asyncio.timeout(self._timeout_s):
                    await _lifecycle(self._owner, "close", self._thread)
        except (Exception, SystemExit) as error:
            _log.warning("%s", describe_crash("close", error))
        finally:
            if self._thread is not None:
                self._thread.stop()


async def _lifecycle(owner: Any, name: str, thread: CallThread | None) -> None:
    method = getattr(owner, name, None)
    if method is not None:
        await _run(method, thread)


async def _run(function: Callable[..., Any], thread: CallThread | None, /, *args: Any, **kwargs: Any) -> Any:
    if thread is not None:
        return await thread.run(lambda: function(*args, **kwargs))
    value = function(*args, **kwargs)
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
        message = (
            f"tool {target}: {path} raised {type(error).__name__} on import: {error}; run `python {path}` to see it"
        )
        raise UserError(message, param=param, code="invalid_tool") from error
    return module


def _method_names(target: type) -> tuple[str, ...]:
    """Public methods in the order they are defined, base classes first; an override keeps its place."""
    names: dict[str, None] = {}
    for owner in reversed(target.__mro__[:-1]):
        for name, value in vars(owner).items():
            is_method = inspect.isfunction(value) or isinstance(value, (staticmethod, classmethod))
            if is_method and not name.startswith("_") and name not in _LIFECYCLE:
                names[name] = None
    return tuple(names)
