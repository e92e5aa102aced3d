"""Reinforcement whose turns earn what they add to the reference answer's probability."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agentrft.credit.spec import InformationGain
from agentrft.rollout import Rollout, Seat, run_groups
from agentrft.train import rft
from agentrft.train.played import Crediting
from agentrft.train.reference_answers import ReferenceAnswers
from agentrft.types import Message


def answers_of(peek, items, context_tokens: int = 4096) -> ReferenceAnswers:
    def reply(item, text: str) -> list[int]:
        return peek.format.reply(Message(role="assistant", content=text), ())

    return ReferenceAnswers.of(items, "digit", reply, context_tokens)


async def played(peek, rft_plan, learner, item):
    seat = Seat(index=0, item=item)
    rollout = Rollout(run="ftjob-t", step=1, members=8, seats=[seat])
    [group] = await run_groups(rollout, peek.agent(learner), peek.grader)
    return Crediting().played(seat, group, rft_plan().penalties)


async def test_the_answer_is_as_likely_as_the_policy_finds_it(peek, rft_plan) -> None:
    learner = peek.warm(peek.learner())
    (item,) = peek.items(1, start=1)
    one = await played(peek, rft_plan, learner, item)
    [got_G_K] = await answers_of(peek, [item]).log_probs(learner, [one])
    (digit,) = peek.format.encode(item.fields["digit"])
    several = 0
    for episode, got_K in zip(one.group.episodes, got_G_K, strict=True):
        ids = episode.tokens.ids
        expected = [
            math.log(learner.probabilities(ids[: t.start])[sorted(peek.ids).index(digit)]) for t in episode.turns
        ]
        assert got_K == pytest.approx(expected)
        several += len(got_K) > 1
    assert several  # else the premise is gone


async def test_members_without_a_reward_and_answers_without_room_have_none(peek, rft_plan) -> None:
    learner = peek.warm(peek.learner())
    (item,) = peek.items(1)
    one = await played(peek, rft_plan, learner, item)
    one = replace(one, rewards=[replace(one.rewards[0], value=None), *one.rewards[1:]])
    shortest = min(turn.start for episode in one.group.episodes[1:] for turn in episode.turns)
    [got_G_K] = await answers_of(peek, [item], context_tokens=shortest + 1).log_probs(learner, [one])
    assert set(got_G_K[0]) == {None}
    for episode, got_K in zip(one.group.episodes[1:], got_G_K[1:], strict=True):
        assert [math.isfinite(log_prob) for log_prob in got_K] == [turn.start == shortest for turn in episode.turns]


async def test_it_trains_and_the_ledger_shows_the_gain(peek, rft_plan, log, seen, store) -> None:
    learner = peek.warm(peek.learner())
    plan = rft_plan(steps=10, group_size=8, batch_size=4, learning_rate=20.0, eval_interval=10, eval_samples=8)
    spec = InformationGain(reference="digit")
    plan = replace(plan, credit=Crediting.of(spec, plan.folder), reference=answers_of(peek, plan.items))
    result = await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    (_, before), (_, after) = result.validations[0], result.validations[-1]
    assert after > before + 0.3
    trained = [r for r in store.list_episodes("ftjob-t", limit=1000) if r.advantage is not None]
    gains = [entry["parts"].get("shaping", 0.0) for r in trained for entry in r.extra["credit"]["turns"]]
    assert any(gain != 0.0 for gain in gains)
    steps = [progress for progress in seen if getattr(progress, "metrics", None)]
    assert all("credit_s" in step.metrics for step in steps if "learn_s" in step.metrics)


async def test_other_credit_asks_the_learner_for_nothing(peek, rft_plan, log, seen) -> None:
    learner = peek.warm(peek.learner())
    await rft.train(rft_plan(steps=1), learner, peek.agent(learner), peek.grader, log)
    assert not any("credit_s" in getattr(progress, "metrics", {}) for progress in seen)
