"""Stopping in the middle: what is given up, what may end, and that a resume makes the same weights of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentrft.testing import ScriptedGrader
from agentrft.train import rft, sft
from agentrft.train.journal import Journal
from agentrft.train.stop import Stop, Stopped, as_stop


async def test_what_is_cut_is_cancelled_and_closes_what_it_opened() -> None:
    stop, closed = Stop(), []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    asyncio.get_running_loop().call_later(0.01, stop.ask, "enough")
    with pytest.raises(Stopped, match="enough") as caught:
        await stop.cut(work())
    assert closed == [True]
    assert caught.value.keeps
    with pytest.raises(Stopped):  # and nothing begins any more
        await stop.cut(work())
    assert closed == [True]


async def test_what_is_to_finish_gets_its_time_and_no_more() -> None:
    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    stop = Stop(finish_s=0.2)
    asyncio.get_running_loop().call_later(0.01, stop.ask, "enough")
    assert await stop.finish(work(0.05)) == "done"
    slow = Stop(finish_s=0.05)
    asyncio.get_running_loop().call_later(0.01, slow.ask, "enough")
    with pytest.raises(Stopped):
        await slow.finish(work(5.0))


async def test_errors_pass_and_reasons_between_steps_interrupt_nothing() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    stop = as_stop(lambda: "after this step")
    with pytest.raises(ZeroDivisionError):
        await stop.cut(fails())
    assert await stop.cut(asyncio.sleep(0, "played")) == "played"
    assert stop() == "after this step"
    assert not stop.asked
    assert as_stop(stop) is stop


@pytest.mark.parametrize("graded", [5, 20, 30, 41, 60])
async def test_stopped_anywhere_an_rft_job_ends_as_if_it_had_not_been(
    peek: Any, rft_plan: Callable[..., Any], log: Any, store: Any, tmp_path: Any, graded: int
) -> None:
    """Validations are graded 0 to 12, 36 to 48 and 72 to 84; steps of 12 in between."""
    calm = peek.warm(peek.learner())
    await rft.train(rft_plan(learning_rate=8.0, steps=4), calm, peek.agent(calm), peek.grader, log)

    again = rft_plan(learning_rate=8.0, steps=4, folder=tmp_path / "again")
    stop, count = Stop(), 0

    def grade(sample: Any, item: Any) -> float:
        nonlocal count
        count += 1
        if count == graded:
            stop.ask("the user paused the job")
        return peek.reward(sample, item)

    learner = peek.warm(peek.learner())
    with pytest.raises(Stopped):
        await rft.train(again, learner, peek.agent(learner), ScriptedGrader(grade), log, should_stop=stop)
    saved = sorted((tmp_path / "again" / "checkpoints").glob("step-*"))
    assert bool(saved) == (graded > 12)
    if saved:
        assert int(saved[-1].name[5:]) == learner.policy_version, "a step that was done was not saved"

    resumed, played_before = peek.warm(peek.learner()), count
    await rft.train(again, resumed, peek.agent(resumed), ScriptedGrader(grade), log)
    assert {state: values.tolist() for state, values in resumed.table.items()} == {
        state: values.tolist() for state, values in calm.table.items()
    }
    assert count > played_before


async def test_the_journal_keeps_the_next_steps_episodes_through_a_stop(
    peek: Any, rft_plan: Callable[..., Any], log: Any, tmp_path: Any
) -> None:
    stop, graded = Stop(), []

    def grade(sample: Any, item: Any) -> float:
        graded.append(item.id)
        if len(graded) == 30:  # 12 of a validation, 12 of step 1, 6 of step 2
            stop.ask("the user paused the job")
        return peek.reward(sample, item)

    plan, learner = rft_plan(steps=4), peek.warm(peek.learner())
    with pytest.raises(Stopped):
        await rft.train(plan, learner, peek.agent(learner), ScriptedGrader(grade), log, should_stop=stop)
    with Journal(plan.folder / "journal.jsonl", job_id="ftjob-t") as journal:
        steps = [one.episode.step for one in journal.finished.values()]
    assert steps
    assert set(steps) == {learner.policy_version + 1}


async def test_a_stopped_sft_job_validates_later_what_it_had_no_time_for(
    peek: Any, sft_plan: Callable[..., Any], log: Any, store: Any
) -> None:
    def planned(**changes: Any) -> Any:
        plan = sft_plan(**changes)
        return sft_plan(validation_rows=plan.rows[:2], **changes)

    calm = peek.learner()
    expected = await sft.train(planned(), calm, log)
    assert [step for step, _ in expected.validations] == [2, 4, 6]

    class Stopping(type(calm)):
        async def optim_step(self, lr: float) -> Any:
            report = await super().optim_step(lr)
            if self.policy_version == 4:
                stop.ask("the server shuts down")
            return report

    stop = Stop()
    folder = planned().folder.with_name("stopped")
    result = await sft.train(planned(folder=folder), Stopping(peek.ids, order=3), log, should_stop=stop)
    assert result.stopped == "the server shuts down"
    assert (result.last.step, result.validations) == (4, expected.validations[:1])
    again = peek.learner()
    resumed = await sft.train(planned(folder=folder), again, log)
    assert resumed.validations == expected.validations
    assert {s: v.tolist() for s, v in again.table.items()} == {s: v.tolist() for s, v in calm.table.items()}
