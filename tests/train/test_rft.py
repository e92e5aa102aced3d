from dataclasses import replace

import pytest

from agentrft.credit import RewardScale
from agentrft.errors import UserError
from agentrft.rollout import Limits
from agentrft.testing import ScriptedGrader, ScriptedLearner, ScriptedTools
from agentrft.train import CheckpointSaved, EvalPlan, Notice, StepDone, evaluate, rft, sft
from agentrft.train.metrics import METRICS
from agentrft.types import Grade, Verdict


async def test_the_ladder_climbs(peek, sft_plan, rft_plan, log):
    """A short supervised start, then reinforcement: reward on unseen items rises from near 0 to near 1."""
    learner = peek.learner()
    agent = peek.agent(learner)

    async def reward(stage: str) -> float:
        items = peek.items(20, start=500)
        plan = EvalPlan(run="ftjob-t", split="test", stage=stage, items=items, samples=2)
        evaluation = await evaluate(plan, agent, peek.grader, log)
        return evaluation.interval(evaluation.reward_I_K).mean

    base = await reward("base")
    await sft.train(sft_plan(learning_rate=3.0), learner, log)
    after_sft = await reward("sft")
    plan = rft_plan(learning_rate=20.0, steps=8, batch_size=4, group_size=8, eval_interval=4)
    result = await rft.train(plan, learner, agent, peek.grader, log)
    after_rft = await reward("rft")
    assert base <= after_sft < 0.2
    assert after_rft > 0.85
    assert [step for step, _ in result.validations] == [0, 4, 8]
    assert result.validations[-1][1] > result.validations[0][1] + 0.5


async def test_without_a_learning_rate_nothing_is_learnt(peek, rft_plan, log):
    learner = peek.warm(peek.learner())
    before = {state: values.tolist() for state, values in learner.table.items()}
    await rft.train(rft_plan(learning_rate=0.0, steps=3), learner, peek.agent(learner), peek.grader, log)
    assert learner.policy_version == 3
    moved = {state: values.tolist() for state, values in learner.table.items() if any(values)}
    assert moved == before


async def test_every_step_is_logged_with_known_metrics(peek, rft_plan, log, seen, store):
    learner = peek.warm(peek.learner())
    result = await rft.train(rft_plan(steps=4), learner, peek.agent(learner), peek.grader, log)
    done = [record for record in seen if isinstance(record, StepDone)]
    assert [record.step for record in done] == [1, 2, 3, 4]
    assert all(record.metrics.keys() <= METRICS.keys() for record in done)
    trained = [record.metrics for record in done if "loss" in record.metrics]
    assert trained
    for metrics in trained:
        # The generator is the learner's own table, so on policy: no mismatch, nothing masked.
        assert metrics["kl_mu_k3"] == metrics["log_prob_gap_max"] == metrics["masked_frac"] == 0.0
        assert metrics["ess"] == pytest.approx(1.0)
    assert [m["step"] for m in store.list_metrics("ftjob-t")] == [0, 1, 2, 3, 4]
    assert [c["step"] for c in store.list_checkpoints("ftjob-t")] == [0, 2, 4]
    saved = [record.step for record in seen if isinstance(record, CheckpointSaved)]
    assert saved == [0, 2, 4]
    assert result.last.step == 4


async def test_episodes_are_stored_with_what_training_made_of_them(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    await rft.train(rft_plan(steps=1, validation=()), learner, peek.agent(learner), peek.grader, log)
    records = store.list_episodes("ftjob-t", step=1)
    assert {record.phase for record in records} == {"train"}
    by_item: dict[str, list] = {}
    for record in records:
        by_item.setdefault(record.episode.item_id, []).append(record)
    assert all(len(group) == 4 for group in by_item.values())
    for group in by_item.values():
        rewards = [record.reward for record in group]
        if max(rewards) - min(rewards) <= 1e-6:
            assert {record.advantage for record in group} == {None}
        else:
            assert sum(record.advantage for record in group) == pytest.approx(0.0)


async def test_rows_are_credited_by_the_token_mean_of_the_step(peek, rft_plan, log):
    rows = []

    class Watched(ScriptedLearner):
        async def forward_backward(self, rows_R, loss):
            rows.append(list(rows_R))
            return await super().forward_backward(rows_R, loss)

    learner = peek.warm(Watched(peek.ids))
    await rft.train(rft_plan(steps=1, validation=()), learner, peek.agent(learner), peek.grader, log)
    [rows_R] = rows
    trained = sum(sum(row.trained) for row in rows_R)
    # Advantages of a group sum to 0, and the first step's scale makes their mean square 1.
    advantages = [max(row.credit, key=abs) * trained for row in rows_R]
    assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
    assert sum(a * a for a in advantages) / len(advantages) == pytest.approx(1.0)


async def test_a_step_without_signal_makes_no_update_and_says_so(peek, rft_plan, log, seen):
    learner = peek.warm(peek.learner())
    result = await rft.train(
        rft_plan(steps=2), learner, peek.agent(learner), ScriptedGrader(lambda sample, item: -0.5), log
    )
    assert learner.policy_version == 0
    assert result.last.state["idle_steps"] == 2
    notices = [record.message for record in seen if isinstance(record, Notice)]
    # 3 · 3 groups of the oversampling budget
    assert notices == [f"Step {step}: in each of 9 groups all rewards were alike; no update." for step in (1, 2)]
    assert RewardScale(**result.last.state["scale"]) == RewardScale()


async def test_the_best_on_validation_is_the_result_and_is_kept(peek, rft_plan, log):
    learner = peek.warm(peek.learner())
    by_version = {0: 0.25, 2: 0.75, 4: 0.5, 6: 0.375}

    def grade(sample, item):
        # Validation items get a figure of the weights' age; training items keep their reward.
        return by_version[learner.policy_version] if int(item.id[4:]) >= 100 else peek.reward(sample, item)

    # With room and turns enough nothing is ever cut off, so the figure is the reward.
    agent = replace(peek.agent(learner), limits=Limits(max_turns=99))
    plan = rft_plan(keep_checkpoints=1, learning_rate=1.0)
    result = await rft.train(plan, learner, agent, ScriptedGrader(grade), log)
    assert result.validations == ((0, 0.25), (2, 0.75), (4, 0.5), (6, 0.375))
    assert (result.best.step, result.last.step) == (2, 6)
    assert result.best.path.is_dir()
    assert result.best.state["step"] == 2


async def test_without_validation_the_last_is_the_result(peek, rft_plan, log):
    learner = peek.warm(peek.learner())
    result = await rft.train(rft_plan(validation=(), steps=3), learner, peek.agent(learner), peek.grader, log)
    assert (result.best.step, result.last.step, result.validations) == (3, 3, ())


async def test_a_monitor_stops_with_its_reason(peek, rft_plan, log):
    class Alarm:
        def observe(self, step, metrics, groups):
            return Verdict(stop="reward fell" if step == 3 else None)

        async def validated(self, step, groups):
            return Verdict()

        def state(self):
            return {}

        def restore(self, state):
            raise AssertionError("nothing was resumed")

    learner = peek.warm(peek.learner())
    result = await rft.train(rft_plan(), learner, peek.agent(learner), peek.grader, log, monitor=Alarm())
    assert (result.stopped, result.last.step) == ("reward fell", 3)


async def test_faults_cost_members_not_the_step(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    flaky = ScriptedTools(
        {"p": lambda arguments, item: item.fields["digit"]}, fails=lambda call, item: item.id in ("row-0", "row-3")
    )
    result = await rft.train(rft_plan(steps=4), learner, peek.agent(learner, tools=flaky), peek.grader, log)
    assert result.stopped is None
    faulty = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.episode.stop_reason.value == "fault"]
    assert faulty
    assert all(record.reward is None and record.advantage is None for record in faulty)


async def test_a_failing_grader_fails_the_job_with_its_traceback(peek, rft_plan, log):
    def grade(sample, item):
        if int(item.id[4:]) >= 100:
            return 0.5
        return Grade(value=None, reason="raised", traceback="Traceback…\nKeyError: 'colour'")

    learner = peek.warm(peek.learner())
    with pytest.raises(UserError, match="KeyError: 'colour'") as caught:
        await rft.train(rft_plan(), learner, peek.agent(learner), ScriptedGrader(grade), log)
    assert caught.value.code == "grader_failing"
    assert learner.policy_version == 0


def test_plans_that_make_no_sense_are_refused(rft_plan):
    with pytest.raises(UserError, match="no items to train on"):
        rft_plan(items=())
    with pytest.raises(UserError, match="group_size is 1"):
        rft_plan(group_size=1)
