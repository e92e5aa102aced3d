"""Episodes as others read them: the API's episode object, and one line of an export in OpenAI's trace shape.

OpenAI's export of an automatic evaluation has `datasource_item.trace` with a span for every reply (`GENERATION`) and
every call (`FUNCTION`); its `model`, `model_config` and `usage` are null there and filled in here. Spans have no clock
times, because episodes are recorded without: `started_at`, `ended_at` and `created_at` stay null, and `duration_s` says
how long a call took. Shape: openai-api.md §2.7, §1.10.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from agentrft.net.wire import item_object, message_object
from agentrft.protocols import EpisodeRecord
from agentrft.types import Grade, Item, Message, ToolCall, ToolResult, Turn


def episode_object(record: EpisodeRecord) -> dict[str, Any]:
    """What a list says of an episode: who played what, how it ended and what that was worth."""
    return json_safe(_summary(record))


def _summary(record: EpisodeRecord) -> dict[str, Any]:
    episode = record.episode
    return {
        "id": episode.id,
        "object": "fine_tuning.job.episode",
        "fine_tuning_job_id": record.job_id,
        "step": episode.step,
        "phase": record.phase,
        "stage": record.stage,
        "split": record.extra.get("split"),
        "item_id": episode.item_id,
        "member": episode.member,
        "attempt": episode.attempt,
        "trace_id": episode.trace_id,
        "stop_reason": str(episode.stop_reason),
        "fault": episode.fault,
        "n_turns": len(episode.turns),
        "n_calls": episode.n_calls,
        "n_tokens": 0 if episode.tokens is None else len(episode.tokens.ids),
        "wall_s": episode.wall_s,
        "output_text": episode.answer,
        "grade": grade_object(record.grade),
        "reward": record.reward,
        "advantage": record.advantage,
    }


def episode_detail(record: EpisodeRecord) -> dict[str, Any]:
    """The same with every message and result, the exact tokens, what made up the reward, and the trace."""
    tokens = record.episode.tokens
    detail = {
        **_summary(record),
        "messages": [message_object(message) for message in record.episode.messages],
        "turns": [_turn_object(turn) for turn in record.episode.turns],
        "tokens": None
        if tokens is None
        else {
            "ids": list(tokens.ids),
            "trained": list(tokens.trained),
            "log_probs": list(tokens.log_probs),
            "prompt_tokens": tokens.prompt_tokens,
            "policy_version": tokens.policy_version,
        },
        "extra": dict(record.extra),
        "trace": trace_object(record),
    }
    return json_safe(detail)


def export_line(
    record: EpisodeRecord, *, model: str | None, item: Item | None, pass_threshold: float
) -> dict[str, Any]:
    """One episode as an output item of OpenAI's evaluations, with the trace; `item` is its row where it is known."""
    episode, grade = record.episode, record.grade
    row = {"id": episode.item_id} if item is None else item_object(item)
    passed = grade.value is not None and grade.value >= pass_threshold
    n_prompt = _prompt_length(record)
    line = {
        **_summary(record),
        "status": "pass" if passed else "fail",
        "datasource_item_id": episode.item_id,
        "datasource_item": {**row, "trace": trace_object(record, model=model)},
        "results": [
            {"name": name, "score": value, "passed": value is not None and value >= pass_threshold, "sample": None}
            for name, value in [("grade", grade.value), *grade.sub_grades.items()]
        ],
        "sample": {
            "input": [message_object(message) for message in episode.messages[:n_prompt]],
            "output": [message_object(message) for message in episode.messages[n_prompt:]],
            "finish_reason": str(episode.stop_reason),
            "model": model,
        },
    }
    return json_safe(line)


def trace_object(record: EpisodeRecord, *, model: str | None = None) -> dict[str, Any]:
    """`{"type": "trace", "spans": […]}`: every reply with every call it made, in order."""
    return {"type": "trace", "spans": list(_spans(record, model))}


def grade_object(grade: Grade) -> dict[str, Any]:
    """A grade with its reason, or its number."""
    return {
        "value": grade.value,
        "reason": grade.reason,
        "error": None if grade.error is None else str(grade.error),
        "is_fault": grade.is_fault,
        "sub_grades": dict(grade.sub_grades),
        "clipped": dict(grade.clipped),
        "substituted": grade.substituted,
        "wall_s": grade.wall_s,
    }


def json_safe(value: Any) -> Any:
    """The value as every JSON reader takes it: no NaN or infinity (null), no half of a surrogate pair (`?`)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {json_safe(key): json_safe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(part) for part in value]
    return value


def _spans(record: EpisodeRecord, model: str | None) -> Iterator[dict[str, Any]]:
    episode, tokens = record.episode, record.episode.tokens
    position = _prompt_length(record)
    for number, turn in enumerate(episode.turns):
        reply_id = _span_id(episode.id, "reply", number)
        is_counted = tokens is not None and turn.end > turn.start
        yield {
            **_span(episode.trace_id, reply_id, None, None),
            "span_data": {
                "type": "GENERATION",
                "input": [message_object(message) for message in episode.messages[:position]],
                "output": _said(turn.reply),
                "model": model or record.stage,
                "model_config": {
                    "stage": record.stage,
                    "policy_version": None if tokens is None else tokens.policy_version,
                },
                "usage": {"input_tokens": turn.start, "output_tokens": turn.end - turn.start} if is_counted else None,
            },
        }
        results = {result.call_id: result for result in turn.results}
        for place, call in enumerate(turn.reply.tool_calls):
            span_id = _span_id(episode.id, "call", number, place)
            yield _call_span(episode.trace_id, span_id, reply_id, call, results.get(call.id))
        position += 1 + len(turn.results)


def _call_span(
    trace_id: str, span_id: str, parent_id: str, call: ToolCall, result: ToolResult | None
) -> dict[str, Any]:
    error = {"message": result.output, "data": None} if result is not None and result.is_error else None
    return {
        **_span(trace_id, span_id, parent_id, error),
        "span_data": {
            "type": "FUNCTION",
            "name": f"functions.{call.name}",
            "input": call.arguments,
            "output": None if result is None else result.output,
            "mcp_data": None,
            "duration_s": None if result is None else result.wall_s,
        },
    }


def _span(trace_id: str, span_id: str, parent_id: str | None, error: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "id": span_id,
        "object": "trace.span",
        "trace_id": trace_id,
        "parent_id": parent_id,
        "created_at": None,
        "started_at": None,
        "ended_at": None,
        "error": error,
    }


def _span_id(episode_id: str, *place: str | int) -> str:
    """The same for the same place of the same episode, whenever it is exported."""
    digest = hashlib.sha256("/".join(map(str, (episode_id, *place))).encode()).hexdigest()
    return f"span_{digest[:24]}"


def _said(reply: Message) -> list[dict[str, Any]]:
    """A reply as traces have it: a call is a message whose recipient is the function."""
    calls = [
        {"role": "assistant", "content": call.arguments, "recipient": f"functions.{call.name}"}
        for call in reply.tool_calls
    ]
    text = [{"role": "assistant", "content": reply.content, "recipient": None}]
    return [*(text if reply.content or not calls else []), *calls]


def _prompt_length(record: EpisodeRecord) -> int:
    """Messages that the episode began with."""
    played = sum(1 + len(turn.results) for turn in record.episode.turns)
    return max(len(record.episode.messages) - played, 0)


def _turn_object(turn: Turn) -> dict[str, Any]:
    return {
        "reply": message_object(turn.reply),
        "malformed": turn.malformed,
        "start": turn.start,
        "end": turn.end,
        "results": [
            {
                "call_id": result.call_id,
                "output": result.output,
                "is_error": result.is_error,
                "wall_s": result.wall_s,
                "bytes_in": result.bytes_in,
                "tries": result.tries,
                "interventions": [
                    {"rule": one.rule, "message": one.message, "enforced": one.enforced} for one in result.interventions
                ],
                "shaping": [
                    {"name": step.name, "bytes_in": step.bytes_in, "bytes_out": step.bytes_out}
                    for step in result.shaping
                ],
            }
            for result in turn.results
        ],
    }
