import pytest

from agentrft.errors import UserError
from agentrft.stats import cluster_bootstrap
from agentrft.testing import ScriptedGrader, ScriptedTools
from agentrft.train import EpisodeDone, EvalPlan, EvaluationDone, evaluate
from agentrft.types import Grade


def plan(peek, **changes) -> EvalPlan:
    return EvalPlan(
        **{"run": "ftjob-t", "split": "test", "stage": "base", "items": peek.items(6), "samples": 3} | changes
    )


async def test_values_are_listed_by_item(peek, log, seen, store):
    evaluation = await evaluate(plan(peek), peek.agent(peek.learner()), peek.grader, log)
    assert [len(values) for values in evaluation.reward_I_K] == [3] * 6
    pairs = [pair for g in evaluation.groups for pair in zip(g.episodes, g.grades, strict=True)]
    assert [r for values in evaluation.reward_I_K for r in values] == [
        min(grade.value, 0.0) if episode.stop_reason.is_truncated else grade.value for episode, grade in pairs
    ]
    assert [c for values in evaluation.calls_I_K for c in values] == [episode.n_calls for episode, _ in pairs]
    assert sum(evaluation.stop_reasons.values()) == 18
    assert evaluation.interval(evaluation.reward_I_K) == cluster_bootstrap(evaluation.reward_I_K)
    stored = store.list_episodes("ftjob-t")
    assert {record.episode.id for record in stored} == {episode.id for episode, _ in pairs}
    assert {(r.phase, r.stage, r.extra["split"]) for r in stored} == {("test", "base", "test")}
    assert [record.done for record in seen if isinstance(record, EpisodeDone)] == list(range(1, 19))
    assert isinstance(seen[-1], EvaluationDone)


async def test_the_same_plan_gives_the_same_episodes_and_another_stage_others(peek, log):
    async def answers(**changes) -> list:
        evaluation = await evaluate(plan(peek, **changes), peek.agent(peek.learner()), peek.grader, log)
        return [(e.id, e.turns) for group in evaluation.groups for e in group.episodes]

    first, again, other = await answers(), await answers(), await answers(stage="sft")
    assert first == again
    assert not {id_ for id_, _ in first} & {id_ for id_, _ in other}


async def test_faults_and_missing_grades_are_left_out(peek, log):
    def grade(sample, item):
        return Grade(value=None, reason="no idea") if item.id == "row-1" else 0.5

    tools = ScriptedTools(fails=lambda call, item: True)
    always_calls = peek.learner()
    always_calls.table = {}
    agent = peek.agent(always_calls, tools=tools)
    evaluation = await evaluate(plan(peek, samples=8), agent, ScriptedGrader(grade), log)
    faults = [sum(e.stop_reason.value == "fault" for e in g.episodes) for g in evaluation.groups]
    assert [len(values) for values in evaluation.calls_I_K] == [8 - n for n in faults]
    assert evaluation.reward_I_K[1] == []
    assert len(evaluation.reward_I_K[0]) == 8 - faults[0]
    assert evaluation.interval(evaluation.reward_I_K).n_items == 5


async def test_validation_metrics_are_stored_under_their_step(peek, log, store):
    evaluation = await evaluate(
        plan(peek, split="validation", stage="step-00000004", step=4), peek.agent(peek.learner()), peek.grader, log
    )
    [stored] = store.list_metrics("ftjob-t")
    assert stored["step"] == 4
    assert stored["metrics"]["valid_reward_mean"] == evaluation.interval(evaluation.reward_I_K).mean
    names = {"valid_reward_mean", "valid_success_rate", "valid_calls_mean", "valid_s"}
    assert stored["metrics"].keys() == names


async def test_when_nothing_can_be_graded_the_reasons_are_told(peek, log):
    grader = ScriptedGrader(lambda sample, item: Grade(value=None, reason="judge is down"))
    with pytest.raises(UserError, match="None of the test episodes could be graded: judge is down") as caught:
        await evaluate(plan(peek), peek.agent(peek.learner()), grader, log)
    assert caught.value.code == "nothing_graded"
