"""Primary classes, paths, and a whole document from a scripted agent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agentrft.detectors import Evidence, Finding, Kind, Owner, Seen
from agentrft.diagnose import Diagnosis, Repeatability, diagnose, grade_again, play
from agentrft.diagnose.failures import causes_of
from agentrft.diagnose.paths import paths_of
from agentrft.errors import UserError
from agentrft.rollout import GradedEpisode
from agentrft.testing import ScriptedGrader
from agentrft.types import Message, StopReason


def finding(kind: Kind, owner: Owner, *places: tuple[str, int | None, bool]) -> Finding:
    evidence = tuple(
        Evidence(episode_id=id, item_id="row-0", turn=turn, call=None, note="-", recovered=recovered)
        for id, turn, recovered in places
    )
    return Finding(kind=kind, title="-", owner=owner, description="-", evidence=evidence, proposal="-")


def test_the_first_step_that_was_not_got_over_is_the_cause(peek) -> None:
    item = peek.items(1)[0]
    failed = [peek.record(peek.episode(item, member), 0.0) for member in range(5)]
    passed = peek.record(peek.episode(item, 9), 1.0)
    ids = [record.episode.id for record in failed]
    findings = [
        finding(Kind.BAD_ARGS, Owner.INTERFACE, (ids[0], 0, True), (ids[1], 2, False), (ids[3], 1, False)),
        finding(Kind.LOOP, Owner.HARNESS, (ids[0], 1, False), (ids[1], 1, False)),
        finding(Kind.MISSING_STEP, Owner.AGENT, (ids[1], None, False), (ids[2], None, False)),
        finding(Kind.EARLY_STOP, Owner.AGENT, (ids[4], 0, False)),
        finding(Kind.REFUSAL_OR_EMPTY, Owner.PROMPT, (ids[4], 0, False), (passed.episode.id, 0, False)),
        finding(Kind.WRONG_TOOL, Owner.INTERFACE, (ids[3], 1, False)),
    ]
    causes = causes_of(findings, [Seen(record=record, item=item) for record in (*failed, passed)], 0.5)
    assert {id: cause.kind for id, cause in causes.items()} == {
        ids[0]: Kind.LOOP,  # its bad arguments were got over
        ids[1]: Kind.LOOP,  # before turn 2
        ids[2]: Kind.MISSING_STEP,  # about the whole episode, and nothing else
        ids[3]: Kind.BAD_ARGS,  # at the same step as wrong_tool, which comes later in the list
        ids[4]: Kind.REFUSAL_OR_EMPTY,  # an empty reply is a failure of form first
    }
    assert causes[ids[4]].is_format
    assert not causes[ids[4]].is_interface
    assert causes[ids[3]].is_interface


def test_a_reply_that_runs_on_is_a_failure_of_form_and_running_out_of_turns_is_not(peek) -> None:
    item = peek.items(1)[0]
    record = peek.record(peek.episode(item), 0.0)
    for limit, is_format in (("max_reply_tokens", True), ("max_turns", False)):
        one = replace(finding(Kind.NO_STOP, Owner.HARNESS, (record.episode.id, 0, False)), target={"limit": limit})
        (cause,) = causes_of([one], [Seen(record=record, item=item)], 0.5).values()
        assert (cause.is_format, cause.is_interface) == (is_format, not is_format)


def test_what_nothing_explains_is_a_wrong_answer_and_faults_have_no_cause(peek) -> None:
    item = peek.items(1)[0]
    fault = peek.record(peek.episode(item, 1, stop=StopReason.FAULT, fault="tool: x"), None)
    seen = [Seen(record=record, item=item) for record in (peek.record(peek.episode(item), 0.1), fault)]
    (cause,) = causes_of([], seen, 0.5).values()
    assert (cause.kind, cause.owner) == (Kind.WRONG_ANSWER, Owner.AGENT)


def test_paths_by_hand(peek) -> None:
    item = peek.items(4)[3]  # its prompt is "3?"
    a = peek.episode(item, 0, calls=[("look", '{"n": 3}'), ("put", '{"n": 4}')], answer="x")
    b = peek.episode(item, 1, calls=[("look", '{"n": 3}')], answer="x")
    same = peek.episode(item, 2, calls=[("look", '{ "n":3 }')], answer="x")
    bad = peek.episode(item, 3, answer="yes")
    long = peek.episode(item, 4, answer="y" * 500)
    cut = peek.episode(item, 5, stop=StopReason.MAX_TURNS, answer=None)
    values = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    records = [peek.record(e, v) for e, v in zip((a, b, same, bad, long, cut), values, strict=True)]
    paths = paths_of(records, 0.5)
    assert paths.calls_passed == [2, 1, 1]
    assert paths.calls_failed == [0, 0, 0]
    assert paths.demos == 2  # b and same have the same calls and answer
    # "yes" has 3 characters, the successes 13 and more: no pair. Nor with the long one; the cut one is not whole.
    assert paths.pairs == 0
    # Names: (look, put)~(look) is ½ alike, twice; (look)~(look) is 1.
    assert paths.likeness == pytest.approx((0.5 + 0.5 + 1) / 3)
    # 3 stands in the prompt, 4 does not: ½, 1, 1.
    assert paths.copied == pytest.approx(2.5 / 3)
    assert paths_of([], 0.5).likeness is None


async def test_a_diagnosis_of_a_scripted_agent_end_to_end(peek) -> None:
    items = peek.items(12)
    plan = peek.plan(items, samples=6)
    baseline = await play(plan, peek.agent(), peek.grader)
    assert baseline is not None
    records_I_G = [
        [
            plan.record(GradedEpisode(episode=episode, grade=grade))
            for episode, grade in zip(group.episodes, group.grades, strict=True)
        ]
        for group in baseline.groups
    ]
    seen = [Seen(record=r, item=g.item) for g, rs in zip(baseline.groups, records_I_G, strict=True) for r in rs]
    repeat = await grade_again(baseline.groups, peek.grader, episodes=20)
    document = diagnose(
        Diagnosis(baseline=baseline, records_I_G=records_I_G, seen=seen, tool_names=["p"], repeat=repeat)
    )
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["schema"], document["n_items"], document["n_episodes"]) == (1, 12, 72)
    # It peeks in 7 of 10 episodes and is right then, else in 1 of 10: 0.73.
    assert document["figures"]["pass_at"]["1"]["low"] < 0.73 < document["figures"]["pass_at"]["1"]["high"]
    assert document["grading"]["repeat"]["icc"] == 1.0
    failed = sum(not passed for item in document["items"] for passed in item["passes"])
    assert document["failures"]["failed"] == failed == sum(item["failed"] for item in document["items"])
    # Failed episodes are those that did not peek; the successful ones of the same item show what is missing.
    kinds = {one["kind"] for one in document["failures"]["findings"]}
    assert kinds & {"missing_step", "early_stop"}, kinds
    first = document["failures"]["findings"][0]
    assert first["cites"][0]["passing_id"] in {r.episode.id for rs in records_I_G for r in rs}
    (tool,) = document["tools"]
    assert tool["name"] == "p"
    assert tool["calls"] == sum(len(e.turns) - 1 for g in baseline.groups for e in g.episodes)


async def test_text_that_no_encoding_takes_is_written_all_the_same(peek) -> None:
    items = [replace(item, messages=(Message(role="user", content="\ud800 0?" * 99),)) for item in peek.items(2)]
    plan = peek.plan(items, samples=2)
    baseline = await play(plan, peek.agent(), peek.grader)
    assert baseline is not None
    records = [
        [plan.record(GradedEpisode(episode=e, grade=g)) for e, g in zip(x.episodes, x.grades, strict=True)]
        for x in baseline.groups
    ]
    nothing = Repeatability(icc=None, episodes=0, gradings=3, changed=0, largest=0.0)
    document = diagnose(
        Diagnosis(baseline=baseline, records_I_G=records, seen=[], tool_names=["\ud800"], repeat=nothing)
    )
    json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    assert document["items"][0]["question"].startswith("? 0?")
    assert len(document["items"][0]["question"]) == 300
    assert document["verdict"]["go"] == "unsure"


async def test_nothing_graded_is_a_users_mistake(peek) -> None:
    def raises(sample, item) -> float:
        raise KeyError("reference")

    plan = peek.plan(peek.items(2), samples=2)
    baseline = await play(plan, peek.agent(), ScriptedGrader(raises))
    assert baseline is not None
    nothing = Repeatability(icc=None, episodes=0, gradings=3, changed=0, largest=0.0)
    with pytest.raises(UserError, match=r"None of the 4 episodes could be graded: the grader raised KeyError"):
        diagnose(Diagnosis(baseline=baseline, records_I_G=[[], []], seen=[], tool_names=[], repeat=nothing))
