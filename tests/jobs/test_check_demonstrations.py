"""Demonstrations of a job: several questions, tools of their own, held-out ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.rows import Demonstration, demonstration_of
from agentrft.jobs.check import CheckReport, check_job
from agentrft.jobs.load import load_job
from agentrft.jobs.rows import episodes_of

MakeJob = Callable[..., Path]

USER = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}
SKIPPED = {**REPLY, "weight": 0}
SYSTEM = {"role": "system", "content": "s"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"word": "a"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "m"}
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}


def parts(*messages: dict[str, Any]) -> list[Demonstration]:
    return episodes_of(demonstration_of({"messages": list(messages), "id": "d"}, 1))


def shape(demonstrations: Sequence[Demonstration]) -> list[tuple[int, tuple[bool, ...]]]:
    """(messages, which of their replies are learnt)."""
    return [(len(one.messages), one.learnt) for one in demonstrations]


def test_a_single_episode_is_left_as_it_is() -> None:
    for messages in ([USER, REPLY], [SYSTEM, USER, USER, CALL, RESULT, REPLY], [USER, SKIPPED, USER, REPLY]):
        demonstration = demonstration_of({"messages": messages, "id": "d"}, 1)
        assert episodes_of(demonstration) == [demonstration]


def test_every_question_with_a_reply_to_learn_is_an_episode_behind_what_came_before() -> None:
    found = parts(SYSTEM, USER, REPLY, USER, CALL, RESULT, REPLY, USER, REPLY)
    assert shape(found) == [(3, (True,)), (7, (False, True, True)), (9, (False, False, False, True))]
    assert [one.id for one in found] == ["d/0", "d/1", "d/2"]


def test_replies_of_weight_0_are_nobodys_episode() -> None:
    assert shape(parts(USER, REPLY, USER, SKIPPED, USER, REPLY)) == [(2, (True,)), (6, (False, False, True))]
    assert shape(parts(USER, REPLY, USER, SKIPPED)) == [(2, (True,))]


def test_a_new_system_message_begins_an_episode_too() -> None:
    assert shape(parts(SYSTEM, USER, REPLY, SYSTEM, USER, REPLY)) == [(3, (True,)), (6, (False, True))]


def rows(*conversations: list[dict[str, Any]], **keys: Any) -> str:
    return "".join(json.dumps({"messages": messages, **keys}) + "\n" for messages in conversations)


def checked(job: Path) -> CheckReport:
    return check_job(*load_job(job))


def supervised(make_job: MakeJob, text: str, held_out: str | None = None, **changes: Any) -> CheckReport:
    files = {"demonstrations__jsonl": text} | ({} if held_out is None else {"held_out__jsonl": held_out})
    data: dict[str, Any] = {"demonstrations": "demonstrations.jsonl"}
    if held_out is not None:
        data["demonstrations_validation"] = "held_out.jsonl"
    job = make_job({"method": {"type": "supervised"}, "data": data, **changes}, **files)
    return checked(job)


def test_a_chat_of_several_questions_can_be_learnt(make_job: MakeJob) -> None:
    report = supervised(make_job, rows([USER, REPLY, USER, REPLY], [USER, REPLY]))
    assert report.problems == []
    assert dict(report.facts)["demonstrations"] == "3"


@pytest.mark.parametrize("tools", [[], None])
def test_rows_may_call_the_tools_they_list_where_the_job_binds_none(make_job: MakeJob, tools: Any) -> None:
    text = rows([USER, CALL, RESULT, REPLY], tools=[LOOK])
    assert supervised(make_job, text, **{"agent.tools": tools}).problems == []
    (problem,) = supervised(make_job, rows([USER, CALL, RESULT, REPLY]), **{"agent.tools": tools}).problems
    assert "calls 'look', and neither the row nor the job names any tools; expected" in problem.message
    assert "Add `tools` to the row, as OpenAI's format has them, or bind them in `agent.tools`" in problem.message
    assert (problem.param, problem.code) == ("data.demonstrations", "unknown_tool")


def test_where_the_job_binds_tools_no_others_may_be_called(make_job: MakeJob) -> None:
    other = json.loads(rows([USER, CALL, RESULT, REPLY], tools=[LOOK]).replace("look", "peek"))
    (problem,) = supervised(make_job, json.dumps(other) + "\n").problems
    assert problem.code == "unknown_tool"


def test_held_out_demonstrations_are_checked_as_the_others_are(make_job: MakeJob) -> None:
    good, other = rows([USER, REPLY]), rows([{**USER, "content": "other"}, REPLY])
    report = supervised(make_job, good, other)
    assert report.problems == []
    assert report.warnings == []
    assert dict(report.facts)["demonstrations"] == "1, 1 held out"
    bad = rows([{**USER, "content": "x"}, CALL, RESULT, REPLY]).replace('\\"word\\"', '\\"wort\\"')
    (problem,) = supervised(make_job, good, bad).problems
    assert (problem.param, problem.code) == ("data.demonstrations_validation", "invalid_demonstration")
    (problem,) = supervised(make_job, good, "{}\n").problems
    assert problem.param == "data.demonstrations_validation"
    assert "held_out.jsonl, line 1" in problem.message
    (problem,) = supervised(make_job, good, rows([{**USER, "content": "word " * 600}, REPLY])).problems
    assert (problem.param, problem.code) == ("data.demonstrations_validation", "context_overflow")


def test_held_out_ones_that_are_trained_on_are_pointed_out(make_job: MakeJob) -> None:
    report = supervised(make_job, rows([USER, REPLY]), rows([SYSTEM, USER, REPLY], [USER, REPLY]))
    assert report.problems == []
    (warning,) = report.warnings
    assert "1 of 2 demonstrations" in warning
    assert "line 2 is line 1 there" in warning
