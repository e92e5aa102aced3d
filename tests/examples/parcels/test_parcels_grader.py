"""The grader of parcels: its numbers, and the tricks that earn nothing."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any

import pytest

Row = dict[str, Any]
Calls = Sequence[tuple[str, dict[str, str]]]

FIND = ("find", {"text": "lamp for ana"})
MOVE = ("move", {"id": "P27", "shelf": "C4"})
LIST = ("list", {"zone": "C"})


async def test_the_stated_rewards(parcels: Any, row: Row) -> None:
    async def score(calls: Calls, answer: str | None) -> float:
        return await parcels.score(row, calls, answer)

    # quality × (1 − 0.15 × (calls − 2))
    assert await score([FIND, MOVE], "A3") == 1.0
    assert await score([FIND, MOVE], "Answer: A3") == 1.0  # formats that keep the prefix
    assert await score([MOVE], "A3") == 1.0
    assert await score([FIND, MOVE, LIST], "A3") == pytest.approx(0.85)
    assert await score([LIST, ("list", {"zone": "A"}), MOVE, LIST], "A3") == pytest.approx(0.7)
    assert await score([FIND, MOVE], "C4") == pytest.approx(0.3)
    assert await score([FIND], "A3") == pytest.approx(0.1)
    assert await score([FIND, ("move", {"id": "P27", "shelf": "C3"})], "A3") == pytest.approx(0.1)
    assert await score([LIST], "A3") == 0.0
    assert await score([], "A3") == 0.0
    assert await score([FIND, MOVE], "") == 0.0
    assert await score([FIND, MOVE], None) == 0.0


async def test_only_the_state_that_was_asked_for_counts(parcels: Any, row: Row) -> None:
    async def score(*moves: tuple[str, str]) -> float:
        calls = [("move", {"id": parcel, "shelf": shelf}) for parcel, shelf in moves]
        return await parcels.score(row, calls, "A3")

    assert await score(("P27", "E1"), ("P27", "C4")) == 1.0  # a slip that was put right
    assert await score(("P27", "C4"), ("P27", "E1")) == pytest.approx(0.1)  # spoilt afterwards
    assert await score(("P27", "C4"), ("P41", "E1")) == pytest.approx(0.1)  # another one is gone
    assert await score(("P41", "E1"), ("P27", "C4"), ("P41", "A1")) == pytest.approx(0.85)  # and was brought back
    assert await score(("P41", "C4")) == 0.0  # the wrong parcel
    assert await score(("P27", "C4"), ("P27", "A3"), ("P27", "C4")) == pytest.approx(0.85)


async def test_malformed_replies_count_as_calls(parcels: Any, row: Row) -> None:
    sample = await parcels.play(row, [FIND, MOVE], "A3")
    assert parcels.grade(sample | {"n_calls": 4}, row) == pytest.approx(0.7)
    assert parcels.grade({key: value for key, value in sample.items() if key != "n_calls"}, row) == 1.0
    assert parcels.grade(sample | {"n_calls": 40}, row) == 0.0


@pytest.mark.parametrize(
    "answer",
    ["C4 A3", "A3, or C4", "A3\nA3", "A3 Answer: A3", "Answer: Answer: A3", "not A3", "a3", "A3.", "A３", "А3"],
)
async def test_only_the_shelf_itself_is_right(parcels: Any, row: Row, answer: str) -> None:
    assert await parcels.score(row, [FIND, MOVE], answer) == pytest.approx(0.3)


async def test_a_line_that_the_model_wrote_is_no_evidence(parcels: Any, row: Row) -> None:
    line = "P27 lamp for ana moved from A3 to C4"
    for name, arguments in [
        ("find", {"text": line}),
        ("find", {"text": f"\n{line}\n"}),
        ("list", {"zone": line}),
        ("list", {"zone": f"\n{line}"}),
        ("move", {"id": f"\n{line}", "shelf": "C4"}),
        ("move", {"id": "P99", "shelf": f"\n{line}"}),
        ("moved", {"id": line}),
        ("find", {line: "x"}),
    ]:
        assert await parcels.score(row, [(name, arguments)], "A3") == 0.0, arguments
    sample = await parcels.play(row, [], "A3")
    for message in (
        {"role": "assistant", "content": f"\n{line}\n"},
        {"role": "user", "content": line},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "move", "arguments": line}}]},
        {"role": "tool", "content": f"error: {line}"},
        {"role": "tool", "content": f"error: x\n{line}"},
    ):
        assert parcels.grade(sample | {"messages": [*sample["messages"], message]}, row) == 0.0


def test_graders_survive_nulls(parcels: Any, row: Row) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": None}
    for sample in (
        {},
        {"output_text": None, "messages": None},
        {"output_text": "a", "messages": [call, {"role": "tool"}]},
    ):
        assert parcels.grade(sample, row) == 0.0


async def test_moving_everything_there_or_guessing_ids_earns_next_to_nothing(parcels: Any) -> None:
    """With the right answer given away."""
    async with parcels.tools() as tools:
        greedy, guessed = [], []
        for row in parcels.rows["test"][:40]:
            found = [("find", {"text": "for"})]
            (shown,) = await parcels.outputs(tools, row, found)
            ids = re.findall(r"P\d\d", shown)
            for scores, calls in (
                (greedy, [*found, *(("move", {"id": one, "shelf": row["to"]}) for one in ids)]),
                (guessed, [("move", {"id": f"P{number}", "shelf": row["to"]}) for number in (25, 50, 75)]),
            ):
                sample = parcels.sample(row, calls, await parcels.outputs(tools, row, calls), row["answer"])
                scores.append(parcels.grade(sample, row))
    # the parcel is among the three shown in 3 of 10 depots, and then others are moved with it
    assert statistics.mean(greedy) < 0.05
    assert statistics.mean(guessed) < 0.1


async def test_outputs_without_evidence_earn_nothing(parcels: Any) -> None:
    for row in parcels.rows["test"][:10]:
        everything = " ".join(map(str, row.values()))
        for text in ["", " ", ":", "NaN", row["answer"], row["messages"][0]["content"], everything]:
            assert parcels.grade(parcels.sample(row, [], [], text), row) == 0.0
