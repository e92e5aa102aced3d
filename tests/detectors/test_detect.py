"""The table as a whole: whatever was recorded, nothing crashes, and every finding leads to a step that exists."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrft.detectors import CLASSES, DETECTORS, Finding, Kind, Seen, detect, rank
from agentrft.detectors.parse_error import _is_call  # pyright: ignore[reportPrivateUsage]
from agentrft.detectors.refusal_or_empty import refuses
from agentrft.detectors.view import View
from agentrft.detectors.words import is_about_arguments, is_cut, is_not_found, is_outage, is_timeout, reads_like_error
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, Item, Message, StopReason, ToolCall, ToolResult, ToolSpec, Turn

SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}
TOOLS = tuple(ToolSpec(name=name, description=name, parameters=SCHEMA) for name in ("get_row", "delete_row", "探す"))

ITEMS = (
    Item(
        id="a", messages=(Message(role="user", content="Find ORD-123"),), fields={"answer": "ok", "rows": [{"a": "ok"}]}
    ),
    Item(id="b", messages=(), fields={"answer": None}),
    Item(id="c", messages=(Message(role="user", content=""),)),
)

texts = st.one_of(
    st.sampled_from(["", "ok", "error: not found", "Answer", "ORD-123", "a\n[9 more]", "{", '{"error": 1}', "\ud800x"]),
    st.text(max_size=12),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
arguments = st.one_of(values.map(json.dumps), st.sampled_from(['{"id": "ORD-123"}', "{}", "[1", '{"id": 3}']))


@st.composite
def turns(draw: st.DrawFn, number: int) -> Turn:
    names = draw(st.lists(st.sampled_from(["get_row", "delete_row", "探す", "get-row", ""]), max_size=3))
    calls = tuple(ToolCall(id=f"c{number}_{k}", name=name, arguments=draw(arguments)) for k, name in enumerate(names))
    results = tuple(
        ToolResult(call_id=c.id, output=draw(texts), is_error=draw(st.booleans()), tries=draw(st.integers(0, 2)))
        for c in calls[: draw(st.integers(0, len(calls)))]
    )
    malformed = draw(st.sampled_from([None, None, "no tool named 'x'", ""]))
    content = draw(st.one_of(st.none(), texts))
    return Turn(
        reply=Message(role="assistant", content=content, tool_calls=calls), results=results, malformed=malformed
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Seen]:
    seen = []
    for number in range(draw(st.integers(0, 6))):
        item = draw(st.sampled_from(ITEMS))
        stop = draw(st.sampled_from(StopReason))
        value = None if stop is StopReason.FAULT else draw(st.sampled_from([None, 0.0, 0.4, 1.0]))
        episode = Episode(
            id=f"ep_{number}",
            trace_id="t",
            item_id=item.id,
            step=0,
            member=number,
            attempt=0,
            messages=item.messages,
            turns=tuple(draw(turns(k)) for k in range(draw(st.integers(0, 4)))),
            stop_reason=stop,
            fault="tool: tool get_row raised OSError" if stop is StopReason.FAULT else None,
        )
        grade = Grade(value=value, reason="none" if value is None else None)
        record = EpisodeRecord(job_id="j", phase="test", stage="base", episode=episode, grade=grade, reward=value)
        seen.append(Seen(record=record, item=item, tools=TOOLS[: draw(st.integers(0, 3))]))
    return seen


def places(findings: list[Finding]) -> set[tuple[str, str, str, int | None, int | None]]:
    return {(f.kind, f.title, e.episode_id, e.turn, e.call) for f in findings for e in f.evidence}


@settings(max_examples=40, deadline=None)
@given(runs(), st.randoms(use_true_random=False))
def test_every_finding_leads_to_a_step_that_exists_in_whatever_order_episodes_come(
    seen: list[Seen], rng: random.Random
) -> None:
    findings = detect(seen)
    episodes = {one.record.episode.id: one.record.episode for one in seen}
    for finding in findings:
        assert finding.evidence
        assert finding.title
        assert finding.proposal
        for one in finding.evidence:
            assert one.item_id == episodes[one.episode_id].item_id
            if one.turn is not None and episodes[one.episode_id].turns:
                turn = episodes[one.episode_id].turns[one.turn]
                assert one.call is None or turn.reply.tool_calls[one.call]
    assert len(rank(findings, seen, 0.5)) == len(findings)
    shuffled = list(seen)
    rng.shuffle(shuffled)
    assert {place[0::2] for place in places(detect(shuffled))} == {place[0::2] for place in places(findings)}


def test_nothing_is_found_in_nothing() -> None:
    assert detect([]) == []
    assert rank([], [], 0.5) == []


def test_the_table_has_every_class_once() -> None:
    assert [*DETECTORS, Kind.WRONG_ANSWER] == list(CLASSES) == list(Kind)
    assert len(CLASSES) == 19


HOSTILE = [
    "a." * 100_000,
    "```" + " " * 200_000,
    "error " * 50_000,
    "{" * 100_000,
    "[" * 5_000 + "]" * 5_000,
    "(" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=["dots", "fence", "errors", "braces", "lists", "brackets"])
def test_hostile_texts_take_no_time(text: str) -> None:
    item = Item(id="i", messages=())
    episode = Episode(
        id="e",
        trace_id="t",
        item_id="i",
        step=0,
        member=0,
        attempt=0,
        messages=(),
        turns=(),
        stop_reason=StopReason.ANSWERED,
    )
    record = EpisodeRecord(job_id="j", phase="test", stage="base", episode=episode, grade=Grade(value=0.0))
    view = View(Seen(record=record, item=item, tools=TOOLS), 0.5)
    started = time.process_time()
    for read in (reads_like_error, is_outage, is_timeout, is_not_found, is_about_arguments, is_cut, refuses):
        read(text)
    _is_call(text, view)
    assert time.process_time() - started < 2.0
