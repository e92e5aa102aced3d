"""Replies that cannot be read: broken calls, and calls that were taken for the answer because of their framing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.unknown_tool import named_in_vain
from agentrft.detectors.view import View, World

_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=", "<function_call>", "<|tool_call", "<invoke")
_AS_CODE = re.compile(r"\s*`{0,3}(?:\w+\n)?\s*([\w.-]+)\s*\(.*\)\s*`{0,3}\s*", re.DOTALL)
_FENCE = re.compile(r"\s*```(?:json|tool_call|tool)?\s*(.*?)\s*```\s*", re.DOTALL)

_LONG = 4_000
"""Characters: a longer answer is no call."""

_TITLES = {
    "malformed": "replies that cannot be read as a call",
    "arguments": "arguments that are no JSON object",
    "in the answer": "calls written as text, taken for the answer",
}


def find(world: World) -> Iterator[Finding]:
    """One finding per way in which replies are broken."""
    unknown = {(view.id, turn) for view, turn, _ in named_in_vain(world)}
    hits = [hit for view in world.views for hit in _hits(view, unknown)]
    for way, evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.PARSE_ERROR,
            title=_TITLES[way],
            owner=Owner.HARNESS,
            description=f"{_TITLES[way]}, in {len({e.episode_id for e in evidence})} episodes.",
            evidence=evidence,
            proposal="Show one call in the prompt as it must be written, offer fewer tools, or start with a short "
            "supervised stage; check `agent.format` against the model's family.",
            target={"way": way},
        )


def _hits(view: View, unknown: set[tuple[str, int]]) -> Iterator[tuple[str, Evidence]]:
    for number, turn in enumerate(view.episode.turns):
        content = turn.reply.content or ""
        if turn.malformed is not None:
            if (view.id, number) not in unknown and (content.strip() or turn.reply.tool_calls):
                note = f"{clip(content, 50)!r}: {clip(turn.malformed, 60)}"
                yield "malformed", _mended(view, number, note)
        elif number == len(view.episode.turns) - 1 and not turn.reply.tool_calls and _is_call(content, view):
            yield "in the answer", view.whole(f"the reply is a call: {clip(content)!r}", turn=number)
    for step in view.steps:
        if step.arguments is None and view.episode.turns[step.turn].malformed is None:
            yield "arguments", view.at(step, f"{step.name}: {clip(step.text)!r} is no JSON object")


def _mended(view: View, number: int, note: str) -> Evidence:
    """Recovered where a later reply could be read."""
    later = any(turn.malformed is None for turn in view.episode.turns[number + 1 :])
    evidence = view.whole(note, turn=number)
    return Evidence(
        episode_id=evidence.episode_id,
        item_id=evidence.item_id,
        turn=number,
        call=None,
        note=note,
        recovered=later,
    )


def _is_call(content: str, view: View) -> bool:
    """Whether the text is a call of an offered tool, or begins with a mark of one."""
    text = content.strip()
    if len(text) > _LONG:
        return False
    if any(text.startswith(mark) or f"\n{mark}" in text for mark in _MARKS):
        return True
    if (found := _AS_CODE.fullmatch(text)) and found[1] in view.specs:
        return True
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(isinstance(call, dict) and _name_of(call) in view.specs for call in calls)


def _name_of(call: dict[str, object]) -> str:
    inner = call.get("function")
    if isinstance(inner, dict):
        return _name_of(inner)
    has_arguments = any(key in call for key in ("arguments", "parameters", "args", "input"))
    name = call.get("name", call.get("tool", inner))
    return name if isinstance(name, str) and has_arguments else ""
