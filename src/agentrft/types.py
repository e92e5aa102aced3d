"""The nouns: what flows between the layers. Plain frozen data, no behaviour beyond reading itself.

Suffixes of nested lists, used everywhere: `_I` items of a step, `_G` members of a group, `_T` tokens of a row,
`_R` rows of a batch. Units are in the names (`_s`, `_tokens`, `_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool as the model is told about it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments object; the order of `properties` is the order of positional arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call the model made, as parsed from its reply."""

    id: str
    name: str
    arguments: str
    """JSON text, exactly what the tool will get to parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """One guardrail that found something to object to in a call or its output."""

    rule: str
    """Which: `loop`, `budget.calls`, `tools.refund.max_calls`, …"""
    message: str
    enforced: bool
    """False in observe mode: it was only noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStep:
    """One step that changed a tool's output on its way to the model."""

    name: str
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What one call gave back."""

    call_id: str
    output: str
    """Text shown to the model, after shaping."""
    is_error: bool = False
    """The model's own mistake (bad arguments, unknown tool, refusal); shown to it and trained through."""
    wall_s: float = 0.0
    bytes_in: int = 0
    """Size of the raw output before shaping."""
    tries: int = 1
    """How often the tool was asked; 0 when it was not, because the call was refused."""
    interventions: tuple[Intervention, ...] = ()
    shaping: tuple[OutputStep, ...] = ()
    """What was done to the raw output; empty when nothing was."""
    ends_episode: bool = False
    """A guardrail ends the episode here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message in OpenAI's shape."""

    role: Role
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """Set on `tool` messages: the call this answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One task row: the messages the agent starts from, and everything else as `fields` (`item.*` in templates)."""

    id: str
    """Stable within a dataset: the row's own `id` if it has one, else `row-<line number>`."""
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    """Chat-style schemas the row carries; empty when the job binds tools that describe themselves."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    """Line in the source file, 1-based; 0 when made in memory."""


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    """The model replied without a tool call."""
    MAX_TURNS = "max_turns"
    """The turn limit was reached with a call outstanding: truncated."""
    MAX_REPLY_TOKENS = "max_reply_tokens"
    """A reply ran to its token limit without the stop token: truncated, framing broken."""
    MAX_EPISODE_TOKENS = "max_episode_tokens"
    """Prompt, replies and tool results no longer fit the context: truncated."""
    MAX_TIME = "max_time"
    """The episode's wall-clock limit passed: truncated."""
    MALFORMED = "malformed"
    """More malformed calls in a row than allowed."""
    GUARDRAIL = "guardrail"
    """A guardrail ended it: truncated."""
    FAULT = "fault"
    """An outside part failed; the episode is out of the loss and out of the baseline."""

    @property
    def is_truncated(self) -> bool:
        """True where the reward rule `min(reward, 0)` applies."""
        return self in _TRUNCATED


_TRUNCATED = frozenset(
    {
        StopReason.MAX_TURNS,
        StopReason.MAX_REPLY_TOKENS,
        StopReason.MAX_EPISODE_TOKENS,
        StopReason.MAX_TIME,
        StopReason.GUARDRAIL,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One model reply and the tool results that follow it."""

    reply: Message
    results: tuple[ToolResult, ...] = ()
    malformed: str | None = None
    """Why the reply could not be read as a call, when it could not."""
    start: int = 0
    """Position in `Episode.tokens.ids` of the reply's first token."""
    end: int = 0
    """Position after the reply's last generated token (the stop token included)."""
    state_hash: str | None = None
    """What the tools said of their state before the reply; None where they cannot tell, or were not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrace:
    """The exact tokens of an episode, in order; `ids`, `trained` and `log_probs` are aligned, length T."""

    ids: Sequence[int]
    trained: Sequence[bool]
    """True only for tokens that the policy generated; never prompt, template or tool result."""
    log_probs: Sequence[float]
    """The generator's own log-probabilities in nats; 0.0 where not trained."""
    prompt_tokens: int
    """Length of the rendered prompt at the start of `ids`."""
    policy_version: int
    """Optimiser steps taken when the tokens were generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One run of the agent on one item."""

    id: str
    """`ep_` and 24 hex digits; see `agentrft.rollout.ids`."""
    trace_id: str
    item_id: str
    step: int
    member: int
    attempt: int
    messages: tuple[Message, ...]
    """The whole trajectory, prompt first, tool results included."""
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    tokens: TokenTrace | None = None
    """None when the actor gives text only (a chat model): such an episode cannot be trained on."""
    fault: str | None = None
    """What failed, when `stop_reason` is FAULT."""
    wall_s: float = 0.0

    @property
    def n_calls(self) -> int:
        """Tool calls made, malformed replies that stood where a call belongs included."""
        return sum(max(len(turn.reply.tool_calls), 1 if turn.malformed else 0) for turn in self.turns)

    @property
    def answer(self) -> str | None:
        """The final reply's text, or None when the episode did not end in an answer."""
        return self.turns[-1].reply.content if self.turns and self.stop_reason is StopReason.ANSWERED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a grader sees of an episode, in OpenAI's words."""

    output_text: str
    """Text of the final reply; empty when there was none."""
    output_tools: tuple[ToolCall, ...] = ()
    """Calls of the final reply."""
    messages: tuple[Message, ...] = ()
    """The whole trajectory with tool results (ours)."""
    stop_reason: StopReason = StopReason.ANSWERED
    n_calls: int = 0
    output_schema: Mapping[str, Any] | bool = True
    """JSON Schema that the answer must fit to be seen as `output_json`; true takes any JSON, false none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens that a model's provider counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider had cached."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class GradeError(StrEnum):
    """What kind of failure left a grade without a number: the error flags of OpenAI's `graders/run`, by their names."""

    INVALID_VARIABLE = "invalid_variable_error"
    """A template reads what this sample or item does not have."""
    SAMPLE_PARSE = "sample_parse_error"
    """Sample and item cannot be written as the grader needs them."""
    TRUNCATED_OBSERVATION = "truncated_observation_error"
    """They are too large for the grader."""
    FORMULA = "formula_parse_error"
    """The formula of a `multi` grader has no result."""
    PYTHON_RUNTIME = "python_grader_runtime_error"
    """The grader's own code raised."""
    PYTHON_SERVER = "python_grader_server_error"
    """The process that runs it failed."""
    MODEL_SERVER = "model_grader_server_error"
    """The judge could not be reached, or its server refused this request."""
    MODEL_REFUSAL = "model_grader_refusal_error"
    """The judge declined to answer."""
    MODEL_PARSE = "model_grader_parse_error"
    """The judge's reply is not the form it was asked to fill in."""
    UNRESPONSIVE_REWARD = "unresponsive_reward_error"
    """A grader endpoint gave no usable number."""
    OTHER = "other_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A grader's result: a number, or no number and the reason. Never both, never neither.

    The other fields say how it came about: `error` and `is_fault` why there is no number, `clipped` and `substituted`
    what a number hides. They change no reward; counting and showing them is up to whoever reads grades.
    """

    value: float | None
    reason: str | None = None
    """Why there is no number; None exactly when `value` is set."""
    sub_grades: Mapping[str, float] = field(default_factory=dict)
    """Values of a `multi` grader's parts by name."""
    traceback: str | None = None
    """Set when the grader's own code raised."""
    wall_s: float = 0.0
    error: GradeError | None = None
    """The kind of failure; None when there was none, or the grader names no kind."""
    is_fault: bool = False
    """A judge or endpoint could not answer: an outage, which says nothing about the sample. Never with a value."""
    clipped: Mapping[str, float] = field(default_factory=dict)
    """What judges said outside their `range`, by grader name; the nearest bound was used instead."""
    substituted: str | None = None
    """Why there was no result, where `value` is the `invalid_grade` of a `multi` grader."""
    token_usage: Mapping[str, TokenUsage] = field(default_factory=dict)
    """Tokens that judges took, by model, unreadable replies included; a model is absent when its server counts none."""
    parts: Mapping[str, Grade] = field(default_factory=dict)
    """The grades of a `multi` grader's parts by name, also those without a number."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a grade is a number or a reason, got value={self.value!r} reason={self.reason!r}")
        if self.is_fault and self.value is not None:
            raise ValueError(f"a fault is no grade, got value={self.value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The G episodes of one item in one step, with their grades, ordered by member."""

    item: Item
    episodes: tuple[Episode, ...]
    grades: tuple[Grade, ...]
    """Aligned with `episodes`; a fault has a grade without a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One token sequence for the learner. All sequences are aligned, length T."""

    ids: Sequence[int]
    trained: Sequence[bool]
    log_probs: Sequence[float]
    """The generator's log-probabilities (nats); 0.0 where not trained, and everywhere in supervised rows."""
    credit: Sequence[float]
    """Per-token weight, already divided by the optimiser step's normaliser; 0.0 where not trained."""
    unit: str
    """Rows with the same unit are never split across micro-batches (a pair in DPO, a row elsewhere)."""
    group: str
    """Rows with the same group share a prefix; the learner keeps them together."""
    reference_log_probs: Sequence[float] = ()
    """The reference's log-probabilities (nats), 0.0 where not trained; empty outside preference losses."""
    sign: int = 0
    """+1 preferred or desirable, −1 rejected or undesirable, 0 outside preference losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One sign, found while training, that the reward may no longer be about the task."""

    name: str
    level: Literal["warn", "stop"]
    message: str
    """For people: what was seen."""
    formula: str
    value: float
    threshold: float
    episode_ids: tuple[str, ...] = ()
    """Episodes to read; empty where the alarm is about all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a monitor says after a step or an evaluation."""

    alarms: tuple[Alarm, ...] = ()
    """Those that are new."""
    stop: str | None = None
    """Why training should stop, as long as the cause holds; None to go on."""
