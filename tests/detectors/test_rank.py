"""The order of the to-do list: within-item lift, few data said as few, and contrasts to read."""

from __future__ import annotations

import random

import pytest

from agentrft.detectors import Evidence, Finding, Kind, Owner, Seen, rank
from agentrft.detectors.rank import MIN_CONTRASTS
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, Item, Message, StopReason, Turn


def seen(item: str, number: int, value: float | None) -> Seen:
    episode = Episode(
        id=f"{item}/{number}",
        trace_id="t",
        item_id=item,
        step=0,
        member=number,
        attempt=0,
        messages=(),
        turns=(Turn(reply=Message(role="assistant", content="x")),),
        stop_reason=StopReason.ANSWERED,
    )
    grade = Grade(value=value, reason=None if value is not None else "no grade")
    record = EpisodeRecord(job_id="j", phase="test", stage="base", episode=episode, grade=grade, reward=value)
    return Seen(record=record, item=Item(id=item, messages=()))


def finding(kind: Kind, tagged: list[tuple[str, int]]) -> Finding:
    evidence = tuple(
        Evidence(episode_id=f"{item}/{number}", item_id=item, turn=0, call=None, note="n") for item, number in tagged
    )
    return Finding(kind=kind, title=kind, owner=Owner.AGENT, description="", evidence=evidence, proposal="")


def simulated(effect: float, seed: int) -> tuple[list[Seen], Finding, float]:
    """40 items × 8; hard items have the tag more often; a tagged episode succeeds `effect` less often.

    The third is the pooled difference, which is wrong.
    """
    rng, runs, tagged, values = random.Random(seed), [], [], []
    for place in range(40):
        base = rng.betavariate(0.8, 0.8)
        for number in range(8):
            has = rng.random() < 0.8 - 0.7 * base
            value = float(rng.random() < max(base - effect * has, 0.0))
            runs.append(seen(f"i{place}", number, value))
            tagged += [(f"i{place}", number)] if has else []
            values.append((has, value))
    with_it, without = ([v for has, v in values if has is side] for side in (True, False))
    pooled = sum(without) / len(without) - sum(with_it) / len(with_it)
    return runs, finding(Kind.BAD_ARGS, tagged), pooled


def test_a_tag_of_hard_items_without_an_effect_has_no_lift() -> None:
    lifts, pooled = [], []
    for seed in range(12):
        runs, tag, difference = simulated(0.0, seed)
        (one,) = rank([tag], runs, 0.5)
        assert one.lift is not None
        lifts.append(one.lift.mean)
        pooled.append(difference)
    assert sum(pooled) / 12 > 0.15  # what pooling would say
    assert abs(sum(lifts) / 12) < 0.04


def test_a_tag_with_an_effect_has_lift_and_comes_first() -> None:
    runs, tag, _ = simulated(0.3, 3)
    _, other, _ = simulated(0.0, 3)
    ranked = rank([other, tag], runs, 0.5)
    harmful = next(one for one in ranked if one.finding is tag)
    assert harmful.lift is not None
    assert harmful.lift.low > 0
    assert harmful.priority > 0
    assert harmful.ceiling is not None
    assert harmful.failures is not None
    assert 0 < harmful.ceiling.mean < harmful.lift.mean


def test_the_ceiling_is_at_most_the_share_of_failed_episodes_that_show_it() -> None:
    # Six items, of four episodes one is tagged and fails: 6 of 24 episodes, and the lift is 1 − 0 = 1.
    runs = [seen(f"i{n}", k, float(k > 0)) for n in range(6) for k in range(4)]
    (one,) = rank([finding(Kind.LOOP, [(f"i{n}", 0) for n in range(6)])], runs, 0.5)
    assert one.lift is not None
    assert one.lift.mean == 1.0
    assert one.ceiling is not None
    assert one.ceiling.mean == pytest.approx(0.25)
    assert one.priority == pytest.approx(1.0 * 1.0 * 0.4)  # lift × share of failures × fixability of a loop


def test_few_data_are_said_to_be_few() -> None:
    runs = [seen(f"i{n}", k, float(k > 0)) for n in range(MIN_CONTRASTS - 1) for k in range(4)]
    (one,) = rank([finding(Kind.LOOP, [(f"i{n}", 0) for n in range(MIN_CONTRASTS - 1)])], runs, 0.5)
    assert one.priority == 0.0
    assert one.ceiling is None
    assert one.note.startswith("too few data")
    (alone,) = rank([finding(Kind.LOOP, [("i0", k) for k in range(4)])], runs, 0.5)
    assert alone.lift is None
    assert alone.note.startswith("no item has episodes with and without it")


def test_what_all_figures_depend_on_comes_first_and_the_residue_last() -> None:
    runs = [seen(f"i{n}", k, float(k > 1)) for n in range(6) for k in range(4)]
    kinds = [Kind.WRONG_ANSWER, Kind.LOOP, Kind.TASK_DEFECT, Kind.ENV_FAULT, Kind.GRADER_FAULT]
    ranked = rank([finding(kind, [("i0", 0)]) for kind in kinds], runs, 0.5)
    assert [one.finding.kind for one in ranked] == [
        Kind.GRADER_FAULT,
        Kind.ENV_FAULT,
        Kind.TASK_DEFECT,
        Kind.LOOP,
        Kind.WRONG_ANSWER,
    ]


def test_contrasts_are_failed_steps_of_different_items_beside_a_success_without_them() -> None:
    runs = [seen(f"i{n}", k, float(k > 0)) for n in range(4) for k in range(3)]
    tag = finding(Kind.LOOP, [("i0", 0), ("i0", 1), ("i1", 0), ("i2", 0), ("i3", 0)])
    (one,) = rank([tag], runs, 0.5)
    assert [(c.evidence.episode_id, c.passing_id) for c in one.contrasts] == [
        ("i0/0", "i0/2"),
        ("i1/0", "i1/1"),
        ("i2/0", "i2/1"),
    ]


def test_episodes_without_a_grade_count_for_nothing() -> None:
    runs = [seen("i0", 0, None), seen("i0", 1, 1.0)]
    (one,) = rank([finding(Kind.LOOP, [("i0", 0)])], runs, 0.5)
    assert one.failures is None
    assert one.passes == 0.0
    assert one.lift is None
