"""Layouts of rows that begin alike: by hand for the cases that matter, by property for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_cases import CASES, row

from agentrft.engines.prefix_tree import Forest, Segment, lay_out, micro_batches, needed_tokens, unique_tokens
from agentrft.types import Row


def spans(forest: Forest) -> list[tuple[int, int, int]]:
    return [(s.start, s.end, s.subtree_end) for s in forest.segments]


def ancestors(segments: Sequence[Segment], at: int) -> list[int]:
    """Layout positions that the token at `at` may attend to, itself included, as the attention pieces define it."""
    own = next(s for s in segments if s.start <= at < s.end)
    above = [s for s in segments if s.end <= own.start and own.end <= s.subtree_end]
    return [p for s in above for p in range(s.start, s.end)] + list(range(own.start, at + 1))


def prefixes(rows: Sequence[Row]) -> set[tuple[int, ...]]:
    """Every distinct prefix that has to be computed: brute force."""
    return {tuple(r.ids[: n + 1]) for r in rows for n in range(needed_tokens(r))}


def check(rows: Sequence[Row], forest: Forest) -> None:
    """Every (row, trained token) is a term, and its prediction is computed from exactly the row's own prefix."""
    terms = list(zip(forest.term_row.tolist(), forest.term_at.tolist(), strict=True))
    assert terms == [(r, t) for r, x in enumerate(rows) for t in range(1, len(x.ids)) if x.trained[t]]
    assert forest.head_at.tolist() == sorted(set(forest.head_at.tolist()))
    for n, (r, t) in enumerate(terms):
        assert forest.targets[n] == rows[r].ids[t]
        path = ancestors(forest.segments, int(forest.head_at[forest.where[n]]))
        assert forest.ids[path].tolist() == list(rows[r].ids[:t])
        assert forest.positions[path].tolist() == list(range(t))


# ---- by hand


def test_needed_tokens_end_before_the_last_trained_one() -> None:
    assert needed_tokens(row([7, 8, 9, 4], [2])) == 2  # 7, 8 predict 9; nothing needs 9 or 4
    assert needed_tokens(row([7, 8, 9, 4], [1, 3])) == 3
    assert needed_tokens(row([7, 8], [0])) == 0  # nothing precedes the first token: it cannot be predicted
    assert needed_tokens(row([7, 8], [])) == 0


def test_a_group_computes_its_prompt_once() -> None:
    prompt = [1, 2, 3, 4, 5]
    forest = lay_out([row([*prompt, 6, 7, 8], [5, 6, 7]), row([*prompt, 9, 8], [5, 6])])
    # prompt 0–4, then 6 7 of the first row (its 8 is only predicted), then 9 of the second.
    assert forest.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 9]
    assert forest.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 5]
    assert spans(forest) == [(0, 5, 8), (5, 7, 7), (7, 8, 8)]
    # Both rows' first reply token is predicted at the prompt's last token, position 4: one head row, two terms.
    assert forest.head_at.tolist() == [4, 5, 6, 7]
    assert forest.where.tolist() == [0, 1, 2, 0, 3]
    assert forest.targets.tolist() == [6, 7, 8, 9, 8]
    assert forest.term_row.tolist() == [0, 0, 0, 1, 1]
    assert forest.term_at.tolist() == [5, 6, 7, 5, 6]


def test_a_shared_first_turn_nests_below_the_prompt() -> None:
    prompt, turn = [1, 2, 3, 4], [5, 6, 7, 8]
    rows = [
        row([*prompt, *turn, 10, 11], [4, 8, 9]),
        row([*prompt, *turn, 12, 13], [4, 8, 9]),
        row([*prompt, 14, 15, 16], [5, 6]),
    ]
    forest = lay_out(rows)
    assert forest.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15]
    assert spans(forest) == [(0, 4, 12), (4, 8, 10), (8, 9, 9), (9, 10, 10), (10, 12, 12)]
    check(rows, forest)


def test_a_shared_trained_token_keeps_a_term_of_each_row() -> None:
    rows = [row([1, 2, 3, 4, 5, 6], [3, 4, 5]), row([1, 2, 3, 4, 5, 7], [3, 4, 5])]
    forest = lay_out(rows)
    assert forest.ids.tolist() == [1, 2, 3, 4, 5]
    assert forest.head_at.tolist() == [2, 3, 4]
    assert forest.where.tolist() == [0, 1, 2, 0, 1, 2]
    assert forest.targets.tolist() == [4, 5, 6, 4, 5, 7]


def test_savings_below_four_tokens_are_not_worth_a_branch() -> None:
    three = [row([1, 2, 3, 4, 9], [3, 4]), row([1, 2, 3, 5, 9], [3, 4])]  # 3 tokens · 1 row spared
    assert spans(lay_out(three)) == [(0, 4, 4), (4, 8, 8)]
    four = [*three, row([1, 2, 3, 6, 9], [3, 4])]  # 3 tokens · 2 rows spared = 6
    assert spans(lay_out(four)) == [(0, 3, 6), (3, 4, 4), (4, 5, 5), (5, 6, 6)]


def test_without_sharing_every_row_is_its_own_tree() -> None:
    rows = [row([1, 2, 3, 4, 5, 6], [5]), row([1, 2, 3, 4, 5, 7], [5])]
    forest = lay_out(rows, share=False)
    assert spans(forest) == [(0, 5, 5), (5, 10, 10)]
    check(rows, forest)


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("share", [True, False])
def test_case(rows: list[Row], share: bool) -> None:
    forest = lay_out(rows, share=share)
    check(rows, forest)
    assert len(forest.ids) == (unique_tokens(rows) if share else sum(needed_tokens(r) for r in rows))


def test_micro_batches_by_hand() -> None:
    # Unique tokens by group: a: 4 + 2·1 = 6, b: 5 (one row), c: 4 + 2·1 = 6, its rows alone 5 each.
    rows = [
        row([1, 2, 3, 4, 5, 6], [5], unit="a0", group="a"),
        row([9, 9, 9, 9, 9, 9], [5], unit="b0", group="b"),
        row([1, 2, 3, 4, 7, 6], [5], unit="a1", group="a"),
        row([5, 6, 7, 8, 1, 2], [5], unit="c0", group="c"),
        row([5, 6, 7, 8, 3, 2], [5], unit="c1", group="c"),
    ]
    assert [unique_tokens([rows[i] for i in part]) for part in ([0, 2], [1], [3, 4], [3])] == [6, 5, 6, 5]
    assert micro_batches(rows, 100) == [[0, 2, 1, 3, 4]]
    assert micro_batches(rows, 11) == [[0, 2, 1], [3, 4]]
    assert micro_batches(rows, 6) == [[0, 2], [1], [3, 4]]
    assert micro_batches(rows, 5) == [[0], [2], [1], [3], [4]]  # groups do not fit and are split
    assert micro_batches(rows, 1) == [[0], [2], [1], [3], [4]]  # rows do not fit either; they are never cut


def test_a_unit_stays_whole_however_large() -> None:
    chosen = row([1, 2, 3, 4, 5, 6], [5], unit="pair")
    rejected = row([7, 8, 9, 10, 11, 12], [5], unit="pair")
    assert micro_batches([chosen, row([3, 3], [1], unit="other"), rejected], 3) == [[0, 2], [1]]


def test_a_unit_stays_whole_across_groups() -> None:
    chosen = row([1, 2, 3, 4, 5, 6], [5], unit="pair", group="left")
    rejected = row([7, 8, 9, 10, 11, 12], [5], unit="pair", group="right")
    assert micro_batches([chosen, rejected], 5) == [[0, 1]]


def test_no_rows() -> None:
    assert micro_batches([], 10) == []
    assert unique_tokens([]) == 0


# ---- by property


@st.composite
def row_lists(draw: st.DrawFn) -> list[Row]:
    """Rows over two tokens, many of which extend each other, in a few groups and units."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 8))):
        stem: list[int] = []
        if rows and draw(st.booleans()):
            other = draw(st.sampled_from(rows))
            stem = list(other.ids[: draw(st.integers(0, len(other.ids)))])
        ids = (stem + draw(st.lists(st.integers(0, 1), max_size=12))) or [0]
        trained = draw(st.lists(st.integers(0, len(ids) - 1), max_size=6))
        group = draw(st.sampled_from("ab"))
        rows.append(row(ids, trained, unit=group + draw(st.sampled_from("01234")), group=group))
    return rows


@given(row_lists(), st.booleans())
def test_every_term_is_predicted_from_its_own_prefix(rows: list[Row], share: bool) -> None:
    forest = lay_out(rows, share=share)
    check(rows, forest)
    # Depth first: every subtree is one contiguous range that nests in its parent's.
    for s in forest.segments:
        assert s.start < s.end <= s.subtree_end
        for other in forest.segments:
            assert other.start >= s.subtree_end or other.subtree_end <= s.subtree_end or other.start < s.start


@given(row_lists())
def test_sharing_computes_each_prefix_once_but_for_small_change(rows: list[Row]) -> None:
    assert unique_tokens(rows) == len(prefixes(rows))
    computed = len(lay_out(rows).ids)
    # At each of at most rows − 1 branch points fewer than 4 tokens may be computed again.
    assert len(prefixes(rows)) <= computed <= len(prefixes(rows)) + 3 * (len(rows) - 1)
    assert len(lay_out(rows, share=False).ids) == sum(needed_tokens(r) for r in rows)


@given(row_lists(), st.integers(1, 40))
def test_micro_batches_keep_units_whole_and_cover_all_rows(rows: list[Row], max_tokens: int) -> None:
    batches = micro_batches(rows, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    batch_of = {i: n for n, batch in enumerate(batches) for i in batch}
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            if one.unit == other.unit:
                assert batch_of[i] == batch_of[j]
    for batch in batches:
        part = [rows[i] for i in batch]
        assert unique_tokens(part) <= max_tokens or len({r.unit for r in part}) == 1
    for group in {r.group for r in rows}:
        indices = [i for i, r in enumerate(rows) if r.group == group]
        if unique_tokens([rows[i] for i in indices]) <= max_tokens:
            assert len({batch_of[i] for i in indices}) == 1


@given(row_lists(), st.integers(1, 40))
def test_no_term_is_lost_between_micro_batches(rows: list[Row], max_tokens: int) -> None:
    forests = [lay_out([rows[i] for i in batch]) for batch in micro_batches(rows, max_tokens)]
    targets = np.sort(np.concatenate([f.targets for f in forests]))
    wanted = [r.ids[t] for r in rows for t in range(1, len(r.ids)) if r.trained[t]]
    assert targets.tolist() == sorted(wanted)
