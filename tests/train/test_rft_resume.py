"""Kill training anywhere, resume it, and get the same weights, metrics and validation figures."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.store.sql_store import SqlStore
from agentrft.testing import ScriptedGrader, ScriptedLearner, ScriptedTools
from agentrft.train import RunLog, TrainResult, rft
from agentrft.train.metrics import without_timing
from agentrft.types import Grade


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Fuse:
    """Burns down by one with everything that training does; raises at zero."""

    def __init__(self, length: int) -> None:
        self.left = length

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class MortalLearner(ScriptedLearner):
    def __init__(self, ids: list[int], fuse: Fuse) -> None:
        super().__init__(ids, max_delay_s=0.001)
        self.fuse = fuse

    async def forward_backward(self, rows, loss):
        self.fuse.burn()
        report = await super().forward_backward(rows, loss)
        self.fuse.burn()
        return report

    async def optim_step(self, lr):
        report = await super().optim_step(lr)
        self.fuse.burn()
        return report

    async def save(self, folder):
        self.fuse.burn()
        await super().save(folder)
        self.fuse.burn()


class MortalLog(RunLog):
    def __init__(self, store: SqlStore, fuse: Fuse) -> None:
        super().__init__(store, "ftjob-t", watch=lambda progress: fuse.burn())


async def live(peek: Any, plan: Any, store: SqlStore, fuse: Fuse) -> tuple[TrainResult, ScriptedLearner]:
    """One life of the process: everything is made anew, only the disk and the store stay."""

    def digit(arguments, item):
        fuse.burn()
        return item.fields["digit"]

    def grade(sample, item):
        fuse.burn()
        return peek.reward(sample, item)

    learner = peek.warm(MortalLearner(peek.ids, fuse))
    agent = peek.agent(learner, tools=ScriptedTools({"p": digit}, max_delay_s=0.001))
    grader = ScriptedGrader(grade, max_delay_s=0.001)
    return await rft.train(plan, learner, agent, grader, MortalLog(store, fuse)), learner


def outcome(result: TrainResult, learner: ScriptedLearner, store: SqlStore) -> dict[str, Any]:
    return {
        "weights": {state: values.tolist() for state, values in learner.table.items()},
        "state": dict(result.last.state),
        "best": result.best.step,
        "validations": result.validations,
        "metrics": [(m["step"], without_timing(m["metrics"])) for m in store.list_metrics("ftjob-t")],
        "advantages": {r.episode.id: r.advantage for r in store.list_episodes("ftjob-t", limit=10_000)},
    }


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(
    peek: Any, rft_plan: Callable[..., Any], store: SqlStore, tmp_path, seed: int
):
    plan = rft_plan(learning_rate=8.0, steps=5)
    expected = outcome(*await live(peek, plan, store, Fuse(-1)), store)
    assert expected["validations"][-1][1] > 0

    rng, lives = random.Random(seed), 0
    again = rft_plan(learning_rate=8.0, steps=5, folder=tmp_path / "killed")
    while True:
        lives += 1
        try:
            ended = await live(peek, again, store, Fuse(rng.randint(1, 160)))
            break
        except Killed:
            assert lives < 60
    assert lives > 3
    assert outcome(*ended, store) == expected


@pytest.mark.parametrize("stop_after", [1, 2, 3])
async def test_stopped_and_resumed_it_ends_the_same(peek, rft_plan, store, log, tmp_path, stop_after):
    plan = rft_plan(learning_rate=8.0, steps=4)
    expected = outcome(*await live(peek, plan, store, Fuse(-1)), store)

    again = rft_plan(learning_rate=8.0, steps=4, folder=tmp_path / "stopped")
    learner = peek.warm(peek.learner())
    asked = iter([None] * (stop_after - 1))
    stopped = await rft.train(
        again, learner, peek.agent(learner), peek.grader, log, should_stop=lambda: next(asked, "Ctrl-C")
    )
    assert (stopped.stopped, stopped.last.step) == ("Ctrl-C", stop_after)
    assert outcome(*await live(peek, again, store, Fuse(-1)), store) == expected


async def test_a_mended_grader_goes_on_where_the_broken_one_failed(peek, rft_plan, store, log, tmp_path):
    plan = rft_plan(learning_rate=8.0, steps=3)
    expected = outcome(*await live(peek, plan, store, Fuse(-1)), store)

    again = rft_plan(learning_rate=8.0, steps=3, folder=tmp_path / "mended")
    learner, count = peek.warm(peek.learner()), itertools.count()

    def breaks(sample, item):
        # Half of the second step's episodes: the other half is graded, and journaled.
        if learner.policy_version == 1 and next(count) % 2:
            return Grade(value=None, reason="raised", traceback="KeyError: 'colour'")
        return peek.reward(sample, item)

    with pytest.raises(UserError, match="KeyError: 'colour'"):
        await rft.train(again, learner, peek.agent(learner), ScriptedGrader(breaks), log)
    assert outcome(*await live(peek, again, store, Fuse(-1)), store) == expected


async def test_a_damaged_newest_checkpoint_costs_steps_not_the_result(peek, rft_plan, store, tmp_path):
    plan = rft_plan(learning_rate=8.0, steps=4)
    first, learner = await live(peek, plan, store, Fuse(-1))
    expected = outcome(first, learner, store)
    (first.last.path / "table.json").write_text("{}")
    assert outcome(*await live(peek, plan, store, Fuse(-1)), store) == expected
    assert (plan.folder / "checkpoints" / "bad-step-00000004").is_dir()


async def test_a_damaged_best_checkpoint_gives_way_to_the_next_best(peek, rft_plan, store):
    plan, by_version = rft_plan(steps=4), {0: 0.1, 2: 0.9, 4: 0.5}

    async def train() -> TrainResult:
        learner = peek.warm(peek.learner())

        def grade(sample, item):  # of validation items only the version counts
            return by_version[learner.policy_version] if item in plan.validation else peek.reward(sample, item)

        return await rft.train(plan, learner, peek.agent(learner), ScriptedGrader(grade), RunLog(store, "ftjob-t"))

    first = await train()
    assert (first.best.step, first.last.step) == (2, 4)
    (first.best.path / "table.json").write_text("{}")
    assert (await train()).best.step == 4
    assert any("step 2 is damaged" in event["message"] for event in store.list_events("ftjob-t"))


async def test_a_checkpoint_saved_just_before_a_kill_is_listed_after_it(peek, rft_plan, store):
    class Silent(RunLog):
        def checkpoint(self, checkpoint, metrics, *, is_best):
            if checkpoint.step == plan.steps:
                raise Killed
            super().checkpoint(checkpoint, metrics, is_best=is_best)

    plan = rft_plan(steps=2)
    learner = peek.warm(peek.learner())
    with pytest.raises(Killed):
        await rft.train(plan, learner, peek.agent(learner), peek.grader, Silent(store, "ftjob-t"))
    assert [c["step"] for c in store.list_checkpoints("ftjob-t")] == [0]
    await live(peek, plan, store, Fuse(-1))
    assert [c["step"] for c in store.list_checkpoints("ftjob-t")] == [0, 2]


async def test_a_killed_step_does_not_play_its_finished_episodes_again(peek, rft_plan, store):
    plan = rft_plan(steps=2, validation=(), eval_interval=2)
    with pytest.raises(Killed):  # in the update of the first step: all its episodes are in the journal
        await _killed_in_update(peek, plan, store)
    journal = (plan.folder / "journal.jsonl").read_bytes()
    played = journal.count(b"\n")
    assert played >= 12

    graded = []
    learner = peek.warm(peek.learner())
    grader = ScriptedGrader(lambda sample, item: graded.append(1) or peek.reward(sample, item))
    await rft.train(plan, learner, peek.agent(learner), grader, RunLog(store, "ftjob-t"))
    second = [r for r in store.list_episodes("ftjob-t", step=2, limit=1000) if r.grade.value is not None]
    assert len(graded) == len(second)  # only the second step's episodes were played and graded


async def _killed_in_update(peek, plan, store):
    class Dies(ScriptedLearner):
        async def forward_backward(self, rows, loss):
            raise Killed

    learner = peek.warm(Dies(peek.ids))
    await rft.train(plan, learner, peek.agent(learner), peek.grader, RunLog(store, "ftjob-t"))
