"""Checks across a dataset: item keys the grader reads, tool names, repeats."""

from __future__ import annotations

import pytest

from agentrft.data.check import check_dataset
from agentrft.errors import UserError
from agentrft.types import Item, Message, ToolSpec


def _item(line: int, *, tools: tuple[str, ...] = (), **fields: object) -> Item:
    return Item(
        id=f"row-{line}",
        messages=(Message(role="user", content=f"q{line}"),),
        tools=tuple(ToolSpec(name=name, description="", parameters={}) for name in tools),
        fields=fields,
        line=line,
    )


PATH = ("reference", "ports", 0)


def test_rows_that_have_what_the_grader_reads_pass():
    items = [_item(1, reference={"ports": [1]}), _item(2, reference={"ports": [2, 3]})]
    assert check_dataset(items, item_paths=[PATH]) == []


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"answer": 1}, "item.reference"),
        ({"answer": 1, "reference": None}, "item.reference"),
        ({"answer": 1, "reference": {"port": 1}}, "item.reference.ports"),
        ({"answer": 1, "reference": {"ports": []}}, "item.reference.ports[0]"),
        ({"answer": 1, "reference": {"ports": "12"}}, "item.reference.ports[0]"),
        ({"answer": 1, "reference": "x"}, "item.reference.ports"),
    ],
)
def test_a_row_without_what_the_grader_reads_is_named(fields, missing):
    items = [_item(1, reference={"ports": [1]}), _item(2, **fields)]
    with pytest.raises(UserError) as caught:
        check_dataset(items, item_paths=[PATH], source="train.jsonl")
    message = caught.value.message
    assert message.startswith(
        "train.jsonl, line 2 (id 'row-2'): the grader reads `item.reference.ports[0]`, but this row has no "
        f"`{missing}` (or it is null); got the keys: answer"
    )
    assert "next step" in message
    assert caught.value.code == "missing_item_key"


def test_a_row_may_only_describe_bound_tools():
    items = [_item(1, tools=("ls",)), _item(2, tools=("ls", "rm"))]
    assert check_dataset(items) == []
    assert check_dataset(items, tool_names={"ls", "rm"}) == []
    with pytest.raises(UserError, match=r"line 2 .*the tool 'rm', which the job does not bind; expected one of: ls;"):
        check_dataset(items, tool_names={"ls"})


def test_warnings_for_a_constant_reference_and_for_repeated_rows():
    items = [_item(1, answer=7), _item(2, answer=7)]
    assert check_dataset(items, item_paths=[("answer",)], source="t") == [
        "t: `item.answer` is the same in all 2 rows, so the grader cannot tell them apart by it"
    ]
    again = Item(id="z", messages=items[0].messages, fields=items[0].fields, line=9)
    assert check_dataset([*items, again], source="t") == ["t: 1 rows repeat an earlier one (line 9 repeats line 1)"]
