"""One reply from one model: the prompt, the tokens as they come, and the events that they make."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from agentrft.chat import AnyFormat
from agentrft.errors import EngineFault, UserError
from agentrft.protocols import Chunk, GenerateRequest
from agentrft.runtime.serving.conversation import Conversation, read_conversation
from agentrft.runtime.serving.grammars import constraint_of
from agentrft.runtime.serving.models import Model, Models
from agentrft.runtime.serving.reader import Marks, ReplyReader
from agentrft.runtime.serving.stops import Piece, StopStrings
from agentrft.runtime.serving.wire import (
    CallMade,
    ChatEvent,
    ChatRequest,
    DrawnToken,
    Ended,
    FinishReason,
    LikelyToken,
    Started,
    TextDelta,
)
from agentrft.types import TokenUsage, ToolCall

_PARAMS = {"data": "messages", "agent.tools": "tools", "agent.format": "model"}
"""Fields of a job, as a chat request names them."""
_LEAST_LOG_PROB = -9999.0
"""As OpenAI writes a token that could hardly have come."""


async def play(models: Models, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
    """The events of one reply: `Started`, text and calls, `Ended`. Raises UserError before the first, EngineFault."""
    conversation = read_conversation(request)
    async with models.use(request.weights) as model:
        try:
            fmt = await asyncio.to_thread(model.format, request.format)
            wanted = await asyncio.to_thread(_generation, request, conversation, fmt, model)
            trained = request.weights.trained
            if trained is not None and not request.weights.is_full:
                # Nothing is awaited from here to the generator's first step, so the adapter cannot be evicted between.
                wanted = replace(wanted, adapter=await model.adapter(trained))
            reply = _Reply(request, conversation, fmt, model.engine.constraints.token_bytes)
            async with aclosing(model.engine.generator.generate(wanted)) as chunks:
                async for chunk in chunks:
                    if reply.generated == 0:
                        yield Started(prompt_tokens=len(wanted.tokens))
                    for event in reply.take(chunk):
                        yield event
                    if reply.is_over:
                        break
        except UserError as error:
            raise _in_chat_words(error, conversation) from None
        for event in reply.end(len(wanted.tokens)):
            yield event


def _generation(request: ChatRequest, conversation: Conversation, fmt: AnyFormat, model: Model) -> GenerateRequest:
    """What to generate from; raises UserError for a conversation that cannot be written, or is too long."""
    prompt = fmt.prompt(conversation.messages, conversation.tools)
    context = model.engine.generator.context_tokens
    if len(prompt) >= context:
        raise UserError(
            f"the conversation has {len(prompt)} tokens, which leaves no room for a reply in the model's context of "
            f"{context}; expected fewer. Shorten the messages or the tool descriptions",
            param="messages",
            code="context_length_exceeded",
        )
    room = context - len(prompt)
    constraint = constraint_of(fmt, conversation)
    return GenerateRequest(
        tokens=prompt,
        seed=int.from_bytes(os.urandom(8), "big") if request.seed is None else request.seed,
        max_new_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
        stop_ids=fmt.stop_ids if constraint else fmt.stop_ids | _further_stops(conversation, Marks.of(fmt)),
        temperature=request.temperature,
        # 0 is what OpenAI takes for "the likeliest alone".
        top_p=max(request.top_p, 1e-6),
        top_logprobs=request.top_logprobs,
        constraint=constraint,
    )


def _further_stops(conversation: Conversation, marks: Marks) -> frozenset[int]:
    """Where a reply ends although its model would go on: at a call that it may not make, after the only one it may."""
    stop = marks.open if not conversation.callable else marks.close if conversation.one_call else None
    return frozenset() if stop is None else frozenset({stop})


class _Reply:
    """Makes events of tokens."""

    def __init__(
        self, request: ChatRequest, conversation: Conversation, fmt: AnyFormat, token_bytes: Callable[[int], bytes]
    ) -> None:
        self._request = request
        self._conversation = conversation
        self._fmt = fmt
        self._token_bytes = token_bytes
        self._reader = ReplyReader(fmt, conversation.callable)
        self._unread = fmt.stop_ids
        if not conversation.callable:
            self._unread |= _further_stops(conversation, Marks.of(fmt))
        self._stops = StopStrings(request.stop)
        self._last: Chunk | None = None
        self.generated = 0
        """Tokens so far."""

    @property
    def is_over(self) -> bool:
        """A stop string came, so nothing more is wanted."""
        return self._stops.hit

    def take(self, chunk: Chunk) -> list[ChatEvent]:
        """The text that these tokens make certain."""
        pieces: list[Piece] = []
        tops = chunk.top_log_probs or [()] * len(chunk.tokens)
        for id_, log_prob, top in zip(chunk.tokens, chunk.log_probs, tops, strict=True):
            if id_ not in self._unread:
                pieces += self._reader.feed(id_, self._token_bytes(id_), self._described(id_, log_prob, top))
        self.generated += len(chunk.tokens)
        self._last = chunk
        return _delta(self._stops.feed(pieces))

    def end(self, prompt_tokens: int) -> list[ChatEvent]:
        """What is left to say once the generator is done."""
        if self._last is None or (self._last.finish_reason is None and not self.is_over):
            raise EngineFault(f"the generator stopped after {self.generated} tokens without a finish_reason")
        reason: FinishReason = "stop" if self.is_over or self._last.finish_reason == "stop" else "length"
        events: list[ChatEvent] = []
        malformed = None
        if not self.is_over:
            rest = self._reader.finish(truncated=reason == "length")
            malformed = rest.malformed
            pieces = self._stops.feed(rest.pieces)
            events += _delta([*pieces, *self._stops.rest()])
            if not self.is_over and rest.calls:
                events += self._calls(rest.calls)
                reason = "tool_calls"
        usage = TokenUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=self.generated,
            cached_tokens=self._last.cached_tokens,
        )
        ended = Ended(
            finish_reason="stop" if self.is_over else reason,
            usage=usage,
            policy_version=self._last.policy_version,
            bundle=self._request.weights.bundle,
            malformed=malformed,
        )
        return [*events, ended]

    def _calls(self, calls: Sequence[ToolCall]) -> list[ChatEvent]:
        wanted = calls[:1] if self._conversation.one_call else calls
        return [
            CallMade(index=index, id=f"call_{uuid.uuid4().hex[:24]}", name=call.name, arguments=call.arguments)
            for index, call in enumerate(wanted)
        ]

    def _described(self, id_: int, log_prob: float, top: Sequence[tuple[int, float]]) -> DrawnToken | None:
        if not self._request.logprobs:
            return None
        likeliest = tuple(LikelyToken(**self._likely(*one)) for one in top)
        return DrawnToken(**self._likely(id_, log_prob), top=likeliest)

    def _likely(self, id_: int, log_prob: float) -> dict[str, Any]:
        own = self._token_bytes(id_)
        # JSON has no −∞, which is what the log-prob of a probability below float32's smallest would be.
        return {
            "token": own.decode("utf-8", "replace"),
            "bytes": tuple(own),
            "log_prob": max(log_prob, _LEAST_LOG_PROB),
        }


def _delta(pieces: Sequence[Piece]) -> list[ChatEvent]:
    text = "".join(piece.text for piece in pieces)
    tokens = tuple(piece.token for piece in pieces if piece.token is not None)
    return [TextDelta(text=text, tokens=tokens)] if text else []


def _in_chat_words(error: UserError, conversation: Conversation) -> UserError:
    """The error with the field of the chat request that it is about."""
    param = _PARAMS.get(error.param or "", error.param)
    if error.code == "constraint_unsupported" and conversation.schema is None:
        param = "tools"
    return UserError(error.message, param=param, code=error.code)
