"""Demonstrations from recorded episodes: good, short, different, and readable as a file of demonstrations."""

from __future__ import annotations

import random

import pytest

from agentrft.data.collect import collect_bad, collect_good, demonstration_rows, rated_rows
from agentrft.data.export import write_rows
from agentrft.data.preferences import read_rated
from agentrft.data.rows import read_demonstrations
from agentrft.types import StopReason, ToolSpec


def names(found):
    return [record.episode.id[3:] for record in found.records]


def test_the_shortest_of_each_item_come_first_and_no_calls_come_twice(record):
    records = [
        record("long", "i", ["a", "b", "c"], "yes", 1.0),
        record("short", "i", ["a"], "yes", 0.9, tokens=9),
        record("wordy", "i", ["a"], "yes indeed", 1.0, tokens=12),
        record("other", "i", ["b"], "yes", 0.8, tokens=10),
        record("bad", "i", ["c"], "no", 0.4),
        record("else", "j", ["a"], "yes", 0.7),
    ]
    found = collect_good(records, min_reward=0.7, per_item=2)
    assert names(found) == ["other", "wordy", "else"]  # 10 tokens, then 12; "short" has the calls of "wordy", and less
    assert (found.episodes, found.good, found.items) == (6, 5, 2)
    assert names(collect_good(records, min_reward=0.7, per_item=9)) == ["other", "wordy", "long", "else"]
    assert names(collect_good(records, min_reward=0.95, per_item=9)) == ["wordy", "long"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert names(collect_good(shuffled, min_reward=0.7, per_item=2)) == names(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": StopReason.MAX_TURNS, "answer": None},
        {"malformed": 0},
        {"phase": "validation", "split": "validation"},
        {"phase": "test", "split": "harder"},
        {"reward": None},
    ],
)
def test_what_is_not_whole_or_not_practice_is_left_out(record, changes):
    given = {"answer": "yes", "reward": 1.0} | changes
    one = record("x", "i", ["a"], given.pop("answer"), given.pop("reward"), **given)
    assert collect_good([one], min_reward=-1.0, per_item=4).records == []


def test_arguments_that_say_the_same_are_the_same(record):
    first, second = record("a", "i", ["x"], "yes", 1.0), record("b", "i", ["x"], "yes", 1.0)
    assert len(collect_good([first, second], min_reward=0, per_item=4).records) == 1


def test_the_rows_are_demonstrations(record, tmp_path):
    records = [
        record("a", "i", ["x", "y"], "yes", 1.0),
        record("b", "i", ["z", "z"], "yes", 0.9),
        record("c", "j", [], "yes", 1.0),
    ]
    found = collect_good(records, min_reward=0.5, per_item=4)
    tools = [ToolSpec(name="look", description="", parameters={"type": "object", "properties": {"at": {}}})]
    path = tmp_path / "demonstrations.jsonl"
    write_rows(path, demonstration_rows(found.records, {"i": tools}), param="--out")
    rows = list(read_demonstrations(path))
    assert [row.id for row in rows] == ["i", "i#2", "j"]
    assert [message.role for message in rows[0].messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert [row.tools for row in rows] == [tuple(tools), tuple(tools), ()]
    assert rows[0].messages == records[0].episode.messages


def test_the_others_are_undesirable(record, tmp_path):
    records = [
        record("good", "i", ["x"], "yes", 1.0),
        record("bad", "i", ["x"], "no", 0.2),
        record("worse", "i", ["x"], "never", 0.1),
        record("other", "i", ["z"], "no", 0.0),
        record("ungraded", "i", ["z"], "no", None),
        record("test", "i", ["z"], "no", 0.0, phase="test"),
    ]
    bad = collect_bad(records, max_reward=0.5, per_item=4)
    assert names(bad) == ["bad", "other"]
    path = tmp_path / "rated.jsonl"
    write_rows(
        path, rated_rows(collect_good(records, min_reward=0.5, per_item=4).records, bad.records, {}), param="--out"
    )
    found = list(read_rated(path))
    assert [(one.demonstration.id, one.desirable) for one in found] == [("i", True), ("i#2", False), ("i#3", False)]
