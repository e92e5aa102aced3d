"""Recorded episodes in the form detectors read: calls as steps, episodes by item, what was shown when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from agentrft.detectors.finding import Evidence, clip
from agentrft.detectors.seen import Seen
from agentrft.detectors.values import canonical, leaves, plain, shows, text_of
from agentrft.detectors.words import is_outage, is_timeout, reads_like_error
from agentrft.types import StopReason, ToolResult, ToolSpec

_FIRST = re.compile(
    r"\b(first|before|beforehand|must|call|run|use|need(s|ed)?|requires?)\b|zuerst|vorher|zunächst|d['’]abord|avant|primero|antes"
    r"|prima|сначала|перед|先|まず|前に|먼저",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_READS = frozenset(
    _WORDS.findall(
        "get list find search read show fetch lookup look query count check view describe calc calculate convert "
        "ls cat grep head tail stat select inspect browse is has can estimate preview"
    )
)
_WRITES = frozenset(
    _WORDS.findall(
        "create add insert update edit put post delete remove cancel move rename send write save book reserve buy pay "
        "refund transfer modify change upload submit apply drop grant revoke assign approve reject issue charge enable "
        "disable reset set replace append archive publish deploy rm mv cp mkdir touch close merge exchange press click "
        "scroll type tap swipe advance increment wait sleep"
    )
)


@dataclass(frozen=True, slots=True)
class Step:
    """One call and what came of it."""

    turn: int
    call: int
    name: str
    text: str
    """The arguments as the model wrote them."""
    arguments: Mapping[str, Any] | None
    """None where they are no JSON object."""
    result: ToolResult | None
    """None for a call that was not executed."""
    key: tuple[str, str]
    """Tool and canonical arguments."""
    failed: bool
    """The result is an error, by its flag or by its words."""

    @property
    def output(self) -> str:
        return self.result.output if self.result else ""

    @property
    def was_asked(self) -> bool:
        """The tool itself was asked: neither a guardrail nor the harness answered in its place."""
        return self.result is not None and self.result.tries > 0

    @property
    def succeeded(self) -> bool:
        return self.was_asked and not self.failed

    @property
    def is_outage(self) -> bool:
        """An error that is about the tool, not about what it was asked."""
        return self.failed and self.was_asked and (is_outage(self.output) or is_timeout(self.output))

    @property
    def shown(self) -> str:
        """The call in a few words."""
        return clip(f"{self.name}({self.text})", 90)

    def values(self) -> list[tuple[str, str]]:
        """(path, text) of every scalar argument."""
        return [(path, text_of(value)) for path, value in leaves(self.arguments or {})]


class View:
    """One episode."""

    def __init__(self, seen: Seen, pass_threshold: float) -> None:
        self.seen = seen
        self.record = seen.record
        self.episode = seen.record.episode
        self.id = self.episode.id
        self.item_id = self.episode.item_id
        self.is_fault = self.episode.stop_reason is StopReason.FAULT
        value = seen.record.grade.value
        self.passed: bool | None = None if self.is_fault or value is None else value >= pass_threshold
        """None for a fault and for an episode without a number."""
        self.specs: dict[str, ToolSpec] = {tool.name: tool for tool in seen.tools}
        self.steps: tuple[Step, ...] = tuple(self._steps())

    @property
    def answered(self) -> bool:
        return self.episode.stop_reason is StopReason.ANSWERED

    @property
    def answer(self) -> str:
        """The final text; empty when there is none."""
        return (self.episode.answer or "").strip()

    @cached_property
    def prompt(self) -> str:
        """What the agent was given: the item's messages."""
        return "\n".join(message.content or "" for message in self.seen.item.messages)

    @cached_property
    def question(self) -> str:
        """The user's part of the prompt."""
        return "\n".join(m.content or "" for m in self.seen.item.messages if m.role == "user")

    @cached_property
    def described(self) -> str:
        """The tools as the model is told about them."""
        return "\n".join(
            f"{t.name} {t.description} {json.dumps(dict(t.parameters), ensure_ascii=False)}" for t in self.seen.tools
        )

    def outputs_before(self, turn: int) -> Iterator[str]:
        """Every tool result shown before the reply of that turn, errors included."""
        for earlier in self.episode.turns[:turn]:
            yield from (result.output for result in earlier.results)

    def was_shown(self, value: str, turn: int) -> bool:
        """Whether prompt, tool descriptions or an earlier result show the value."""
        texts = (self.prompt, self.described, *self.outputs_before(turn))
        return any(shows(text, value) for text in texts)

    @cached_property
    def observations(self) -> tuple[str, ...]:
        """Outputs of the calls that succeeded."""
        return tuple(step.output for step in self.steps if step.succeeded)

    def recovers(self, step: Step) -> bool:
        """Whether the same tool was later called for the same (half of the arguments equal) and answered."""
        return any(
            later.succeeded and later.name == step.name and _likeness(step, later) >= 0.5
            for later in self.steps
            if later.turn > step.turn
        )

    def writes(self, step: Step) -> bool:
        """Whether the call changes something: as declared, else by the tool's name."""
        declared = self.seen.effects.get(step.name)
        return name_writes(step.name) if declared is None else declared == "write"

    def only_reads(self, step: Step) -> bool:
        """Whether the call is known to change nothing: as declared, else by a reading verb in the tool's name."""
        declared = self.seen.effects.get(step.name)
        return _verb(step.name) == "read" if declared is None else declared == "read"

    def tools_named(self, step: Step) -> list[str]:
        """Other tools that a call's output speaks of; where a name is an everyday word, only as what comes first."""
        told = step.output
        return [
            name
            for name in self.specs
            if name != step.name
            and len(name) >= 4
            and shows(told, name)
            and (not name.isalpha() or not name.islower() or _FIRST.search(told))
        ]

    def at(self, step: Step, note: str, *, recovered: bool | None = None) -> Evidence:
        """Evidence at a call."""
        return Evidence(
            episode_id=self.id,
            item_id=self.item_id,
            turn=step.turn,
            call=step.call,
            note=note,
            recovered=self.recovers(step) if recovered is None else recovered,
        )

    def whole(self, note: str, *, turn: int | None = None) -> Evidence:
        """Evidence about a reply, or the episode as a whole."""
        return Evidence(episode_id=self.id, item_id=self.item_id, turn=turn, call=None, note=note)

    @property
    def last_turn(self) -> int | None:
        return len(self.episode.turns) - 1 if self.episode.turns else None

    def _steps(self) -> Iterator[Step]:
        for position, turn in enumerate(self.episode.turns):
            if turn.malformed is not None:
                continue  # nothing of it was executed; its results are the harness's own words
            by_id = {result.call_id: result for result in turn.results}
            for place, call in enumerate(turn.reply.tool_calls):
                aligned = turn.results[place] if len(turn.results) == len(turn.reply.tool_calls) else None
                result = aligned or by_id.get(call.id)
                failed = result is not None and (result.is_error or reads_like_error(result.output))
                arguments = _object(call.arguments)
                key = (call.name, canonical(call.arguments))
                yield Step(position, place, call.name, call.arguments, arguments, result, key, failed)


class World:
    """All episodes of a run, and what they say together."""

    def __init__(self, seen: Sequence[Seen], pass_threshold: float) -> None:
        self.pass_threshold = pass_threshold
        self.views = [View(one, pass_threshold) for one in seen]
        self.by_item: dict[str, list[View]] = {}
        for view in self.views:
            self.by_item.setdefault(view.item_id, []).append(view)

    def passes(self, item_id: str, *, but: View | None = None) -> list[View]:
        """The item's successful episodes, without one of them."""
        return [view for view in self.by_item[item_id] if view.passed and view is not but]

    def answers(self, item_id: str) -> tuple[str, ...]:
        """What is known to be right for an item: its reference, else what its successful episodes agree on."""
        gold = reference_of(self.by_item[item_id][0].seen.item.fields)
        if gold:
            return gold
        said = {plain(view.answer): view.answer for view in self.passes(item_id) if view.answer}
        return tuple(said.values()) if len(said) == 1 else ()


_REFERENCES = re.findall(
    r"\w+",
    "answer gold gold_answer reference reference_answer expected expected_answer expected_output ground_truth target "
    "solution label ideal correct_answer final_answer answers",
)
_MAX_REFERENCE_CHARS = 120


def reference_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The right answers that an item names in one of its usual fields; empty where it names none, or a long text."""
    for name in _REFERENCES:
        value = fields.get(name)
        values = value if isinstance(value, list) else [value]
        texts = [text_of(one) for one in values if isinstance(one, str | int | float) and not isinstance(one, bool)]
        if texts and len(texts) == len(values) and all(0 < len(text) <= _MAX_REFERENCE_CHARS for text in texts):
            return tuple(texts)
    return ()


def name_writes(name: str) -> bool:
    """Whether a tool's name says that it changes something; the first verb in it decides."""
    return _verb(name) == "write"


def _verb(name: str) -> Literal["read", "write"] | None:
    for word in (word.casefold() for word in _WORDS.findall(name)):
        if word in _READS or word in _WRITES:
            return "write" if word in _WRITES else "read"
    return None


def _likeness(one: Step, other: Step) -> float:
    """Share of the first call's arguments that the other has with the same value; 1 where there is at most one."""
    if not one.arguments or other.arguments is None or len(one.arguments) == 1:
        return 1.0
    return sum(other.arguments.get(name) == value for name, value in one.arguments.items()) / len(one.arguments)


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
