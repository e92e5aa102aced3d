"""Bad luck costs episodes; a part that is down stops the job before it learns from, or chooses by, what is left."""

import itertools

import pytest

from agentrft.errors import BoundaryError, UserError
from agentrft.testing import ScriptedGrader, ScriptedTools
from agentrft.train import EvalPlan, evaluate, rft
from agentrft.train.outage import check_faults, check_grader
from agentrft.types import Episode, Grade, Group, Item, StopReason

VALIDATED = [f"row-{i}" for i in range(100, 106)]
"""Items that `rft_plan` validates on."""


def group(*outcomes: float | str | None) -> Group:
    """One member each: a number, "fault", a traceback, or None for a grade without number or traceback."""
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
        if isinstance(outcome, str):
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


async def test_a_checkpoint_is_not_chosen_by_the_few_episodes_that_an_outage_left(peek, rft_plan, log, store):
    # Down while step 1 is validated, for all but one of the items.
    learner, agent = calling(peek, lambda call, item: learner.policy_version == 1 and item.id in VALIDATED[1:])
    plan = rft_plan(steps=2, eval_interval=1)
    with pytest.raises(BoundaryError, match=r"\d+ of 12 episodes failed"):
        await rft.train(plan, learner, agent, peek.grader, log)
    assert [c["step"] for c in store.list_checkpoints("ftjob-t")] == [0]
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
