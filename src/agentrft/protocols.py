"""The seams: what one part may ask of another. Each contract is in its docstring; two real implementations each.

Everything that waits is async. Nothing here imports torch: loops hand all model work to a Generator and a Learner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from agentrft.types import (
    Episode,
    Grade,
    GradeError,
    Group,
    Item,
    Message,
    Row,
    Sample,
    TokenUsage,
    ToolCall,
    ToolResult,
    ToolSpec,
    Verdict,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One continuation to generate."""

    tokens: Sequence[int]
    """The whole context; engines reuse KV by longest cached prefix, callers stay stateless."""
    seed: int
    """Fixes the continuation: same tokens, seed and weights give the same draw (bit for bit only in exact mode)."""
    max_new_tokens: int
    stop_ids: frozenset[int]
    """Generation ends after the first of these; it is part of the output."""
    temperature: float = 1.0
    """0 means greedy. Log-probs are of the distribution drawn from; greedy reports temperature 1."""
    order: tuple[int, int] = (0, 0)
    """(item, member) within the step: the order in which exact mode admits and lays out requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some newly generated tokens with their log-probs (nats), aligned."""

    tokens: Sequence[int]
    log_probs: Sequence[float]
    finish_reason: Literal["stop", "length"] | None
    """None until the last chunk."""
    policy_version: int


class Generator(Protocol):
    """Generates tokens from tokens, many requests at once."""

    @property
    def context_tokens(self) -> int:
        """Longest context plus continuation the model accepts."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Yield chunks until one carries a finish_reason.

        Closing the iterator early frees the slot. Concurrent requests are batched continuously.
        Raises UserError when tokens + max_new_tokens exceed `context_tokens`, EngineFault when the engine died.
        """
        ...

    async def close(self) -> None:
        """Stop; pending requests end with EngineFault. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardReport:
    """What one forward_backward did."""

    log_probs: Sequence[Sequence[float]]
    """The policy's log-probs per row, aligned with the row's ids (nats; 0.0 where not trained)."""
    loss: float
    metrics: Mapping[str, float]
    """Of the loss; names and units in `agentrft.train.metrics`."""
    unique_tokens: int
    """Tokens computed after prefix sharing."""
    row_tokens: int
    """Tokens there would have been without it."""
    micro_batches: int
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimReport:
    grad_norm: float
    """Before clipping."""
    policy_version: int
    """After the update."""


class Learner(Protocol):
    """Holds the trainable weights. Loops never touch tensors."""

    @property
    def policy_version(self) -> int:
        """Optimiser steps taken."""
        ...

    async def forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        """Accumulate the exact gradient of `loss` (a `losses.spec` document) summed over all rows.

        `rows` is the whole optimiser step: the learner alone plans prefix trees and micro-batches, which never change
        the gradient beyond summation order. Credit arrives normalised, so the loss is a plain sum over units.
        """
        ...

    async def optim_step(self, lr: float) -> OptimReport:
        """Clip, apply AdamW, clear the gradient; generators see the new weights from their next request."""
        ...

    async def log_probs(self, rows: Sequence[Row], *, reference: bool = False) -> list[list[float]]:
        """Log-probs (nats) aligned with each row's ids, 0.0 where not trained; `reference` means adapter off."""
        ...

    async def save(self, folder: Path) -> None:
        """Write adapter (PEFT format) or weights, and the optimiser's state, as safetensors into `folder`."""
        ...

    async def load(self, folder: Path) -> None:
        """Restore what `save` wrote, bit for bit; raises UserError when it does not fit this model."""
        ...


class ChatModel(Protocol):
    """Text in, text out. Can judge, be diagnosed and prompt-optimised; cannot be handed to a trainer."""

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """One assistant message; raises EngineFault after retries."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatEndpoint:
    """A model behind an OpenAI-compatible API, as a document names it. Holds the name of a key, never a key."""

    model: str
    base_url: str | None = None
    """`https://host/v1`; None for the environment's `OPENAI_BASE_URL`, else OpenAI's own."""
    api_key_env: str | None = None
    """Environment variable with the key; None for `OPENAI_API_KEY`, which goes to the default address only."""
    timeout_s: float = 120.0
    """Of one request, retries not included."""
    max_concurrency: int = 16
    """Requests in flight at once."""
    temperature: float | None = None
    """This and the following are sent only where they are set; the provider's own default holds elsewhere."""
    top_p: float | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    """Longest reply, reasoning included."""
    reasoning_effort: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReply:
    """What a judge gave back: a document, or none and why. Never both, never neither."""

    document: str | None
    """The form as the judge filled it in, unread: whoever asked checks it."""
    reason: str | None = None
    """Why there is none: it declined, was cut off, or its server refused this request."""
    error: GradeError | None = None
    """The kind of failure; set exactly when `reason` is."""
    usage: TokenUsage | None = None
    """None when the server counts no tokens."""
    is_constrained: bool = True
    """False when the server has no structured output, so that the form was asked for in words only."""


class Judge(Protocol):
    """A model that fills in a form. What it is shown is data to it as far as its training holds; say so in words."""

    async def fill_in(self, messages: Sequence[Message], form: Mapping[str, Any], *, attempt: int = 0) -> JudgeReply:
        """One JSON document in the shape of the JSON Schema `form`; a request's seed is raised by `attempt`.

        Raises EngineFault, after retries, when the model cannot be reached: an outage, not a verdict.
        """
        ...

    async def close(self) -> None:
        """Stop; requests in flight and later ones end with EngineFault. Safe to call twice."""
        ...


OpenJudge = Callable[[ChatEndpoint, str], Judge]
"""(endpoint, the field to blame) → judge; raises UserError when the environment lacks what the endpoint needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know about the episode that calls it."""

    trace_id: str
    item: Item
    deadline_s: float
    """Seconds this call may take."""


class Tool(Protocol):
    """One tool, open for one episode."""

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """The raw output text.

        Arguments are already validated against `spec.parameters`. Raises ValueError (message shown to the model) for
        arguments the tool itself rejects, ToolFault when the tool is broken.
        """
        ...


class ToolSession(Protocol):
    """All tools of one episode; what state they keep lives and dies with it."""

    @property
    def specs(self) -> Sequence[ToolSpec]: ...

    async def call(self, call: ToolCall) -> ToolResult:
        """The one path every call takes; the model's mistakes come back as results, ToolFault is raised."""
        ...

    async def close(self) -> None: ...


class ToolSet(Protocol):
    """The tools of a job."""

    async def open(self, item: Item, trace_id: str) -> ToolSession:
        """Fresh tools for one episode; raises ToolFault when they cannot start."""
        ...

    async def close(self) -> None: ...


class Grader(Protocol):
    """Scores what the agent did."""

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """A number or a reason; raises BoundaryError when what it asks is down, never for what the sample contains."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One assistant reply, from whichever actor."""

    message: Message
    tokens: Sequence[int] = ()
    """Exactly the generated ids, stop token included; empty for text-only actors."""
    log_probs: Sequence[float] = ()
    truncated: bool = False
    """The token limit came before the stop token."""
    malformed: str | None = None
    """Why the text is not a readable call, in words the model can act on."""
    policy_version: int = 0


class ChatFormat(Protocol):
    """Messages ↔ tokens for one model family, append-only: nothing decoded is ever encoded again."""

    name: str
    stop_ids: frozenset[int]

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """Ids of the conversation up to and including the opening of the next assistant reply."""
        ...

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        """Read a generated reply (stop token included): the message, and why a call in it is malformed, or None."""
        ...

    def results(self, results: Sequence[ToolResult]) -> list[int]:
        """The suffix to append after a reply's stop token: tool results, then the opening of the next reply."""
        ...

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        """Ids of a demonstrated assistant reply, stop token included: what a perfect policy would generate."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text, special tokens shown; for transcripts only."""
        ...


class Store(Protocol):
    """Durable records of jobs, events, metrics, checkpoints and episodes. Short transactions only.

    Unknown ids raise UserError; a database that refuses raises StoreFault.
    """

    def create_job(self, job: Mapping[str, Any]) -> None: ...
    def get_job(self, job_id: str) -> dict[str, Any]: ...
    def list_jobs(self, *, limit: int = 20, after: str | None = None) -> list[dict[str, Any]]:
        """Newest first."""
        ...

    def update_job(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Set keys of the job's document; never its status."""
        ...

    def set_job_status(self, job_id: str, status: str, *, error: Mapping[str, Any] | None = None) -> None:
        """The only way a status changes; writes the event in the same transaction. UserError when not legal."""
        ...

    def claim_job(self, job_id: str, owner: str, lease_s: float) -> int:
        """A fencing token that voids every earlier one; UserError while another owner's lease runs."""
        ...

    def heartbeat(self, job_id: str, token: int, lease_s: float) -> None: ...
    def release_job(self, job_id: str, token: int) -> None: ...
    def fenced(self, job_id: str, token: int) -> Store:
        """The same store for the holder of `token`: every write raises StoreFault once the token is stale."""
        ...

    def add_event(
        self, job_id: str, message: str, *, level: str = "info", data: Mapping[str, Any] | None = None
    ) -> None: ...
    def list_events(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, created_at, level, message, data}`, oldest first."""
        ...

    def add_metrics(self, job_id: str, step: int, metrics: Mapping[str, float]) -> None: ...
    def list_metrics(self, job_id: str) -> list[dict[str, Any]]:
        """`{step, metrics: {name: value}}` by step; None where the value was no finite number."""
        ...

    def add_checkpoint(self, job_id: str, step: int, path: str, metrics: Mapping[str, float]) -> str:
        """The checkpoint's id; the same step again replaces it."""
        ...

    def list_checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, step, path, metrics, created_at}` by step."""
        ...

    def add_episodes(self, job_id: str, records: Sequence[EpisodeRecord]) -> None:
        """All or none; an episode that is there already is replaced."""
        ...

    def get_episode(self, episode_id: str) -> EpisodeRecord: ...
    def list_episodes(self, job_id: str, *, step: int | None = None, limit: int = 100) -> list[EpisodeRecord]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """An episode as it is stored and shown: with its grade and what training made of it."""

    job_id: str
    phase: Literal["train", "validation", "test"]
    stage: str
    """Which model produced it: `base`, `sft`, `rft`, or a checkpoint name."""
    episode: Episode
    grade: Grade
    reward: float | None = None
    """None when the episode was out of the loss."""
    advantage: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...


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
