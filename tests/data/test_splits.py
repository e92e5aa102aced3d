"""Seeded splits and the check for rows on both sides."""

from __future__ import annotations

import pytest

from agentrft.data.splits import check_overlap, content_hash, split_items
from agentrft.errors import UserError
from agentrft.types import Item, Message


def _item(line: int, question: str = "", **fields: object) -> Item:
    question = question or f"q{line}"
    return Item(id=f"row-{line}", messages=(Message(role="user", content=question),), fields=fields, line=line)


ITEMS = [_item(k) for k in range(1, 101)]


def test_sizes_follow_the_fractions_and_nothing_is_lost():
    parts = split_items(ITEMS, {"train": 0.8, "validation": 0.1, "test": 0.1}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 80, "validation": 10, "test": 10}
    assert sorted(item.line for part in parts.values() for item in part) == list(range(1, 101))
    assert [item.line for item in parts["train"]] == sorted(item.line for item in parts["train"])


def test_the_seed_alone_decides():
    one = split_items(ITEMS, {"a": 0.5, "b": 0.5}, seed=1)
    same = split_items(ITEMS[::-1], {"a": 0.5, "b": 0.5}, seed=1)
    other = split_items(ITEMS, {"a": 0.5, "b": 0.5}, seed=2)
    assert {i.id for i in one["a"]} == {i.id for i in same["a"]}
    assert {i.id for i in one["a"]} != {i.id for i in other["a"]}


def test_equal_rows_stay_together_and_every_part_gets_one():
    items = [_item(k, question=f"q{k % 3}") for k in range(1, 31)]
    parts = split_items(items, {"a": 0.98, "b": 0.01, "c": 0.01}, seed=0)
    assert sorted(len(part) for part in parts.values()) == [10, 10, 10]
    assert check_overlap(parts) == []


@pytest.mark.parametrize("fractions", [{"a": 0.5}, {"a": 1.0, "b": 0.0}, {"a": 1.5, "b": -0.5}])
def test_bad_fractions(fractions):
    with pytest.raises(UserError, match="expected positive fractions that add up to 1"):
        split_items(ITEMS, fractions, seed=0)


def test_too_few_rows():
    with pytest.raises(UserError, match="cannot split 1 distinct rows into 2 parts"):
        split_items([_item(1), _item(2, question="q1")], {"a": 0.5, "b": 0.5}, seed=0)


def test_content_is_messages_and_fields_not_id_or_spacing():
    base = content_hash(_item(1, question="Where is é?", answer={"b": 1, "a": [2]}))
    assert base == content_hash(_item(2, question=" Where  is e\u0301? ", answer={"a": [2], "b": 1}))
    assert base != content_hash(_item(1, question="Where is é?", answer={"a": [2], "b": 2}))


def test_overlap_with_train_is_refused_and_between_held_out_splits_warned_about():
    train, test, other = [_item(1), _item(2)], [_item(3)], [_item(4), _item(5, question="q3")]
    assert check_overlap({"train": train, "test": test}) == []
    assert check_overlap({"train": train, "test": test, "new": other}) == [
        "test and new share 1 row(s): line 3 of test is line 5 of new"
    ]
    with pytest.raises(UserError) as caught:
        check_overlap({"train": train, "test": [_item(7, question="q2")]})
    assert caught.value.message.startswith("train and test share 1 row(s): line 2 of train is line 7 of test; expected")
    assert caught.value.param == "data.test"
