"""From a grade to the reward that training uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentrft.credit.spec import PenaltiesSpec
from agentrft.types import Episode, Grade, StopReason


def reward_of(grade: Grade, stop_reason: StopReason) -> float | None:
    """None where there is no grade; min(grade, 0) where a limit cut the episode off; else the grade.

    A missing grade is never 0: that would drag the baseline of the whole group. A truncated episode earns nothing,
    so that running into a limit never pays, but keeps what it lost (grade, then clamp).
    """
    if grade.value is None:
        return None
    return min(grade.value, 0.0) if stop_reason.is_truncated else grade.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A reward and how it came about."""

    value: float | None
    """None: out of the loss and out of the baseline."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """`grade`, then every penalty that changed it (`process`, `calls`, `tokens`, `tool_seconds`, `tools`, `gate:PART`,
    `truncated`); their sum is the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an episode used."""

    calls: int = 0
    """Tool calls, replies that could not be read as one included."""
    tokens: int = 0
    """Generated."""
    tool_seconds: float = 0.0
    valid_calls: int = 0
    """Calls that the model made no mistake in."""
    by_tool: Mapping[str, int] = field(default_factory=dict)


def usage_of(episode: Episode) -> Usage:
    """What the episode used, read off its turns. A call that never ran, because a limit came first, is not valid."""
    results = [result for turn in episode.turns if turn.malformed is None for result in turn.results]
    return Usage(
        calls=episode.n_calls,
        tokens=sum(turn.end - turn.start for turn in episode.turns),
        tool_seconds=sum(result.wall_s for result in results),
        valid_calls=sum(not result.is_error for result in results),
        by_tool=Counter(call.name for turn in episode.turns for call in turn.reply.tool_calls),
    )


def reward_after(grade: Grade, stop_reason: StopReason, usage: Usage, spec: PenaltiesSpec) -> Reward:
    """The reward under `spec`, with its parts; with no settings, `reward_of`.

    success s = (grade − low) / (high − low), kept within 0 and 1. Every cost takes (high − low) · s · its share: a
    failure pays for nothing, so being short is never learned before being right, and a complete success is always worth
    more than a complete failure. Then gates: a part below its bound, or without a grade, leaves `factor` of what lies
    above `low`. Then truncation. Sources: ToolRLA, arXiv:2603.01620, for gates over sums; prime-rl, which scales its
    length penalty by success for the same reason.
    """
    if grade.value is None or (stop_reason.is_truncated and spec.truncated == "leave_out"):
        return Reward(value=None)
    low, high = spec.success_range
    earned = min(1.0, max(0.0, (grade.value - low) / (high - low))) * (high - low)
    parts = {"grade": grade.value}
    parts |= {name: -earned * share for name, share in _shares(usage, spec).items() if earned and share}
    value = sum(parts.values())
    for gate in spec.gates:
        is_open = grade.sub_grades.get(gate.part, -float("inf")) >= gate.at_least
        if not is_open and value > low:
            parts[f"gate:{gate.part}"] = (gate.factor - 1.0) * (value - low)
            value = low + gate.factor * (value - low)
    if stop_reason.is_truncated and spec.truncated == "clamp" and value > 0.0:
        parts["truncated"] = -value
        value = 0.0
    return Reward(value=value, parts=parts)


def _shares(usage: Usage, spec: PenaltiesSpec) -> dict[str, float]:
    """The share of the earned reward that each penalty takes."""
    spent = (("calls", usage.calls), ("tokens", usage.tokens), ("tool_seconds", usage.tool_seconds))
    costs = {name: getattr(spec, name) for name, _ in spent}
    shares = {name: costs[name].of(used) for name, used in spent if costs[name] is not None}
    if spec.process and usage.calls:
        shares["process"] = spec.process * (1.0 - usage.valid_calls / usage.calls)
    if spec.tools is not None:
        charged = sum(spec.tools.each.get(name, 0.0) * count for name, count in usage.by_tool.items())
        shares["tools"] = min(spec.tools.most, charged)
    return shares
