"""What scores an episode, and what watches over the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentrft.types import Grade, Group, Item, Sample, Verdict


class Grader(Protocol):
    """Scores what the agent did."""

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """A number or a reason; raises BoundaryError when what it asks is down, never for what the sample contains."""
        ...

    async def close(self) -> None: ...


class Monitor(Protocol):
    """Watches training and may stop it (drift alarms); injected by `build`."""

    def observe(self, step: int, metrics: Mapping[str, float], groups: Sequence[Group]) -> Verdict:
        """Of a training step: its metrics, and all groups played."""
        ...

    async def validated(self, step: int, groups: Sequence[Group]) -> Verdict: ...
    def state(self) -> dict[str, Any]:
        """JSON that is kept with each checkpoint; `restore` takes it back."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...
