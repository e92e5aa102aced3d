"""Test and retest of graders, and the agreement of two."""

from __future__ import annotations

import itertools

import pytest

from agentrft.diagnose import agree, grade_again
from agentrft.diagnose.repeat import spearman, spread
from agentrft.testing import ScriptedGrader
from agentrft.types import Sample


async def test_a_steady_grader_has_an_icc_of_one(peek) -> None:
    groups = [peek.group(item, [0.0, 0.5, 1.0]) for item in peek.items(10)]
    grades = {episode.trace_id: grade for g in groups for episode, grade in zip(g.episodes, g.grades, strict=True)}

    class Same:
        async def grade(self, sample, item, trace_id):
            return grades[trace_id]

        async def close(self) -> None: ...

    repeat = await grade_again(groups, Same(), episodes=12)
    assert (repeat.icc, repeat.changed, repeat.largest, repeat.episodes, repeat.gradings) == (1.0, 0, 0.0, 12, 3)


async def test_a_grader_that_throws_dice_has_none(peek) -> None:
    groups = [peek.group(item, [float(i % 2) for i in range(8)]) for item in peek.items(10)]
    dice = itertools.cycle([0.0, 1.0, 1.0, 0.0, 0.0])

    def throw(sample: Sample, item) -> float:
        return next(dice)

    repeat = await grade_again(groups, ScriptedGrader(throw), episodes=40)
    assert repeat.icc is not None
    assert repeat.icc < 0.5
    assert repeat.changed >= 20


async def test_a_grade_that_is_there_only_sometimes_has_changed(peek) -> None:
    groups = [peek.group(item, [1.0]) for item in peek.items(4)]

    def fails(sample: Sample, item) -> float:
        raise RuntimeError("no")

    repeat = await grade_again(groups, ScriptedGrader(fails), episodes=10)
    assert (repeat.changed, repeat.icc) == (4, None)


def test_the_episodes_graded_again_span_the_grades(peek) -> None:
    groups = [peek.group(item, [0.0] * 9 + [1.0]) for item in peek.items(3)]
    values = [grade.value for _, _, grade in spread(groups, 4)]
    assert values == [0.0, 0.0, 0.0, 1.0]
    assert len(spread(groups, 100)) == 30
    assert len(spread(groups, 1)) == 1
    assert spread([peek.group(peek.items(1)[0], [None])], 5) == []


async def test_agreement_is_a_rank_correlation(peek) -> None:
    groups = [peek.group(item, [0.1 * i, 0.2]) for i, item in enumerate(peek.items(10))]
    turned = ScriptedGrader(lambda sample, item: -float(item.fields["digit"]))
    agreement = await agree(groups[:], turned, episodes=50)
    assert agreement.episodes == 20
    assert agreement.rho is not None
    assert agreement.rho < -0.3


@pytest.mark.parametrize(
    ("pairs", "rho"),
    [
        ([(1.0, 10.0), (2.0, 20.0), (3.0, 300.0)], 1.0),
        ([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)], -1.0),
        # Ranks 1, 2½, 2½ and 1, 2, 3: centred −1, ½, ½ and −1, 0, 1: 1.5 / √(1.5 · 2) = .8660
        ([(1.0, 1.0), (2.0, 2.0), (2.0, 3.0)], 0.8660),
        ([(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], None),
        ([(1.0, 1.0), (2.0, 2.0)], None),
    ],
)
def test_spearman_by_hand(pairs, rho) -> None:
    assert spearman(pairs) == (None if rho is None else pytest.approx(rho, abs=1e-4))
