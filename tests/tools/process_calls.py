"""Calls of the tools in `wild_tools.py`, for the tests of `isolation: process`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from agentrft.tools import JobTools, PythonBinding
from agentrft.tools.toolset import EpisodeTools
from agentrft.types import Item, ToolCall

OpenTools = Callable[..., Awaitable[JobTools]]


def bind(name: str) -> PythonBinding:
    return PythonBinding(type="python", target=f"tools.py:{name}")


def item(**fields: object) -> Item:
    return Item(id="row-1", messages=(), fields=fields)


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(id="call_1_0", name=name, arguments=json.dumps(arguments))


async def ask(session: EpisodeTools, name: str, **arguments: object) -> str:
    result = await session.call(call(name, **arguments))
    return result.output
