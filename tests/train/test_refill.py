import pytest

from agentrft.errors import BoundaryError, UserError
from agentrft.testing import ScriptedGrader
from agentrft.train.journal import Journal
from agentrft.train.order import step_seats
from agentrft.train.refill import draw_groups
from agentrft.types import Grade


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl", job_id="ftjob-t") as opened:
        yield opened


def differing_on(*ids: str) -> ScriptedGrader:
    """Grades the members of these items differently, and all others alike."""
    count = iter(range(10_000))
    return ScriptedGrader(lambda sample, item: float(next(count)) if item.id in ids else -1.0)


async def test_groups_without_signal_are_replaced_by_the_next_items(peek, rft_plan, log, journal):
    plan = rft_plan(batch_size=3, oversample=3.0)
    seats = step_seats(plan.items, seed=0, step=1, groups=3, limit=9)
    # Of the first three only the second has signal; of the two that replace the others the first; then one more.
    live = [seats[i].item.id for i in (1, 3, 5)]
    draw = await draw_groups(plan, 1, peek.agent(peek.learner()), differing_on(*live), journal, log)
    assert [one.seat for one in draw.played] == seats[:6]
    assert [one.seat.item.id for one in draw.live] == live


async def test_refilling_ends_at_the_budget(peek, rft_plan, log, journal):
    plan = rft_plan(batch_size=3, oversample=2.5)
    draw = await draw_groups(plan, 1, peek.agent(peek.learner()), differing_on(), journal, log)
    assert (len(draw.played), draw.live) == (7, [])  # ⌊2.5 · 3⌋


async def test_enough_signal_at_once_needs_no_refill(peek, rft_plan, log, journal):
    ids = [item.id for item in peek.items(12)]
    draw = await draw_groups(rft_plan(), 1, peek.agent(peek.learner()), differing_on(*ids), journal, log)
    assert len(draw.played) == len(draw.live) == 3


async def test_which_items_come_depends_on_rewards_not_on_timing(peek, rft_plan, log, tmp_path):
    drawn = []
    for delay in (0.0, 0.02):
        with Journal(tmp_path / f"journal-{delay}.jsonl", job_id="ftjob-t") as journal:
            agent = peek.agent(peek.learner(max_delay_s=delay), max_delay_s=delay)
            drawn.append(await draw_groups(rft_plan(), 2, agent, peek.grader, journal, log))
    calm, jittery = ([(one.seat, [e.id for e in one.group.episodes]) for one in draw.played] for draw in drawn)
    assert calm == jittery


async def test_journaled_episodes_are_not_played_again(peek, rft_plan, log, journal, seen):
    first = await draw_groups(rft_plan(), 1, peek.agent(peek.learner()), peek.grader, journal, log)
    seen.clear()

    def never(sample, item):
        raise AssertionError("graded again")

    again = await draw_groups(rft_plan(), 1, peek.agent(peek.learner()), ScriptedGrader(never), journal, log)
    assert again.played == first.played
    assert seen == []


async def test_ungraded_episodes_are_not_journaled_so_that_a_resume_tries_them_again(peek, rft_plan, log, journal):
    def grade(sample, item):
        return Grade(value=None, reason="judge timed out") if item.id == "row-0" else peek.reward(sample, item)

    plan = rft_plan(batch_size=12, oversample=1.0)
    draw = await draw_groups(plan, 1, peek.agent(peek.learner()), ScriptedGrader(grade), journal, log)
    graded = [e.id for one in draw.played if one.seat.item.id != "row-0" for e in one.group.episodes]
    assert len(graded) == 11 * 4
    assert journal.finished.keys() == set(graded)


async def test_when_every_episode_fails_the_job_stops(peek, rft_plan, log, journal):
    learner = peek.learner()
    await learner.generator.close()
    with pytest.raises(BoundaryError, match="12 of 12 episodes failed, the first with: engine: closed"):
        await draw_groups(rft_plan(), 1, peek.agent(learner), peek.grader, journal, log)
    assert journal.finished == {}


async def test_a_broken_grader_stops_a_step_before_anything_is_trained_on(peek, rft_plan, log, journal):
    raising = ScriptedGrader(lambda sample, item: Grade(value=None, reason="raised", traceback="ZeroDivisionError"))
    with pytest.raises(UserError, match="ZeroDivisionError"):
        await draw_groups(rft_plan(), 1, peek.agent(peek.learner()), raising, journal, log)
