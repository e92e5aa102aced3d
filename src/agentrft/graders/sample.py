"""From an episode to what graders see: `Sample`, and the `sample` object of templates and Python graders."""

from __future__ import annotations

import json
import math
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY

from agentrft.net.wire import call_object, message_object
from agentrft.types import Episode, Sample, StopReason

_FINISH = {
    StopReason.ANSWERED: "stop",
    StopReason.MAX_TURNS: "tool_calls",
    StopReason.MAX_REPLY_TOKENS: "length",
    StopReason.MAX_EPISODE_TOKENS: "length",
}


def sample_from_episode(episode: Episode) -> Sample:
    """What graders see of an episode. Only an answer has `output_text`: a cut or unreadable reply is not one."""
    return Sample(
        output_text=episode.answer or "",
        output_tools=episode.turns[-1].reply.tool_calls if episode.turns else (),
        messages=episode.messages,
        stop_reason=episode.stop_reason,
        n_calls=episode.n_calls,
    )


def sample_object(sample: Sample) -> dict[str, Any]:
    """The `sample` namespace: OpenAI's keys and ours, JSON-able values only."""
    tools = [call_object(call) for call in sample.output_tools]
    message = {"role": "assistant", "content": sample.output_text, "tool_calls": tools}
    return {
        "output_text": sample.output_text,
        "output_json": _output_json(sample),
        "output_tools": tools,
        "choices": [{"index": 0, "message": message, "finish_reason": _FINISH.get(sample.stop_reason, "stop")}],
        "messages": [message_object(m) for m in sample.messages],
        "n_calls": sample.n_calls,
        "stop_reason": str(sample.stop_reason),
    }


def _output_json(sample: Sample) -> Any:
    """The answer read as JSON; None where it does not fit `output_schema`."""
    if sample.output_schema is False:
        return None
    value = _parsed(sample.output_text)
    if sample.output_schema is True or value is None:
        return value
    try:
        return value if Draft202012Validator(sample.output_schema, registry=REGISTRY).is_valid(value) else None
    except RecursionError:  # an answer nested as deeply as a schema that refers to itself can follow
        return None


def _parsed(text: str) -> Any:
    """The text read as JSON; None when it is not, or holds what is not finite JSON (NaN, 1e999)."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
