"""Tools and graders that play functions."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentrft.errors import ToolFault
from agentrft.together import together
from agentrft.types import Grade, Item, Sample, ToolCall, ToolResult, ToolSpec

ToolFunction = Callable[[Mapping[str, Any], Item], str]
"""(arguments, item) → output; ValueError is shown to the model as an error."""


class ScriptedTools:
    """A tool set of plain functions, with random delays and scripted faults.

    Delays are seeded by the episode's trace id. `opened` and `closed` count sessions.
    """

    def __init__(
        self,
        functions: Mapping[str, ToolFunction] | None = None,
        *,
        max_delay_s: float = 0.0,
        fails: Callable[[ToolCall, Item], bool] = lambda call, item: False,
    ) -> None:
        self.functions = dict(functions or {})
        self.max_delay_s = max_delay_s
        self.fails = fails
        self.opened = 0
        self.closed = 0

    async def open(self, item: Item, trace_id: str) -> ScriptedSession:
        """A session on the same functions."""
        self.opened += 1
        return ScriptedSession(self, item, trace_id)

    async def close(self) -> None:
        """Nothing to release."""


class ScriptedSession:
    """One episode's view of ScriptedTools."""

    def __init__(self, tools: ScriptedTools, item: Item, trace_id: str) -> None:
        self._tools = tools
        self._item = item
        self._rng = random.Random(trace_id)

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """One per function, in order; any arguments object is accepted."""
        schema = {"type": "object", "properties": {}, "additionalProperties": True}
        return [ToolSpec(name=name, description=name, parameters=schema) for name in self._tools.functions]

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The functions' outputs, side by side; unknown tools and ValueError become errors for the model."""
        return await together(self.call(call) for call in calls)

    async def state_hash(self) -> str | None:
        """None: functions keep no state."""
        return None

    async def call(self, call: ToolCall) -> ToolResult:
        """One call."""
        await asyncio.sleep(self._rng.random() * self._tools.max_delay_s)
        if self._tools.fails(call, self._item):
            raise ToolFault(f"scripted fault in {call.name}")
        function = self._tools.functions.get(call.name)
        if function is None:
            return ToolResult(call_id=call.id, output=f"error: there is no tool {call.name!r}", is_error=True)
        try:
            return ToolResult(call_id=call.id, output=function(json.loads(call.arguments), self._item))
        except ValueError as error:
            return ToolResult(call_id=call.id, output=f"error: {error}", is_error=True)

    async def close(self) -> None:
        """Counted, so that tests see that every session is closed."""
        self._tools.closed += 1


class ScriptedGrader:
    """A grader that is a function of (sample, item): a number, or a whole Grade."""

    def __init__(self, function: Callable[[Sample, Item], float | Grade], *, max_delay_s: float = 0.0) -> None:
        self._function = function
        self._max_delay_s = max_delay_s

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """What the function says, after a random delay seeded by the trace id."""
        await asyncio.sleep(random.Random(trace_id).random() * self._max_delay_s)
        result = self._function(sample, item)
        return result if isinstance(result, Grade) else Grade(value=float(result))

    async def close(self) -> None:
        """Nothing to release."""
