"""Pairs from recorded episodes: which are made, which are not, and that the rows they become can be read."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from agentrft.data.export import write_rows
from agentrft.data.pairs import PairRules, is_held_out, pair_row, pair_up
from agentrft.data.preferences import read_preferences
from agentrft.errors import UserError
from agentrft.types import StopReason, ToolSpec

RULES = PairRules()


def names(pairing):
    return [(pair.preferred.episode.id[3:], pair.rejected.episode.id[3:]) for pair in pairing.pairs]


def test_the_best_is_paired_with_what_parted_from_it_last(record):
    records = [
        record("best", "i", ["a", "b"], "yes", 1.0),
        record("early", "i", ["x", "y"], "no", 0.0),
        record("late", "i", ["a", "b"], "no", 0.2),
        record("middle", "i", ["a", "c"], "no", 0.1),
    ]
    pairing = pair_up(records, RULES)
    assert names(pairing) == [("best", "late"), ("best", "middle")]
    assert [pair.shared_turns for pair in pairing.pairs] == [2, 1]
    assert [pair.margin for pair in pairing.pairs] == pytest.approx([0.8, 0.9])
    assert names(pair_up(records, PairRules(per_item=9))) == [("best", "late"), ("best", "middle"), ("best", "early")]


def test_with_equal_prefixes_the_larger_margin_comes_first(record):
    records = [
        record("best", "i", ["a"], "yes", 1.0),
        record("near", "i", ["b"], "no", 0.6),
        record("far", "i", ["c"], "no", 0.1),
    ]
    assert names(pair_up(records, PairRules(per_item=1))) == [("best", "far")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reward": 0.75}, "less than the margin below 1"),
        ({"reward": None}, "without a grade"),
        ({"stop": StopReason.MAX_TURNS, "answer": None}, "cut off"),
        ({"stop": StopReason.FAULT, "answer": None}, "a fault"),
        ({"malformed": 0}, "with a reply that could not be read"),
        ({"phase": "validation", "split": "validation"}, "of a validation item"),
        ({"phase": "test", "split": "test"}, "of a test item"),
        ({"prompt": "Where is the other?"}, "of another question under the same id"),
        ({"tokens": 41}, "more than twice as long"),
    ],
)
def test_no_pair_is_made_with_an_episode(record, changes, why):
    given = {"calls": ["b"], "answer": "no", "reward": 0.0, "tokens": 20} | changes
    bad = record("bad", "i", given.pop("calls"), given.pop("answer"), given.pop("reward"), **given)
    assert names(pair_up([record("best", "i", ["a"], "yes", 1.0, tokens=20), bad], RULES)) == [], why


def test_what_does_not_count_is_counted(record):
    records = [
        record("a1", "a", ["x"], "yes", 1.0),
        record("a2", "a", ["y"], "yes", 1.0),
        record("b1", "b", ["x"], "yes", 1.0, tokens=5),
        record("b2", "b", ["y"], "no", 0.0, tokens=50),
        record("c1", "c", ["x"], None, 0.0, stop=StopReason.MAX_TURNS),
        record("d1", "d", ["x"], "yes", 1.0, phase="test"),
        record("e1", "e", ["x"], "yes", 1.0, phase="test", split="train"),  # `eval --split train`
        record("e2", "e", ["y"], "no", 0.0, phase="test", split="train"),
    ]
    pairing = pair_up(records, RULES)
    assert names(pairing) == [("e1", "e2")]
    assert (pairing.episodes, pairing.whole, pairing.items) == (7, 6, 3)
    assert (pairing.items_without_margin, pairing.items_without_likeness) == (1, 1)


def test_the_same_trajectory_is_used_once_and_the_order_of_records_is_nothing(record):
    records = [
        record("best", "i", ["a"], "yes", 1.0, step=3),
        record("again", "i", ["a"], "yes", 1.0, step=5),
        record("bad1", "i", ["b"], "no", 0.1, step=1),
        record("bad2", "i", ["b"], "no", 0.1, step=2),
        record("bad3", "i", ["c"], "no", 0.0, step=2),
    ]
    expected = names(pair_up(records, RULES))
    assert len(expected) == 2
    assert len({good for good, _ in expected}) == 1
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert names(pair_up(shuffled, RULES)) == expected


def test_the_row_begins_where_the_episodes_part_and_can_be_read(record, tmp_path):
    records = [
        record("best", "i\u2028\x00'\"", ["a", "b"], "yes ✓", 1.0),
        record("late", "i\u2028\x00'\"", ["a", "c"], "no\n", 0.2),
    ]
    (pair,) = pair_up(records, RULES).pairs
    tools = [ToolSpec(name="look", description="d", parameters={"type": "object", "properties": {"at": {}}})]
    row = pair_row(pair, tools)
    path = tmp_path / "pairs.jsonl"
    write_rows(path, [row], param="--out")
    (found,) = read_preferences(path)
    assert found.id == "ep_best>ep_late"
    assert [message.role for message in found.prompt] == ["user", "assistant", "tool"]
    assert found.prompt[2].content == "A"
    assert [message.role for message in found.preferred] == ["assistant", "tool", "assistant"]
    assert found.preferred[-1].content == "yes ✓"
    assert found.rejected[-1].content == "no\n"
    assert found.tools == tuple(tools)
    assert (row["rewards"], row["shared_turns"]) == ([1.0, 0.2], 1)
    assert set(row) - {"input", "preferred_output", "non_preferred_output"} == {
        "id",
        "item_id",
        "shared_turns",
        "rewards",
        "episodes",
    }


def test_episodes_that_differ_in_their_answer_only_part_at_the_answer(record):
    (pair,) = pair_up([record("a", "i", ["a"], "yes", 1.0), record("b", "i", ["a"], "no", 0.0)], RULES).pairs
    row = pair_row(pair, ())
    assert (row["preferred_output"], row["non_preferred_output"]) == (
        [{"role": "assistant", "content": "yes"}],
        [{"role": "assistant", "content": "no"}],
    )
    assert "tools" not in row["input"]


def test_an_item_is_held_out_by_its_id_alone():
    held_out = [name for name in map(str, range(1000)) if is_held_out(name, 0.1)]
    assert 70 <= len(held_out) <= 130
    assert held_out == [name for name in map(str, range(1000)) if is_held_out(name, 0.1)]
    assert set(held_out) <= {name for name in map(str, range(1000)) if is_held_out(name, 0.3)}


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("before")

    def rows():
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, rows(), param="--out")
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["rows.jsonl"]
    with pytest.raises(UserError, match=r"cannot write .*: No such file") as caught:
        write_rows(tmp_path / "nowhere" / "rows.jsonl", [], param="--out")
    assert caught.value.code == "file_not_writable"
    write_rows(path, itertools.repeat({"a": "ä\ud800"}, 2), param="--out")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": "ä?"}] * 2
