"""The one path every tool call takes, whatever kind of tool it is.

    parse → known, allowed? → arguments fit the schema? → guardrails (`guardrails/policy.py` has their order)
      → its turn → call under a time limit → again after an outage → redact → shape → guardrails on the output

The model's own mistakes come back as results that start with `error:`. A broken tool raises ToolFault: the episode is
void, not wrong. Calls of one reply are admitted in order, run side by side, and are recorded in order, so that what
guards see does not depend on who finished first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from agentrft.errors import ToolFault, ToolOutage
from agentrft.protocols import Tool, ToolContext
from agentrft.together import together
from agentrft.tools.arguments import read_arguments
from agentrft.tools.attempt import ModelMistake, ask, may_repeat, wait_s
from agentrft.tools.guardrails.approval import arguments_to_send
from agentrft.tools.guardrails.budget import what_is_left
from agentrft.tools.guardrails.history import History, Past, Request
from agentrft.tools.guardrails.policy import Policy
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.limits import ToolLimits
from agentrft.tools.output import KeptOutputs
from agentrft.tools.present import Presenter, Shaping
from agentrft.tools.schema import ArgumentCheck
from agentrft.tools.source import Hints
from agentrft.tools.steer import ErrorKind
from agentrft.types import Intervention, Item, ToolCall, ToolResult

_ALWAYS = frozenset({"unknown_tool", "arguments", "schema"})
"""Objections that no mode overrides: there is nothing that could be called."""
_NO_HINTS = Hints()


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool that an episode may call, the check of its arguments, and what it says about itself."""

    tool: Tool
    check: ArgumentCheck
    hints: Hints = _NO_HINTS
    timeout_s: float | None = None
    """Of one try; the job's limit where None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """A call that has met the guards: refused, or ready to be made."""

    call: ToolCall
    request: Request
    offered: OfferedTool | None = None
    refusal: Refusal | None = None
    noted: tuple[Intervention, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What the tool, or whoever refused in its place, said."""

    text: str
    error: ErrorKind | None
    """What kind of mistake the model made; None when it made none."""
    tries: int = 0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCalls:
    """What an episode's path knows of the calls that it has made."""

    history: History
    kept: KeptOutputs


class CallPath:
    """The calls of one episode."""

    def __init__(
        self,
        offered: Mapping[str, OfferedTool],
        item: Item,
        trace_id: str,
        *,
        limits: ToolLimits,
        policy: Policy,
        shaping: Shaping | None = None,
        kept: KeptOutputs | None = None,
        monotonic: Callable[[], float],
    ) -> None:
        """`kept` holds whole outputs for `read_output`, where some tool's are offloaded."""
        self._offered = offered
        self._item = item
        self._trace_id = trace_id
        self._limits = limits
        self._policy = policy
        self._kept = kept
        self._presenter = Presenter(policy, limits, shaping or Shaping(), kept, item)
        self._monotonic = monotonic
        prompt = "\n".join(message.content or "" for message in item.messages)
        self.history = History(prompt=prompt)
        """What guards know of the episode so far."""

    def past(self) -> PastCalls:
        """What is known of the calls so far, for `go_on_from`."""
        kept = KeptOutputs()
        if self._kept is not None:
            kept.take_over(self._kept)
        return PastCalls(history=self.history.copy(), kept=kept)

    def go_on_from(self, past: PastCalls) -> None:
        """Know of these calls, and of no others."""
        self.history = past.history.copy()
        if self._kept is not None:
            self._kept.take_over(past.kept)

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """Results in the order of the calls; `is_error` where the model made a mistake.

        Raises ToolFault when a tool took longer than it may (from its turn on), raised anything but ValueError or
        TypeError, returned what is not text, or could not be reached however often it was tried.
        """
        admitted = [self._admit(call) for call in calls]
        outcomes = await together(self._perform(one) for one in admitted)
        return [self._finish(one, outcome) for one, outcome in zip(admitted, outcomes, strict=True)]

    def _admit(self, call: ToolCall) -> _Admitted:
        chosen, arguments, policy = self._offered.get(call.name), read_arguments(call.arguments), self._policy
        request = policy.request(
            self.history.next_number(),
            call.name,
            arguments if isinstance(arguments, dict) else call.arguments,
            chosen.hints if chosen else _NO_HINTS,
        )
        noted: list[Intervention] = []
        for refusal in self._objections(request, chosen, arguments):
            is_rule = refusal.rule not in _ALWAYS
            if is_rule:
                noted.append(Intervention(rule=refusal.rule, message=refusal.message, enforced=policy.enforces))
            if policy.enforces or not is_rule:
                return _Admitted(call=call, request=request, refusal=refusal, noted=tuple(noted))
        self.history.let_through.append(request)
        return _Admitted(call=call, request=request, offered=chosen, noted=tuple(noted))

    def _objections(
        self, request: Request, chosen: OfferedTool | None, arguments: dict[str, Any] | str
    ) -> Iterator[Refusal]:
        """What speaks against a call, in order; later objections are only found where earlier ones are overridden."""
        policy = self._policy
        if chosen is None:
            known = f"no tool {request.tool[:24]!r}; tools: {', '.join(self._offered) or 'none'}"
            yield from policy.check_failing(request, self.history)
            yield Refusal(rule="unknown_tool", kind=ErrorKind.NOT_FOUND, message=known)
            return
        yield from policy.check_tool(request, tuple(self._offered))
        wrong = None
        if isinstance(arguments, str):
            message = f"{arguments}, example {chosen.check.example or '{}'}"
            wrong = Refusal(rule="arguments", kind=ErrorKind.SCHEMA, message=message)
        elif errors := chosen.check.errors(arguments):
            with_example = policy.guardrails.errors.include_example
            message = chosen.check.explain(errors, with_example=with_example)
            wrong = Refusal(rule="schema", kind=ErrorKind.SCHEMA, message=message)
        if wrong is not None:
            yield from policy.check_failing(request, self.history)
            yield wrong
        yield from policy.check(request, self.history, self._item)

    async def _perform(self, one: _Admitted) -> _Outcome:
        if one.refusal is not None:
            return _Outcome(text=one.refusal.message, error=one.refusal.kind if one.refusal.is_error else None)
        assert one.offered is not None
        started = self._monotonic()
        retries = self._policy.guardrails.retries
        tries = 1 + (retries.transient if may_repeat(one.request, one.offered.hints) else 0)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ToolOutage),
            stop=stop_after_attempt(tries),
            wait=lambda state: wait_s(state, *retries.backoff),
            reraise=True,
        )
        try:
            text, error = await retrying(self._try, one, one.offered), None
        except ModelMistake as mistake:
            text, error = str(mistake), ErrorKind.REJECTED
        except ToolFault as fault:
            words = self._words_of(fault, int(retrying.statistics["attempt_number"]))
            if words == str(fault):
                raise
            raise ToolFault(words) from fault
        made = int(retrying.statistics["attempt_number"])
        return _Outcome(text=text, error=error, tries=made, wall_s=self._monotonic() - started)

    def _words_of(self, fault: ToolFault, tries: int) -> str:
        """What failed, without secrets, and how often it was tried."""
        words, _ = self._policy.redaction(str(fault))
        return f"{words} ({tries} tries)" if tries > 1 else words

    async def _try(self, one: _Admitted, offered: OfferedTool) -> str:
        deadline_s = one.request.rules.timeout or offered.timeout_s or self._limits.timeout_s
        context = ToolContext(
            trace_id=self._trace_id,
            call_id=_call_id(self._trace_id, one.call.id),
            item=self._item,
            deadline_s=deadline_s,
        )
        arguments = arguments_to_send(one.request, self._policy.place)
        async with offered.tool.turn:
            return await ask(offered.tool, one.call.name, arguments, context, self._monotonic)

    def _finish(self, one: _Admitted, outcome: _Outcome) -> ToolResult:
        """The result as the model sees it; from here on it is part of the history."""
        shown = self._presenter.show(one.request, outcome.text, error=outcome.error, was_asked=outcome.tries > 0)
        self.history.past.append(
            Past(
                request=one.request,
                output=shown.text,
                raw=shown.raw,
                is_error=outcome.error is not None,
                wall_s=outcome.wall_s,
                tokens=self._limits.count_tokens(shown.text) if self._policy.is_on else 0,
                refused_by=one.refusal.rule if one.refusal else None,
            )
        )
        left = what_is_left(self.history, self._policy.guardrails.budgets) if self._policy.enforces else ""
        return ToolResult(
            call_id=one.call.id,
            output=f"{shown.text}\n{left}" if left else shown.text,
            is_error=outcome.error is not None,
            wall_s=outcome.wall_s,
            bytes_in=shown.bytes_in,
            tries=outcome.tries,
            interventions=(*one.noted, *shown.found),
            shaping=shown.steps,
            ends_episode=one.refusal is not None and one.refusal.ends_episode,
        )


def _call_id(trace_id: str, call_id: str) -> str:
    """The same for every try of a call, and when a resumed job plays the episode again."""
    return f"call_{hashlib.sha256(f'{trace_id}/{call_id}'.encode()).hexdigest()[:24]}"
