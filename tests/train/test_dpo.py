"""The preference loop over the scripted learner: it learns, resumes to the bit, keeps its reference, ends in time."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentrft.data.preferences import Preference, Rated
from agentrft.data.rows import Demonstration
from agentrft.errors import StoreFault, UserError
from agentrft.losses import DpoLoss, KtoLoss, SimpoLoss
from agentrft.testing import ScriptedLearner
from agentrft.train import CheckpointSaved, DpoPlan, Notice, PreferenceUnit, StepDone, dpo
from agentrft.train.metrics import METRICS
from agentrft.train.preference_rows import mismatched_rows, pair_rows, rated_row
from agentrft.types import Message, ToolCall

LOSSES = [DpoLoss(), DpoLoss(beta=2.0, length_normalised=True, nll_coef=0.5), SimpoLoss(), KtoLoss(beta=0.5)]


def trajectory(digit: str, seen: str) -> tuple[Message, ...]:
    return (
        Message(role="assistant", tool_calls=(ToolCall(id="c", name="p", arguments="{}"),)),
        Message(role="tool", content=seen, tool_call_id="c"),
        Message(role="assistant", content=digit),
    )


@pytest.fixture
def pairs(peek) -> list[Preference]:
    """Both sides peek; preferred is to say what was seen, rejected is the next digit."""
    return [
        Preference(
            id=item.id,
            prompt=item.messages,
            preferred=trajectory(item.fields["digit"], item.fields["digit"]),
            rejected=trajectory("120"[int(item.fields["digit"])], item.fields["digit"]),
        )
        for item in peek.items(9)
    ]


@pytest.fixture
def units(peek, pairs) -> list[PreferenceUnit]:
    return [PreferenceUnit(rows=pair_rows(pair, [], peek.format, max_tokens=64)) for pair in pairs]


@pytest.fixture
def rated(peek, pairs) -> list[PreferenceUnit]:
    rows = [
        rated_row(
            Rated(
                demonstration=Demonstration(id=f"{pair.id}/{good}", messages=(*pair.prompt, *side)),
                desirable=good,
            ),
            [],
            peek.format,
            max_tokens=64,
        )
        for k, pair in enumerate(pairs)
        for good, side in ((True, pair.preferred), (False, pair.rejected))
        # Prompts differ, so that there are answers that belong to something else.
        for pair in [replace(pair, prompt=(Message(role="user", content="?!p"[k % 3]),))]
    ]
    return [
        PreferenceUnit(rows=(row,), mismatched=other)
        for row, other in zip(rows, mismatched_rows(rows, max_tokens=64), strict=True)
    ]


@pytest.fixture
def plan(tmp_path: Path, units, rated) -> Callable[..., DpoPlan]:
    def build(**changes) -> DpoPlan:
        # 6 steps of 3: 18 rated rows once, or 9 pairs twice
        given = {"units": rated, "n_epochs": 1.0} if isinstance(changes.get("loss"), KtoLoss) else {"units": units}
        return DpoPlan(
            **{"run": "ftjob-t", "folder": tmp_path / "dpo", "batch_size": 3, "n_epochs": 2.0}
            | given
            | {"learning_rate": 2.0, "checkpoint_interval": 2}
            | changes
        )

    return build


def weights(learner: ScriptedLearner) -> dict:
    return {state: values.tolist() for state, values in learner.table.items()}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.type}-{loss.beta}")
async def test_it_learns_what_is_preferred(peek, plan, log, seen, loss):
    # The table sees three tokens, so what it learns it also says elsewhere: KTO's z₀ rises, which some rows stay below.
    rate, least = (10.0, 0.8) if loss.type == "kto" else (20.0, 1.0)
    built = plan(loss=loss, n_epochs=4.0, learning_rate=rate, checkpoint_interval=6)
    result = await dpo.train(replace(built, validation_units=built.units), peek.learner(), log)
    done = [record.metrics for record in seen if isinstance(record, StepDone)]
    assert len(done) == built.steps
    assert all(metrics.keys() <= METRICS.keys() for metrics in done)
    validated = [metrics for metrics in done if "valid_loss" in metrics]
    assert validated[-1]["valid_preferred_frac"] >= least
    assert validated[-1]["valid_loss"] < min(0.8 * done[0]["loss"], validated[0]["valid_loss"])
    assert validated[-1]["valid_margin"] > max(done[0]["margin"] + 0.3, validated[0]["valid_margin"])
    assert (result.last.step, result.stopped) == (built.steps, None)


async def test_the_first_step_is_where_both_sides_are_alike(peek, plan, log, seen):
    # A uniform table is its own reference: every margin is 0, every loss ln 2.
    await dpo.train(plan(), peek.learner(), log)
    first = next(record.metrics for record in seen if isinstance(record, StepDone))
    assert first["loss"] == pytest.approx(0.6931472)
    assert (first["margin"], first["preferred_frac"]) == (0.0, 0.0)
    assert first["nll_preferred"] == pytest.approx(1.7917595)  # ln 6


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.type}-{loss.beta}")
@pytest.mark.parametrize("stop_after", [1, 3, 4])
async def test_stopped_anywhere_and_resumed_it_ends_with_the_same_weights(peek, plan, log, tmp_path, stop_after, loss):
    whole = peek.warm(peek.learner())
    await dpo.train(plan(folder=tmp_path / "whole", loss=loss), whole, log)

    left = iter(range(stop_after - 1))
    first = peek.warm(peek.learner())
    stopped = await dpo.train(
        plan(loss=loss), first, log, should_stop=lambda: "asked to" if next(left, None) is None else None
    )
    assert (stopped.stopped, stopped.last.step) == ("asked to", stop_after)
    second = peek.warm(peek.learner())
    result = await dpo.train(plan(loss=loss), second, log)
    assert (result.stopped, result.last.step) == (None, 6)
    assert weights(second) == weights(whole)


@pytest.mark.parametrize("killed_in", [1, 3, 6])
async def test_killed_in_any_step_it_ends_with_the_same_weights(peek, plan, log, tmp_path, killed_in):
    class Dies(ScriptedLearner):
        async def optim_step(self, lr):
            if self.policy_version + 1 == killed_in:
                raise KeyboardInterrupt
            return await super().optim_step(lr)

    whole = peek.warm(peek.learner())
    await dpo.train(plan(folder=tmp_path / "whole"), whole, log)
    with pytest.raises(KeyboardInterrupt):
        await dpo.train(plan(), peek.warm(Dies(peek.ids)), log)
    second = peek.warm(peek.learner())
    await dpo.train(plan(), second, log)
    assert weights(second) == weights(whole)


async def test_a_step_may_hold_a_pair_twice(peek, plan, log, seen, units):
    # 2 pairs in batches of 5: each step holds both, and one of them three times
    await dpo.train(plan(units=units[:2], batch_size=5, n_epochs=5.0), peek.learner(), log)
    done = [record.metrics for record in seen if isinstance(record, StepDone)]
    assert len(done) == 2
    assert done[0]["loss"] == pytest.approx(0.6931472)


async def test_the_reference_is_computed_once_and_read_back(peek, plan, log, tmp_path):
    asked: list[int] = []

    class Counts(ScriptedLearner):
        async def log_probs(self, rows, *, reference=False):
            asked.append(len(rows))
            return await super().log_probs(rows, reference=reference)

    await dpo.train(plan(n_epochs=1.0), Counts(peek.ids), log)
    # 9 pairs once; in each of 3 steps the scripted learner asks itself for the 6 rows of its batch
    assert asked == [18, 6, 6, 6]
    asked.clear()
    await dpo.train(plan(n_epochs=2.0), Counts(peek.ids), log)
    assert asked == [6, 6, 6]


async def test_rows_that_changed_under_a_job_are_refused(peek, plan, log, units):
    await dpo.train(plan(n_epochs=1.0), peek.learner(), log)
    with pytest.raises(UserError, match="not those that this job began with") as caught:
        await dpo.train(plan(units=units[:6]), peek.learner(), log)
    assert caught.value.code == "preferences_changed"


@pytest.mark.parametrize("damage", ["gone", "torn", "edited"])
async def test_a_reference_that_is_lost_is_not_made_up(peek, plan, log, tmp_path, damage):
    await dpo.train(plan(n_epochs=1.0), peek.learner(), log)
    path = tmp_path / "dpo" / "reference.json"
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        document = json.loads(path.read_text())
        document["log_probs"][0][0] -= 0.1
        path.write_text(json.dumps(document))
    with pytest.raises(StoreFault, match="gone or damaged"):
        await dpo.train(plan(), peek.learner(), log)


async def test_it_ends_when_the_held_out_loss_no_longer_falls(peek, plan, log, seen, units):
    # Held out: the same pairs the other way round. Their loss only rises, so the first validation stays the best.
    held_out = [
        PreferenceUnit(rows=tuple(replace(row, sign=-row.sign) for row in reversed(unit.rows))) for unit in units
    ]
    built = plan(n_epochs=4.0, learning_rate=10.0, validation_units=held_out, patience=2)
    result = await dpo.train(built, peek.learner(), log)
    assert [step for step, _ in result.validations] == [2, 4, 6]
    assert (result.best.step, result.last.step, result.stopped) == (2, 6, None)
    assert "has not fallen for 2 validations" in next(
        record.message for record in reversed(seen) if isinstance(record, Notice)
    )
    again = await dpo.train(built, peek.learner(), log)  # a finished job stays finished
    assert again.last.step == 6


async def test_every_checkpoint_is_told_with_its_figure(peek, plan, log, seen, store):
    built = plan()
    await dpo.train(replace(built, validation_units=built.units[:3]), peek.learner(), log)
    assert [record.step for record in seen if isinstance(record, CheckpointSaved)] == [2, 4, 6]
    assert all("valid_loss" in one["metrics"] for one in store.list_checkpoints("ftjob-t"))


def test_only_what_the_assistant_wrote_after_the_divergence_is_trained(peek, pairs, units):
    for unit in units:
        for row in unit.rows:
            trained = [token for token, mark in zip(row.ids, row.trained, strict=True) if mark]
            assert len(trained) == 2  # the digit and the stop token
            assert row.trained[-2:] == [True, True]
        first, second = unit.rows
        shared = next(k for k, (a, b) in enumerate(zip(first.ids, second.ids, strict=True)) if a != b)
        assert not any(first.trained[:shared])
        assert (first.sign, second.sign, first.unit) == (1, -1, second.unit)


def test_a_tool_result_after_the_divergence_is_context(peek):
    pair = Preference(
        id="x",
        prompt=(Message(role="user", content="?"),),
        preferred=trajectory("1", "1"),
        rejected=(Message(role="assistant", content="1"),),
    )
    first, second = pair_rows(pair, [], peek.format, max_tokens=64)
    calls, answer = peek.format.encode("!p"), peek.format.encode("1")
    kept = [token for token, mark in zip(first.ids, first.trained, strict=True) if mark]
    assert kept == [*calls, 0, *answer, 0]
    assert [token for token, mark in zip(second.ids, second.trained, strict=True) if mark] == [*answer, 0]


def test_one_side_that_only_goes_on_from_the_other_is_refused(peek):
    pair = Preference(
        id="x",
        prompt=(Message(role="user", content="?"),),
        preferred=trajectory("1", "1"),
        rejected=trajectory("1", "1")[:1],
    )
    with pytest.raises(UserError, match="with its own beginning") as caught:
        pair_rows(pair, [], peek.format, max_tokens=64)
    assert caught.value.code == "bad_preference"
    with pytest.raises(UserError, match="preferred side of preference 'x' has"):
        pair_rows(pair, [], peek.format, max_tokens=6)


def test_mismatched_rows_have_another_rows_answer(rated):
    rows = [unit.rows[0] for unit in rated]
    for row, unit in zip(rows, rated, strict=True):
        other = unit.mismatched
        assert other is not None
        start = row.trained.index(True)
        assert list(other.ids[:start]) == list(row.ids[:start])
        assert any(
            list(other.ids[start:]) == list(one.ids[one.trained.index(True) :]) for one in rows if one is not row
        )
    alike = [row for row in rows if list(row.ids[:4]) == list(rows[0].ids[:4])]
    assert mismatched_rows(alike[:1], max_tokens=64) == [None]
    assert all(other is None for other in mismatched_rows(rows, max_tokens=3))


def test_no_preferences_is_the_users_mistake(plan):
    with pytest.raises(UserError, match="no preferences"):
        plan(units=[])


async def test_ktos_reference_distance_is_that_of_mismatched_answers(peek, plan, log, seen):
    built = plan(loss=KtoLoss(), n_epochs=2.0, learning_rate=60.0)
    await dpo.train(built, peek.learner(), log)
    distances = [record.metrics["reference_kl"] for record in seen if isinstance(record, StepDone)]
    assert distances[0] == 0.0  # the policy is its own reference
    assert all(value >= 0 for value in distances)
    assert any(value > 0 for value in itertools.islice(distances, 1, None))
