"""What a policy would have done to an episode that was played without it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from agentrft.tools.guardrails.history import History, Past, Request
from agentrft.tools.guardrails.policy import Policy
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.source import Hints
from agentrft.types import Episode, Item, Message, ToolCall, ToolResult

_NO_HINTS = Hints()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A rule that would have fired."""

    rule: str
    message: str
    episode_id: str
    turn: int
    """Of the episode, from 1."""
    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedRule:
    """How often a rule would have fired."""

    name: str
    calls: int
    succeeded: int
    """Episodes with such a call that succeeded without the rule."""
    failed: int
    example: Fired


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a policy would have done, over many episodes."""

    succeeded: int
    """Episodes replayed that had succeeded."""
    failed: int
    rules: tuple[ReplayedRule, ...]
    """Those that would have fired, by calls."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def replay_all(episodes: Iterable[tuple[Episode, bool]], policy: Policy) -> ReplayReport:
    """Replays episodes, each with whether it succeeded."""
    totals: Counter[bool] = Counter()
    fired_by_rule: dict[str, list[tuple[Fired, bool]]] = {}
    for episode, is_success in episodes:
        totals[is_success] += 1
        for fired in replay(episode, Item(id=episode.item_id, messages=_prompt(episode)), policy):
            fired_by_rule.setdefault(fired.rule, []).append((fired, is_success))
    rules = [
        ReplayedRule(
            name=name,
            calls=len(found),
            succeeded=len({one.episode_id for one, is_success in found if is_success}),
            failed=len({one.episode_id for one, is_success in found if not is_success}),
            example=found[0][0],
        )
        for name, found in fired_by_rule.items()
    ]
    by_calls = tuple(sorted(rules, key=lambda rule: (-rule.calls, rule.name)))
    return ReplayReport(succeeded=totals[True], failed=totals[False], rules=by_calls)


def replay(episode: Episode, item: Item, policy: Policy, hints: Mapping[str, Hints] | None = None) -> list[Fired]:
    """Every rule that each recorded call would have met, in order. The calls stay as they were made.

    What the tools said is known as far as the model saw it: `seen_in` may miss a value that was cut off. An approver
    and plugins are asked as in an episode; nothing else runs.
    """
    prompt = "\n".join(message.content or "" for message in item.messages)
    history, fired = History(prompt=prompt), []
    policy = replace(policy, guardrails=policy.guardrails.model_copy(update={"mode": "observe"}))
    for number, turn in enumerate(episode.turns, start=1):
        results = {result.call_id: result for result in turn.results}
        made: list[tuple[Request, ToolResult]] = []
        for call in turn.reply.tool_calls:
            if call.id not in results or turn.malformed:
                continue
            request = policy.request(
                history.next_number(), call.name, _arguments(call), (hints or {}).get(call.name, _NO_HINTS)
            )
            made.append((request, results[call.id]))
            met = _met(request, results[call.id], policy, history, item)
            fired += [
                Fired(rule=one.rule, message=one.message, episode_id=episode.id, turn=number, call=call) for one in met
            ]
            history.let_through.append(request)
        history.past += [_past(request, result) for request, result in made]
    return fired


def _prompt(episode: Episode) -> tuple[Message, ...]:
    """The messages that the agent started from."""
    roles = [message.role for message in episode.messages]
    return episode.messages[: roles.index("assistant") if "assistant" in roles else None]


def _met(request: Request, result: ToolResult, policy: Policy, history: History, item: Item) -> list[Refusal]:
    denied = list(policy.check_tool(request, ()))
    if result.is_error and not request.arguments:
        return [*denied, *policy.check_failing(request, history)]
    return [*denied, *policy.check(request, history, item)]


def _arguments(call: ToolCall) -> Mapping[str, Any] | str:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return arguments if isinstance(arguments, dict) else call.arguments


def _past(request: Request, result: ToolResult) -> Past:
    was_refused = result.tries == 0
    return Past(
        request=request,
        output=result.output,
        raw=result.output,
        is_error=result.is_error,
        wall_s=result.wall_s,
        tokens=-(-len(result.output) // 4),
        refused_by="recorded" if was_refused and result.is_error else None,
    )
