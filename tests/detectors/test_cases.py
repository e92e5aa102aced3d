"""Every class on small recorded episodes: `found/` must be found at the step named, `near_misses/` must not be.

A case is `{name, tools, episodes}`; an episode is `{item, prompt, fields, turns, answer, grade, stop, fault, times}`,
where a turn is a list of calls `{call, args, out, error, tries, …}` or an unreadable reply `{text, malformed}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrft.detectors import CLASSES, InForce, Kind, Seen, detect
from agentrft.protocols import EpisodeRecord
from agentrft.types import (
    Episode,
    Grade,
    GradeError,
    Intervention,
    Item,
    Message,
    OutputStep,
    StopReason,
    ToolCall,
    ToolResult,
    ToolSpec,
    Turn,
)

HERE = Path(__file__).parent
NEAR_MISSES = 10


def cases(folder: str) -> Iterator[Any]:
    for kind in CLASSES:
        path = HERE / folder / f"{kind}.yaml"
        for case in yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else ():
            yield pytest.param(kind, case, id=f"{kind}: {case['name']}")


def tool(name: str, properties: dict[str, Any]) -> ToolSpec:
    """`{path: string, limit: integer?}`; a mapping in place of a type is a whole schema."""
    schemas = {
        key.rstrip("?"): value if isinstance(value, dict) else {"type": value} for key, value in properties.items()
    }
    required = [key for key in properties if not key.endswith("?")]
    parameters = {"type": "object", "properties": schemas, "required": required, "additionalProperties": False}
    return ToolSpec(name=name, description=f"The tool {name}", parameters=parameters)


def result(call_id: str, call: dict[str, Any]) -> ToolResult:
    return ToolResult(
        call_id=call_id,
        output=str(call.get("out", "ok")),
        is_error=call.get("error", False),
        tries=call.get("tries", 1),
        bytes_in=call.get("bytes_in", 0),
        interventions=tuple(Intervention(rule=rule, message=rule, enforced=True) for rule in call.get("rules", ())),
        shaping=tuple(OutputStep(name=n, bytes_in=a, bytes_out=b) for n, a, b in call.get("shaping", ())),
        ends_episode=call.get("ends", False),
    )


def turn(number: int, given: Any) -> Turn:
    if isinstance(given, dict):
        text = Message(role="assistant", content=given["text"])
        told = ToolResult(call_id=f"c{number}", output=f"error: {given['malformed']}", is_error=True, tries=0)
        return Turn(reply=text, malformed=given["malformed"], results=() if given.get("last") else (told,))
    made = tuple(
        ToolCall(
            id=f"c{number}_{k}",
            name=call["call"],
            arguments=call["text"] if "text" in call else json.dumps(call.get("args", {}), ensure_ascii=False),
        )
        for k, call in enumerate(given)
    )
    results = tuple(result(c.id, call) for c, call in zip(made, given, strict=True) if not call.get("unanswered"))
    return Turn(reply=Message(role="assistant", tool_calls=made), results=results)


def seen_of(case: dict[str, Any], given: dict[str, Any], number: str) -> Seen:
    item_id = given.get("item", "i1")
    prompt = (Message(role="user", content=given.get("prompt", case.get("prompt", "What is it?"))),)
    item = Item(id=item_id, messages=prompt, fields=given.get("fields", case.get("fields", {})))
    turns = [turn(n, one) for n, one in enumerate(given.get("turns", []))]
    if "answer" in given:
        turns.append(Turn(reply=Message(role="assistant", content=given["answer"])))
    stop = StopReason(given.get("stop", "fault" if "fault" in given else "answered"))
    value = given.get("grade", None if "fault" in given or "reason" in given else 1.0)
    why = given.get("reason") or (f"the episode is a fault: {given['fault']}" if "fault" in given else None)
    grade = Grade(
        value=value,
        reason=why if value is None else None,
        substituted=given.get("substituted"),
        error=GradeError(given["grade_error"]) if "grade_error" in given else None,
    )
    episode = Episode(
        id=f"ep_{number}",
        trace_id=f"trace_{number}",
        item_id=item_id,
        step=0,
        member=0,
        attempt=0,
        messages=prompt,
        turns=tuple(turns),
        stop_reason=stop,
        fault=given.get("fault"),
        wall_s=given.get("wall_s", 1.0),
    )
    record = EpisodeRecord(job_id="job", phase="test", stage="base", episode=episode, grade=grade, reward=value)
    tools = [tool(name, properties) for name, properties in case.get("tools", {}).items()]
    return Seen(
        record=record,
        item=item,
        tools=tools,
        limits=InForce(**case.get("limits", {})),
        effects=case.get("effects", {}),
        polling=frozenset(case.get("polling", ())),
        raw=given.get("raw", {}),
    )


def seen_in(case: dict[str, Any]) -> list[Seen]:
    return [
        seen_of(case, given, f"{place}_{time}")
        for place, given in enumerate(case["episodes"])
        for time in range(given.get("times", 1))
    ]


@pytest.mark.parametrize(("kind", "case"), [*cases("found")])
def test_what_is_there_is_found_where_it_is(kind: Kind, case: dict[str, Any]) -> None:
    places = {
        (one.episode_id, one.turn, one.call)
        for finding in detect(seen_in(case))
        if finding.kind is kind
        for one in finding.evidence
    }
    expected = {tuple(place) for place in case["found"]}
    assert places == expected


@pytest.mark.parametrize(("kind", "case"), [*cases("near_misses")])
def test_what_only_looks_like_it_is_not_found(kind: Kind, case: dict[str, Any]) -> None:
    found = [finding for finding in detect(seen_in(case)) if finding.kind is kind]
    assert not found, [one.note for finding in found for one in finding.evidence]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_its_near_misses_and_is_found_somewhere(kind: Kind) -> None:
    names = {
        folder: [case["name"] for case in yaml.safe_load((HERE / folder / f"{kind}.yaml").read_text(encoding="utf-8"))]
        for folder in ("near_misses", "found")
    }
    assert len(set(names["near_misses"])) >= NEAR_MISSES
    assert names["found"]
