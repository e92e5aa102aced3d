from dataclasses import replace

import pytest

from agentrft.errors import BoundaryError, GraderFault, UserError
from agentrft.rollout import EpisodeKey, run_episode
from agentrft.testing import ScriptedLearner
from agentrft.train import CheckpointSaved, Notice, StepDone, sft
from agentrft.train.metrics import METRICS
from agentrft.train.rehearsal import Rehearsal


def weights(learner: ScriptedLearner) -> dict:
    return {state: values.tolist() for state, values in learner.table.items()}


async def test_it_learns_what_is_demonstrated(peek, sft_plan, log, seen):
    learner = peek.learner()
    result = await sft.train(sft_plan(learning_rate=30.0, n_epochs=6.0), learner, log)
    done = [record for record in seen if isinstance(record, StepDone)]
    # 9 demonstrations × 6 passes in batches of 3
    assert len(done) == 18
    assert done[0].metrics["nll"] == pytest.approx(1.79, abs=0.01)  # uniform over 6 tokens: ln 6
    assert done[-1].metrics["nll"] < 0.5
    assert done[0].metrics["loss"] == pytest.approx(done[0].metrics["nll"])
    assert all(record.metrics.keys() <= METRICS.keys() for record in done)
    assert (result.last.step, result.best.step, result.stopped) == (18, 18, None)
    # An agent that plays it makes the call and reads the answer off.
    item = peek.items(1)[0]
    episode = await run_episode(item, EpisodeKey(run="r", step=0, item="i", member=0), peek.agent(learner))
    assert (episode.answer, episode.n_calls) == (item.fields["digit"], 1)


@pytest.mark.parametrize("stop_after", range(1, 6))
async def test_stopped_anywhere_and_resumed_it_ends_with_the_same_weights(peek, sft_plan, log, tmp_path, stop_after):
    learner = peek.learner()
    await sft.train(sft_plan(folder=tmp_path / "whole"), learner, log)

    left = iter(range(stop_after))
    first = peek.learner()
    stopped = await sft.train(
        sft_plan(), first, log, should_stop=lambda: "asked to" if next(left, None) is None else None
    )
    # should_stop says yes on its (stop_after + 1)-th question, so after that many steps
    assert (stopped.stopped, stopped.last.step) == ("asked to" if stop_after < 5 else None, stop_after + 1)
    second = peek.learner()
    result = await sft.train(sft_plan(), second, log)
    assert (result.stopped, result.last.step) == (None, 6)
    assert weights(second) == weights(learner)


@pytest.mark.parametrize("killed_in", range(1, 7))
async def test_killed_in_any_step_it_ends_with_the_same_weights(peek, sft_plan, log, tmp_path, killed_in):
    class Dies(ScriptedLearner):
        async def optim_step(self, lr):
            if self.policy_version + 1 == killed_in:
                raise KeyboardInterrupt
            return await super().optim_step(lr)

    learner = peek.learner()
    await sft.train(sft_plan(folder=tmp_path / "whole"), learner, log)
    with pytest.raises(KeyboardInterrupt):
        await sft.train(sft_plan(), Dies(learner._ids), log)
    second = peek.learner()
    await sft.train(sft_plan(), second, log)
    assert weights(second) == weights(learner)


async def test_a_finished_job_is_not_trained_again(peek, sft_plan, log, seen):
    await sft.train(sft_plan(), peek.learner(), log)
    seen.clear()
    result = await sft.train(sft_plan(), peek.learner(), log)
    assert result.last.step == 6
    assert [type(record) for record in seen] == [Notice, CheckpointSaved]  # nothing was trained


async def test_held_out_demonstrations_choose_the_best(peek, sft_plan, log, seen, store):
    plan = sft_plan(learning_rate=30.0, n_epochs=4.0)
    # Held out: a wrong answer, the digit after the right one. Its loss is lowest where training has gone least far.
    [row] = [row for row in plan.rows if row.unit == "row-0"]
    wrong = replace(row, ids=[*row.ids[:-2], row.ids[-2] + 1, row.ids[-1]])
    result = await sft.train(replace(plan, validation_rows=[wrong]), peek.learner(), log)
    steps = [step for step, _ in result.validations]
    losses = [nll for _, nll in result.validations]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert plan.steps == 12
    assert result.best.step == steps[losses.index(min(losses))] < 12
    saved = [record for record in seen if isinstance(record, CheckpointSaved)]
    assert [record.step for record in saved] == steps
    assert result.best.path.is_dir()
    assert store.list_metrics("ftjob-t")[-1]["metrics"]["valid_nll"] == pytest.approx(losses[-1])


@pytest.fixture
def rehearsal(peek):
    def make(learner, **changes) -> Rehearsal:
        return Rehearsal(
            **{"run": "ftjob-t", "agent": peek.agent(learner), "grader": peek.grader, "items": peek.items(6, start=100)}
            | {"samples": 4, "pass_threshold": 0.5, "pass_at_k": 0.5, "readable": 0.9}
            | changes
        )

    return make


async def test_it_ends_once_the_agent_plays_well_enough(peek, sft_plan, rehearsal, log, seen, store):
    plan, learner = sft_plan(n_epochs=20.0, checkpoint_interval=4), peek.learner()
    result = await sft.train(plan, learner, log, rehearsal=rehearsal(learner))
    steps = [step for step, _ in result.validations]
    assert result.stopped is None
    assert result.best.step == result.last.step == steps[-1] < plan.steps
    played = [row["metrics"] for row in store.list_metrics("ftjob-t") if "valid_pass_at_k" in row["metrics"]]
    assert [row["valid_pass_at_k"] >= 0.5 and row["valid_readable_frac"] >= 0.9 for row in played] == [
        step == steps[-1] for step in steps
    ]
    assert len(steps) > 1  # what ended it was not the first look
    assert "plays well enough" in [record for record in seen if isinstance(record, Notice)][-1].message
    # The same call again neither plays nor trains.
    seen.clear()
    again = await sft.train(plan, learner, log, rehearsal=rehearsal(learner))
    assert again.best.step == result.best.step
    assert {type(record) for record in seen} == {Notice, CheckpointSaved}


async def test_what_is_never_enough_ends_with_what_falls_short_least(peek, sft_plan, rehearsal, log):
    plan, learner = sft_plan(n_epochs=6.0, checkpoint_interval=4), peek.learner()
    result = await sft.train(plan, learner, log, rehearsal=rehearsal(learner, readable=1.1))
    least = min(shortfall for _, shortfall in result.validations)
    assert result.last.step == plan.steps
    assert dict(result.validations)[result.best.step] == least


async def test_an_outage_while_it_plays_costs_no_step(peek, sft_plan, rehearsal, log, store):
    plan, learner = sft_plan(n_epochs=20.0, checkpoint_interval=4), peek.learner()

    class Down:
        async def grade(self, *args, **more):
            raise GraderFault("the judge is down")

        async def close(self) -> None: ...

    with pytest.raises(BoundaryError, match="the judge is down"):
        await sft.train(plan, learner, log, rehearsal=rehearsal(learner, grader=Down()))
    stepped = [row["step"] for row in store.list_metrics("ftjob-t")]
    assert stepped == [1, 2, 3, 4]
    result = await sft.train(plan, peek.learner(), log, rehearsal=rehearsal(learner))
    assert result.validations[0][0] == 4  # the very next thing was to play


def test_no_demonstrations_is_the_users_mistake(sft_plan):
    with pytest.raises(UserError, match="no demonstrations"):
        sft_plan(rows=[])
