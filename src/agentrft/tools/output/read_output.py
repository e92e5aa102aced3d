"""The built-in tool that reads on in an output that was too long to show."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from agentrft.protocols import ToolContext
from agentrft.tools.output.kept import KeptOutputs
from agentrft.tools.output.shaping import OutputLimits
from agentrft.tools.output.spec import READ_OUTPUT_NAME
from agentrft.types import ToolSpec

READ_OUTPUT = ToolSpec(
    name=READ_OUTPUT_NAME,
    description="Read on in an earlier tool output that was too long to show. Its last line says the id and the start.",
    parameters={
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Which output, as its last line says."},
            "start": {"type": "integer", "minimum": 1, "description": "Where to go on, as its last line says."},
        },
        "required": ["id", "start"],
        "additionalProperties": False,
    },
)
"""Offered in episodes where some tool has `offload: true`."""


class ReadOutput:
    """`read_output`, open for one episode: `Tool` of protocols."""

    def __init__(self, kept: KeptOutputs, limits: OutputLimits) -> None:
        self._kept = kept
        self._limits = limits

    @property
    def spec(self) -> ToolSpec:
        return READ_OUTPUT

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """Calls run side by side."""
        return nullcontext()

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str:
        """A page within `limits`, with its marker: not to be shaped again. Raises ValueError as `KeptOutputs.read`."""
        output_id, start = arguments["id"], arguments["start"]
        assert isinstance(output_id, str)
        assert isinstance(start, int | float)  # JSON Schema takes 3.0 for an integer
        limits = self._limits
        return self._kept.read(output_id, int(start), limit=limits.output_tokens, count=limits.count_tokens)
