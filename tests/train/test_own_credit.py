"""What jobs say about credit and penalties, in training from end to end."""

from dataclasses import replace

import pytest

from agentrft.credit import PenaltiesSpec
from agentrft.credit.spec import StepGroups, TurnReturns
from agentrft.errors import UserError
from agentrft.losses import DrGrpoLoss, GrpoLoss, MaxrlLoss, PolicyGradientLoss, ReinforcePpLoss
from agentrft.testing import ScriptedGrader
from agentrft.train import Notice, rft
from agentrft.train.played import Crediting

USEFUL = "def useful(item, turn):\n    return 0.1 * len(turn['calls'])\n"
USELESS = "def useful(item, turn):\n    return -0.1 * len(turn['calls'])\n"


@pytest.fixture
def of_turns(tmp_path):
    def crediting(source: str, *, force: bool = False) -> Crediting:
        (tmp_path / "mine.py").write_text(source)
        return Crediting.of(TurnReturns(rewards="mine.py:useful", force=force), tmp_path)

    return crediting


async def test_every_turn_of_a_trained_episode_has_a_ledger(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    credit = Crediting.of(StepGroups(), rft_plan().folder)
    plan = rft_plan(steps=2, group_size=8, validation=(), credit=credit)
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    trained = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.advantage is not None]
    assert trained
    for record in trained:
        turns = record.extra["credit"]["turns"]
        assert len(turns) == len(record.episode.turns)
        assert [entry["tokens"] for entry in turns] == [turn.end - turn.start for turn in record.episode.turns]
        assert record.advantage == pytest.approx(sum(entry["advantage"] for entry in turns) / len(turns))
        assert record.extra["credit"]["reward"]["grade"] == record.grade.value
        # All members met where the episode begins.
        assert len(turns[0]["peers"]) >= 1
        assert all(entry["masked_frac"] == 0.0 for entry in turns)  # on policy nothing is masked
        # There the step term would say what the first term says.
        assert turns[0]["parts"].get("step", 0.0) == 0.0
    # Step 2 is the last, so it is measured: what pulled up rose.
    measured = [e for r in trained if r.episode.step == 2 for e in r.extra["credit"]["turns"]]
    assert all("log_prob_change" in entry for entry in measured)
    assert sum(entry["advantage"] * entry["log_prob_change"] for entry in measured) > 0
    unmeasured = [e for r in trained if r.episode.step == 1 for e in r.extra["credit"]["turns"]]
    assert not any("log_prob_change" in entry for entry in unmeasured)


async def test_step_groups_that_find_no_states_say_so(peek, rft_plan, log, seen):
    learner = peek.learner()  # babbles: hardly an episode has a second turn
    credit = Crediting.of(StepGroups(), rft_plan().folder)
    grades = iter(range(10_000))
    grader = ScriptedGrader(lambda sample, item: -float(next(grades)))
    plan = rft_plan(steps=1, validation=(), credit=credit)
    await rft.train(plan, learner, peek.agent(learner), grader, log)
    messages = [record.message for record in seen if isinstance(record, Notice)]
    assert any(message.startswith("Step 1: step groups are off in this step: ") for message in messages)


async def test_penalties_are_in_the_reward_and_its_parts(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    penalties = PenaltiesSpec.model_validate({"calls": {"weight": 0.5, "budget": 1}})
    await rft.train(
        rft_plan(steps=1, penalties=penalties), learner, peek.agent(learner), ScriptedGrader(peek.reward), log
    )
    records = store.list_episodes("ftjob-t", limit=1000)
    paid = [r for r in records if r.grade.value == 0.2 and not r.episode.stop_reason.is_truncated]
    assert {r.phase for r in paid} == {"train", "validation"}
    for record in paid:  # one call is the whole budget: half of the earned 0.2
        assert record.reward == pytest.approx(0.1)
        assert record.extra["credit"]["reward"] == {"grade": 0.2, "calls": pytest.approx(-0.1)}


async def test_left_out_of_training_but_not_of_the_choice_of_a_checkpoint(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=1, penalties=PenaltiesSpec(truncated="leave_out"))
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    cut = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.episode.stop_reason.is_truncated]
    assert {(r.phase, r.reward) for r in cut} == {("train", None), ("validation", 0.0)}
    assert {r.advantage for r in cut} == {None}


async def test_rewards_that_go_with_success_are_trained_on(peek, rft_plan, log, store, of_turns):
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=1, validation=peek.items(16, start=100), eval_samples=6, credit=of_turns(USEFUL))
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    trained = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.advantage is not None]
    assert any(entry["parts"]["turn_return"] for r in trained for entry in r.extra["credit"]["turns"])


async def test_rewards_that_go_against_success_are_refused_before_step_1(peek, rft_plan, log, of_turns):
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=1, validation=peek.items(16, start=100), eval_samples=6, credit=of_turns(USELESS))
    with pytest.raises(UserError, match="correlation with the reward is -") as caught:
        await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    assert caught.value.code == "invalid_credit"
    assert learner.policy_version == 0
    assert not list((plan.folder / "checkpoints").glob("step-*"))
    plan = replace(plan, credit=of_turns(USELESS, force=True))
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    assert learner.policy_version == 1


async def test_what_the_distance_to_the_reference_costs_is_in_the_ledger(peek, rft_plan, log, store):
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=1, validation=(), loss=PolicyGradientLoss(kl_coef=0.1))
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    trained = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.advantage is not None]
    assert any("kl" in r.extra["credit"]["reward"] for r in trained)
    for record in trained:
        assert record.reward == record.grade.value or record.episode.stop_reason.is_truncated


@pytest.mark.parametrize(
    ("loss", "learning_rate"),
    # Without a scale credit is as small as the differences of these rewards, about 0.1.
    [(GrpoLoss(), 8.0), (DrGrpoLoss(row_tokens=4), 80.0), (ReinforcePpLoss(), 8.0), (MaxrlLoss(), 8.0)],
)
async def test_presets_train_by_their_own_scale_and_mean(peek, rft_plan, log, loss, learning_rate):
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=6, learning_rate=learning_rate, group_size=8, loss=loss, eval_interval=6)
    result = await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    (_, before), (_, after) = result.validations
    assert after > before + 0.1
