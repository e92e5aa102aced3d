"""Bad luck costs episodes; a part that is down stops the job before it learns from, or chooses by, what is left."""

import itertools
import json
from pathlib import Path

import pytest

from agentrft.engines.openai_chat import open_judge
from agentrft.errors import BoundaryError, UserError
from agentrft.graders import build_grader
from agentrft.testing import ScriptedGrader, ScriptedTools
from agentrft.train import EvalPlan, evaluate, rft
from agentrft.train.outage import check_faults, check_grader
from agentrft.types import Episode, Grade, Group, Item, StopReason

VALIDATED = [f"row-{i}" for i in range(100, 106)]
"""Items that `rft_plan` validates on."""


def group(*outcomes: float | str | None) -> Group:
    """One member each: a number, "fault", "judge down", a traceback, or None for neither number nor traceback."""
    episodes, grades = [], []
    for member, outcome in enumerate(outcomes):
        is_fault = outcome == "fault"
        stop = StopReason.FAULT if is_fault else StopReason.ANSWERED
        episodes.append(
            Episode(
                id=f"ep_{member}",
                trace_id="t",
                item_id="row-1",
                step=1,
                member=member,
                attempt=0,
                messages=(),
                turns=(),
                stop_reason=stop,
                fault="tool: no connection" if is_fault else None,
            )
        )
        if outcome == "judge down":
            grades.append(Grade(value=None, reason="engine: judge down", is_fault=True))
        elif isinstance(outcome, str):
            grades.append(Grade(value=None, reason="raised", traceback=None if is_fault else outcome))
        else:
            grades.append(Grade(value=outcome, reason=None if outcome is not None else "out of range"))
    return Group(item=Item(id="row-1", messages=()), episodes=tuple(episodes), grades=tuple(grades))


def test_a_fifth_of_exceptions_is_borne():
    check_grader([group("KeyError: 'x'", 1.0, 1.0, 1.0, 1.0)])
    check_grader([])


def test_more_fails_the_job_with_up_to_five_distinct_tracebacks():
    with pytest.raises(UserError) as caught:
        check_grader([group(*(f"Error {i % 7}" for i in range(14)), 1.0)])
    error = caught.value
    assert (error.code, error.param) == ("grader_failing", "method.reinforcement.grader")
    assert "raised on 14 of 15 episodes; expected at most 20%" in error.message
    assert [f"Error {i}" in error.message for i in range(7)] == [True] * 5 + [False] * 2
    assert "(2 further kinds)" in error.message


def test_faults_do_not_water_the_fifth_down():
    # 2 of 4 graded episodes raised; counted among all 12 it would be a sixth.
    with pytest.raises(UserError, match="raised on 2 of 4 episodes"):
        check_grader([group("KeyError", "KeyError", 1.0, 1.0, *["fault"] * 8)])


def test_a_grader_without_a_single_number_fails_the_job_with_its_reasons():
    with pytest.raises(UserError, match="None of the training episodes could be graded: out of range") as caught:
        check_grader([group(None, None, "fault")])
    assert caught.value.code == "nothing_graded"
    check_grader([group("fault", "fault")])  # not the grader's doing


def test_faults_stop_the_job_when_all_are_or_more_than_allowed():
    check_faults([group("fault", 1.0)])
    check_faults([group("fault", 1.0, 1.0, 1.0, 1.0)], most=0.2)
    check_faults([], most=0.2)
    with pytest.raises(BoundaryError, match="2 of 2 episodes failed, the first with: tool: no connection"):
        check_faults([group("fault", "fault")])
    with pytest.raises(BoundaryError, match="2 of 5 episodes failed"):
        check_faults([group("fault", "fault", 1.0, 1.0, 1.0)], most=0.2)


def test_a_judge_that_is_down_stops_the_job_and_does_not_fail_it():
    down = [group("judge down", "judge down"), group("judge down", "fault")]
    check_grader(down)
    with pytest.raises(BoundaryError, match="4 of 4 episodes failed, the first with: engine: judge down"):
        check_faults(down)
    # What had no number for another reason is no sign of a bad grader while its judge is down.
    mixed = [group("judge down", None, None)]
    check_grader(mixed)
    with pytest.raises(BoundaryError, match="1 of 3 episodes failed"):
        check_faults(mixed)


def test_a_judge_that_fails_now_and_then_costs_its_grades_only():
    some = [group("judge down", 1.0, 0.5, 0.0, None)]
    check_grader(some)
    check_faults(some)
    check_faults(some, most=0.2)
    with pytest.raises(BoundaryError, match="2 of 5 episodes failed"):
        check_faults([group("judge down", "judge down", 1.0, 1.0, 1.0)], most=0.2)
    with pytest.raises(UserError, match="raised on 1 of 2 episodes"):
        check_grader([group("judge down", "judge down", "KeyError", 1.0)])


async def test_an_outage_during_an_evaluation_is_not_taken_for_the_graders_fault(peek, log):
    learner = peek.learner()
    await learner.generator.close()
    plan = EvalPlan(run="ftjob-t", split="test", stage="base", items=peek.items(3), samples=2)
    with pytest.raises(BoundaryError, match="6 of 6 episodes failed"):
        await evaluate(plan, peek.agent(learner), peek.grader, log)


def calling(peek, fails):
    """A policy that always calls its tool, tools that fail where `fails` says so, and both as an agent."""
    learner = peek.warm(peek.learner())
    for values in learner.table.values():
        values *= 10
    tools = ScriptedTools({"p": lambda arguments, item: item.fields["digit"]}, fails=fails)
    return learner, peek.agent(learner, tools=tools)


def validated(store) -> dict[int, bool]:
    """Step of each checkpoint → whether it has a validation."""
    return {c["step"]: "valid_reward_mean" in c["metrics"] for c in store.list_checkpoints("ftjob-t")}


async def test_a_checkpoint_is_not_chosen_by_the_few_episodes_that_an_outage_left(peek, rft_plan, log, store):
    # Down while step 1 is validated, for all but one of the items.
    learner, agent = calling(peek, lambda call, item: learner.policy_version == 1 and item.id in VALIDATED[1:])
    plan = rft_plan(steps=2, eval_interval=1)
    with pytest.raises(BoundaryError, match=r"\d+ of 12 episodes failed"):
        await rft.train(plan, learner, agent, peek.grader, log)
    # Whole steps are saved; that of which too little is known is chosen by nothing.
    assert validated(store) == {0: True, 1: False}
    result = await rft.train(plan, *calling(peek, lambda call, item: False), peek.grader, log)
    assert [step for step, _ in result.validations] == [0, 1, 2]


@pytest.mark.parametrize("bad", range(12))
async def test_an_item_whose_tools_never_work_costs_its_own_episodes_only(peek, rft_plan, log, bad):
    learner, agent = calling(peek, lambda call, item: item.id == f"row-{bad}")
    count = itertools.count()
    # All members of most groups are graded alike, so that refill rounds of a single group come.
    grader = ScriptedGrader(lambda sample, item: float(next(count)) if item.id in ("row-3", "row-7") else 0.5)
    result = await rft.train(rft_plan(steps=2, validation=()), learner, agent, grader, log)
    assert result.last.step == 2


JUDGE = {
    "type": "score_model",
    "name": "judged",
    "model": "judge-1",
    "input": [{"role": "user", "content": "{{sample.output_text}} for {{item.digit}}? Calls: {{sample.n_calls}}"}],
}
KINDS = {"score_model": JUDGE, "endpoint": {"type": "endpoint"}}
KINDS["multi"] = {
    "type": "multi",
    "name": "both",
    "graders": dict(KINDS),
    "calculate_output": "(score_model + endpoint) / 2",
    "invalid_grade": 0.0,
}


@pytest.fixture
async def remote(serve, answer, completion):
    """remote(kind, is_down): a grader that asks a service on loopback, which fails while `is_down()` says so."""
    opened = []

    def score(text: str) -> float:
        return (len(text) * 7 + sum(map(ord, text))) % 11 / 10  # differs within a group; what it is matters to no one

    def build(kind, is_down):
        def respond(asked):
            if is_down():
                return answer(status=503, body=b"gone for lunch", headers={"Retry-After": "0"})
            body = asked.json()
            if asked.path == "/grade":
                return answer(body={"score": score(body["sample"]["output_text"])})
            text = body["messages"][-3]["content"]
            return completion(json.dumps({"steps": [], "result": score(text.split("\n")[1])}))

        url = serve(respond).url
        judge = {"base_url": url, "url": f"{url}/grade"}

        def placed(document):
            field = "url" if document["type"] == "endpoint" else "base_url"
            if document["type"] != "multi":
                return {**document, field: judge[field]}
            return {**document, "graders": {name: placed(part) for name, part in document["graders"].items()}}

        opened.append(build_grader(placed(KINDS[kind]), Path(), open_judge=open_judge))
        return opened[-1]

    yield build
    for grader in opened:
        await grader.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_training_pauses_while_the_grader_is_down_and_goes_on_after(peek, rft_plan, log, store, remote, kind):
    plan = rft_plan(steps=3, eval_interval=1, validation=())
    learner = peek.warm(peek.learner())
    grader = remote(kind, lambda: learner.policy_version == 1)
    with pytest.raises(BoundaryError, match=r"12 of 12 episodes failed.*gone for lunch"):
        await rft.train(plan, learner, peek.agent(learner), grader, log)
    resumed = peek.warm(peek.learner())
    with pytest.raises(BoundaryError, match=r"12 of 12 episodes failed.*gone for lunch"):
        await rft.train(plan, resumed, peek.agent(resumed), remote(kind, lambda: True), log)
    assert (learner.policy_version, resumed.policy_version) == (1, 1), "something of the outage was trained on"
    assert [c["step"] for c in store.list_checkpoints("ftjob-t")] == [0, 1]
    resumed = peek.warm(peek.learner())
    result = await rft.train(plan, resumed, peek.agent(resumed), remote(kind, lambda: False), log)
    assert result.last.step == 3


async def test_no_checkpoint_is_chosen_by_what_an_outage_of_the_judge_left(peek, rft_plan, log, store, remote):
    learner = peek.warm(peek.learner())
    # Two of the twelve validation episodes are graded before it goes down.
    left = itertools.count()
    grader = remote("score_model", lambda: learner.policy_version == 1 and next(left) >= 2)
    with pytest.raises(BoundaryError, match=r"10 of 12 episodes failed.*gone for lunch"):
        await rft.train(rft_plan(steps=2, eval_interval=1), learner, peek.agent(learner), grader, log)
    assert validated(store) == {0: True, 1: False}


async def test_an_outage_of_the_judge_during_an_evaluation_is_none_of_the_graders_fault(peek, log, remote):
    learner = peek.warm(peek.learner())
    plan = EvalPlan(run="ftjob-t", split="test", stage="base", items=peek.items(3), samples=2)
    with pytest.raises(BoundaryError, match="6 of 6 episodes failed, the first with: engine: model 'judge-1' at"):
        await evaluate(plan, peek.agent(learner), remote("score_model", lambda: True), log)
