"""The server of parcels: what the agent sees, and what it promises about state and calls that come again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

Row = dict[str, Any]
Calls = Sequence[tuple[str, dict[str, str]]]

FIND = ("find", {"text": "lamp for ana"})
MOVE = ("move", {"id": "P27", "shelf": "C4"})
LIST = ("list", {"zone": "C"})


@pytest.mark.parametrize(
    ("calls", "shown"),
    [
        ([LIST], ["P58 lamp for ben on C1\nP60 rug for cleo on C4"]),
        ([("list", {"zone": "B"})], ["no parcel"]),
        ([("list", {"zone": "F"})], ["error: no zone F, zones: A B C D E"]),
        ([("list", {"zone": ""})], ["error: no zone , zones: A B C D E"]),
        ([FIND], ["P27 lamp for ana on A3"]),
        ([("find", {"text": "ana"})], ["P27 lamp for ana on A3\nP41 mug for ana on A1"]),
        (
            [("find", {"text": "for"})],
            ["P27 lamp for ana on A3\nP41 mug for ana on A1\nP58 lamp for ben on C1\n[1 more]"],
        ),
        ([("find", {"text": "zzz"})], ["no parcel"]),
        ([("find", {"text": ""})], ["error: TEXT is empty"]),
        ([("move", {"id": "P99", "shelf": "C4"})], ["error: no parcel P99"]),
        ([("move", {"id": "x" * 99, "shelf": "C4"})], ["error: no parcel " + "x" * 20]),
        ([("move", {"id": "P27", "shelf": "C5"})], ["error: no shelf C5, shelves: A1 to E4"]),
        ([("move", {"id": "P27", "shelf": "A3"})], ["error: P27 is on A3 already"]),
        ([("move", {"id": "\ud800", "shelf": "C4"})], ["error: no parcel ?"]),
        ([("move", {"id": "P27é", "shelf": "C4"})], ["error: no parcel P27é"]),
        (
            [MOVE, LIST, FIND, MOVE, ("move", {"id": "P27", "shelf": "E1"})],
            [
                "P27 lamp for ana moved from A3 to C4",
                "P27 lamp for ana on C4\nP58 lamp for ben on C1\nP60 rug for cleo on C4",
                "P27 lamp for ana on C4",
                "error: P27 is on C4 already",
                "P27 lamp for ana moved from C4 to E1",
            ],
        ),
    ],
)
async def test_tools(parcels: Any, row: Row, calls: Calls, shown: list[str]) -> None:
    async with parcels.tools() as tools:
        assert await parcels.outputs(tools, row, calls) == shown


@pytest.fixture
def post(parcels: Any, row: Row) -> Any:
    """A call as it is sent: `status, body = post(trace_id, call_id, name, text=…)`; the body None of a 500."""

    def answered(trace: str, call_id: str, name: str, item: Row = row, **arguments: str) -> tuple[int, Any]:
        ids = {"type": "function_call", "id": "fc_1", "call_id": call_id, "trace_id": trace}
        call = {**ids, "name": name, "arguments": json.dumps(arguments), "item": item}
        answer = httpx.post(parcels.url, json=call, timeout=30)
        return answer.status_code, answer.json() if answer.status_code < 500 else None

    return answered


@pytest.fixture
def ask(post: Any) -> Any:
    """The same, and only the output."""
    return lambda *call, **arguments: post(*call, **arguments)[1]["output"]


def test_the_answer_has_the_contracts_shape(post: Any) -> None:
    ids = {"type": "function_call_output", "call_id": "call_1", "id": "fc_1"}
    assert post("shape", "call_1", "find", text="mug") == (200, {**ids, "output": "P41 mug for ana on A1"})
    status, body = post("shape", "call_2", "move", id="P1", shelf="A1")
    assert (status, body["output"]) == (422, "no parcel P1")


def test_a_call_that_comes_again_is_done_once(post: Any) -> None:
    first = post("again", "call_1", "move", id="P27", shelf="C4")
    assert first[0] == 200
    assert post("again", "call_1", "move", id="P27", shelf="C4") == first  # not "is on C4 already"
    refused = post("again", "call_2", "move", id="P27", shelf="C4")
    assert (refused[0], refused[1]["output"]) == (422, "P27 is on C4 already")
    assert post("again", "call_2", "move", id="P27", shelf="C4") == refused


def test_episodes_do_not_see_each_other(ask: Any, row: Row) -> None:
    other = {**row, "id": "row-2", "parcels": {"P27": "tent dora E2"}}
    ask("one", "call_1", "move", id="P27", shelf="C4")
    assert ask("two", "call_1", "find", text="P27") == "P27 lamp for ana on A3"
    # one trace id for two rows, as when somebody tries the tools out by hand
    assert ask("one", "call_1", "find", other, text="P27") == "P27 tent for dora on E2"
    assert ask("one", "call_2", "find", text="P27") == "P27 lamp for ana on C4"


def test_an_episode_that_is_played_again_differently_starts_where_it_differs(ask: Any) -> None:
    moved = ask("resumed", "call_0", "move", id="P41", shelf="B1")
    ask("resumed", "call_1", "move", id="P27", shelf="C4")
    ask("resumed", "call_2", "move", id="P58", shelf="D1")
    assert ask("resumed", "call_0", "move", id="P41", shelf="B1") == moved
    found = "P27 lamp for ana on A3\nP41 mug for ana on B1\nP58 lamp for ben on C1\n[1 more]"
    assert ask("resumed", "call_1", "find", text="for") == found
    assert ask("resumed", "call_2", "find", text="P58") == "P58 lamp for ben on C1"


def test_many_at_once(ask: Any) -> None:
    def move(trace: str) -> str:
        return ask(trace, "call_1", "move", id="P27", shelf="C4")

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(move, ["busy"] * 40 + [f"busy-{number}" for number in range(40)]))
    assert answers == {"P27 lamp for ana moved from A3 to C4"}


def test_what_is_not_the_models_mistake_is_a_500(post: Any) -> None:
    assert post("wrong", "call_1", "find", {"id": "row-3"}, text="x")[0] == 500  # a row without parcels
    assert post("wrong", "call_1", "burn", text="x")[0] == 500  # a tool that the job binds and nobody wrote
    assert post("wrong", "call_1", "find", words="x")[0] == 500  # a schema that is not the server's
    assert post("wrong", "call_1", "find", text="mug")[0] == 200


def test_unused_depots_are_forgotten_after_a_quarter_of_an_hour(parcels: Any, row: Row) -> None:
    server = parcels.module("server")
    now = [0.0]
    episodes = server.Episodes(lambda: now[0])

    def call(trace: str, name: str, **arguments: str) -> str:
        made = server.Call("fc_1", f"call_{now[0]}", name, json.dumps(arguments), trace, row)
        return episodes.answer(made).output

    call("old", "move", id="P27", shelf="C4")
    call("used", "move", id="P27", shelf="C4")
    now[0] = 600.0
    call("used", "find", text="P27")
    now[0] = 901.0
    assert call("used", "find", text="P27") == "P27 lamp for ana on C4"
    assert len(episodes) == 1
    assert call("old", "find", text="P27") == "P27 lamp for ana on A3"
