"""Who writes the replies: our generator (exact tokens, trainable) or a chat model (text only).

An actor opens one dialogue per episode. A dialogue only ever grows, so what is recorded is what the model saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentrft.errors import EngineFault, UserError
from agentrft.protocols import ChatFormat, ChatModel, Chunk, GenerateRequest, Generator, Reply
from agentrft.rollout.limits import Limits
from agentrft.types import Item, Message, TokenTrace, ToolResult, ToolSpec


class Dialogue(Protocol):
    """One episode's conversation with the model."""

    @property
    def position(self) -> int:
        """Tokens so far; 0 throughout for text-only actors."""
        ...

    async def reply(self, seed: int) -> Reply:
        """The next reply, already part of the dialogue. Raises EngineFault."""
        ...

    def take(self, reply: Reply) -> None:
        """Append a reply that is there already, as if it had just been written."""
        ...

    def add_results(self, results: Sequence[ToolResult]) -> bool:
        """Append what the calls gave and open the next reply; False, and nothing appended, when it does not fit."""
        ...

    def trace(self) -> TokenTrace | None:
        """The exact tokens so far; None for text-only actors."""
        ...


class Actor(Protocol):
    """Opens dialogues."""

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> Dialogue:
        """A dialogue that begins with the item's messages. Raises UserError when they do not fit the limits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorActor:
    """Plays through a Generator, token by token. Only its episodes can be trained on."""

    generator: Generator
    chat_format: ChatFormat
    temperature: float = 1.0
    """1 for training: the learner's log-probs are of the untempered model. 0 is greedy."""

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> TokenDialogue:
        """Render the prompt, once."""
        prompt = self.chat_format.prompt(item.messages, tools)
        context = self.generator.context_tokens
        capacity = min(limits.max_episode_tokens or context, context)
        if len(prompt) >= capacity:
            bound = "the model's context" if capacity == context else "agent.limits.max_episode_tokens"
            raise UserError(
                f"The prompt of item {item.id!r} has {len(prompt)} tokens; expected fewer than {capacity}, {bound}. "
                "Shorten the item, the system prompt or the tool descriptions"
                f"{'' if capacity == context else f', or raise {bound} (up to {context})'}.",
                param="agent.limits.max_episode_tokens",
                code="context_overflow",
            )
        return TokenDialogue(self, prompt, tools, limits=limits, capacity=capacity, order=order)


class TokenDialogue:
    """An append-only token stream: the prompt once, then generated ids and rendered results in turn.

    Nothing decoded is ever encoded again: text is read out of the stream for control flow and never goes back in.
    """

    def __init__(
        self,
        actor: GeneratorActor,
        prompt: Sequence[int],
        tools: Sequence[ToolSpec],
        *,
        limits: Limits,
        capacity: int,
        order: tuple[int, int],
    ) -> None:
        self._actor = actor
        self._tools = tools
        self._limits = limits
        self._capacity = capacity
        self._order = order
        self._ids = list(prompt)
        self._trained = [False] * len(prompt)
        self._log_probs = [0.0] * len(prompt)
        self._prompt_tokens = len(prompt)
        self._policy_versions: list[int] = []

    @property
    def position(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    async def reply(self, seed: int) -> Reply:
        """Generate until a stop token or the budget, append exactly what came, then read it."""
        tokens, log_probs = [], []
        last: Chunk | None = None
        async for chunk in self._actor.generator.generate(self._request(seed)):
            tokens += chunk.tokens
            log_probs += chunk.log_probs
            last = chunk
        if last is None or last.finish_reason is None:
            raise EngineFault(f"the generator stopped after {len(tokens)} tokens without a finish_reason")
        truncated = last.finish_reason == "length"
        message, malformed = self._read(tokens, truncated)
        reply = Reply(
            message=message,
            tokens=tokens,
            log_probs=log_probs,
            truncated=truncated,
            malformed=malformed,
            policy_version=last.policy_version,
        )
        # Appended in one go: a reply cancelled half-way (time limit) leaves no trace in the stream.
        self.take(reply)
        return reply

    def take(self, reply: Reply) -> None:
        """Append the reply's tokens as generated ones."""
        self._append(reply.tokens, reply.log_probs)
        self._policy_versions.append(reply.policy_version)

    def add_results(self, results: Sequence[ToolResult]) -> bool:
        """Append the rendered results if at least one token of a reply still fits after them."""
        suffix = self._actor.chat_format.results(results)
        if len(self._ids) + len(suffix) >= self._capacity:
            return False
        self._append(suffix, None)
        return True

    def trace(self) -> TokenTrace:
        """The stream as it stands."""
        return TokenTrace(
            ids=list(self._ids),
            trained=list(self._trained),
            log_probs=list(self._log_probs),
            prompt_tokens=self._prompt_tokens,
            # The oldest: what staleness is measured from.
            policy_version=min(self._policy_versions, default=0),
        )

    def _request(self, seed: int) -> GenerateRequest:
        return GenerateRequest(
            tokens=tuple(self._ids),
            seed=seed,
            max_new_tokens=min(self._limits.max_reply_tokens, self._capacity - len(self._ids)),
            stop_ids=self._actor.chat_format.stop_ids,
            temperature=self._actor.temperature,
            order=self._order,
        )

    def _append(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        generated = log_probs is not None
        self._ids += ids
        self._trained += [generated] * len(ids)
        self._log_probs += log_probs if generated else [0.0] * len(ids)

    def _read(self, tokens: Sequence[int], truncated: bool) -> tuple[Message, str | None]:
        if truncated:  # broken framing: shown, never parsed
            return Message(role="assistant", content=self._actor.chat_format.decode(tokens)), None
        return self._actor.chat_format.parse(tokens, self._tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatActor:
    """Plays through any chat model. Its episodes can be graded and shown, never trained on."""

    model: ChatModel

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> TextDialogue:
        """Token limits do not apply: the model's provider counts its own tokens."""
        return TextDialogue(self.model, item.messages, tools)


class TextDialogue:
    """A growing list of messages."""

    def __init__(self, model: ChatModel, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
        self._model = model
        self._messages = list(messages)
        self._tools = tools

    @property
    def position(self) -> int:
        """Always 0: there are no tokens."""
        return 0

    async def reply(self, seed: int) -> Reply:
        """Ask the model; the seed has no effect on it."""
        reply = Reply(message=await self._model.reply(self._messages, self._tools))
        self.take(reply)
        return reply

    def take(self, reply: Reply) -> None:
        """Append the message."""
        self._messages.append(reply.message)

    def add_results(self, results: Sequence[ToolResult]) -> bool:
        """Append one tool message per result."""
        # The ids the model itself gave: providers match results to calls by them.
        ids = [call.id for call in self._messages[-1].tool_calls]
        for call_id, result in zip(ids, results, strict=True):
            self._messages.append(Message(role="tool", content=result.output, tool_call_id=call_id))
        return True

    def trace(self) -> None:
        """A chat model gives no tokens."""
        return
