"""The tool-latency benchmark: its task, its arithmetic, and the overlap itself with an engine that takes no time."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import tool_latency
from harness.lookup import ANSWER, TOOL, found, messages_for, pairs
from harness.trl_sweep import Tried
from harness.worker import Worker
from ours.drill import demonstration
from ours.tool_latency import BINDINGS, TOOLS, items_for, roll_out, summary

from agentrft.data.rows import demonstration_of
from agentrft.rollout import GeneratorActor
from agentrft.testing import CharFormat, ScriptedGenerator
from agentrft.tools import open_toolset

SIDE = """
import time
from harness.pipe import Pipe, serve
pipe = Pipe()
pipe.reply({"ready": True})
def rollout(request):
    time.sleep(0.02 + 2 * request["latency_s"])
    return {"prompts": request["seed"], "two_calls": 4, "calls": 8, "new_tokens": 60, "dtype": "float32"}
serve({"rollout": rollout}, pipe)
"""


def test_pairs_are_the_same_for_everyone_and_never_twice() -> None:
    drawn = pairs(32, 1)
    assert drawn == pairs(32, 1) != pairs(32, 2)
    assert len(set(drawn)) == 32
    assert all(first != second for first, second in drawn)
    assert messages_for(("amber", "wool"))[-1] == {"role": "user", "content": "Look up amber, then wool."}


def test_demonstrations_make_two_calls_and_answer() -> None:
    shown = demonstration_of({"id": "0", **demonstration(("amber", "wool"))}, 1)
    calls = [json.loads(call.arguments) for message in shown.messages for call in message.tool_calls]
    assert calls == [{"name": "amber"}, {"name": "wool"}]
    assert [message.content for message in shown.messages[-2:]] == [found("wool"), ANSWER]


def test_bound_by_hand() -> None:
    # 1.2 x (3 s + 2 x 0.05 s) = 3.72 s; at 1000 ms 1.2 x 5 s = 6 s; at 0 ms the 20 % alone.
    assert tool_latency.bound_s(3.0, 50) == pytest.approx(3.72)
    assert tool_latency.bound_s(3.0, 1000) == pytest.approx(6.0)
    assert tool_latency.bound_s(3.0, 0) == pytest.approx(3.6)


def played(side: str, kind: str, latency_ms: int, wall_s: float, two_calls: int = 4) -> tool_latency.Played:
    return tool_latency.Played(
        side=side,
        kind=kind,
        latency_ms=latency_ms,
        seed=1,
        wall_s=wall_s,
        load=0.1,
        data={"two_calls": two_calls, "prompts": 7, "new_tokens": 60},
    )


def rollouts_of(ours_s: float, two_calls: int = 4) -> tool_latency.Rollouts:
    """4 episodes; model time 1 s for ours and 2 s for TRL, which waits for 8 calls one after the other."""
    kinds = list(tool_latency.KINDS.items())
    ours = [one for kind, _ in kinds for one in (played("ours", kind, 0, 1.0), played("ours", kind, 500, ours_s))]
    peer = [
        one
        for kind in ("sync", "async")
        for one in (played("TRL", kind, 0, 2.0), played("TRL", kind, 500, 6.0, two_calls))
    ]
    return tool_latency.Rollouts([*ours, *peer], episodes=4)


TRIED = [Tried(name="float32", config={}, step_s=2.0)]


def test_cases_bounds_and_shares() -> None:
    result = tool_latency.summary(rollouts_of(2.1), TRIED, [0, 500], "float32")
    assert [case.name for case in result.cases][:2] == ["sync, process, 0 ms", "sync, process, 500 ms"]
    assert result.cases[1].speedup == pytest.approx(6.0 / 2.1)
    assert all(result.checks.values())
    timings = result.details["timings"]
    # Ours took 1.1 s longer than at 0 ms: 2.2 latencies. TRL 4 s longer: all 8 calls. 1.2 x (1 + 2 x 0.5) = 2.4.
    assert timings["ours, sync, process, 500 ms"]["waits"] == 2.2
    assert timings["TRL, async, 500 ms"]["waits"] == 8.0
    assert timings["ours, sync, thread, 500 ms"]["bound_s"] == 2.4
    assert "ours, async, inline, 500 ms" in tool_latency.bounds_table(timings)
    json.dumps(result.as_json())


def test_a_missed_bound_and_too_few_calls_show() -> None:
    late = tool_latency.summary(rollouts_of(2.41), TRIED, [0, 500], "float32")
    assert [name for name, reached in late.checks.items() if not reached] == [
        f"{kind}, 500 ms: wall ≤ 1.2 × (model time + 2 × latency)" for kind in tool_latency.KINDS
    ]
    # 2 of TRL's 4 rollouts have 3 of 4 episodes with two calls: 14 of 16 is less than 95 %.
    undrilled = tool_latency.summary(rollouts_of(2.0, two_calls=3), TRIED, [0, 500], "float32")
    assert undrilled.details["two_calls"] == {"ours": 1.0, "TRL": 0.875}
    assert undrilled.checks["TRL: at least 95% of episodes make 2 calls"] is False


def test_different_prompts_are_noticed() -> None:
    one, other = played("ours", "sync, thread", 0, 1.0), played("TRL", "sync", 0, 1.0)
    assert tool_latency.Rollouts([one, other], 4).asked_the_same
    other.data["prompts"] = 8
    assert not tool_latency.Rollouts([one, other], 4).asked_the_same


def test_sides_take_turns_and_directions_alternate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_side.py").write_text(SIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = argparse.Namespace(latencies=[0, 50], repeats=2, trl_repeats=1)
    with Worker("a_side", log=tmp_path / "a") as ours, Worker("a_side", log=tmp_path / "b") as peer:
        ours.ready()
        peer.ready()
        done = tool_latency.measure(ours, peer, options)
    order = [(one.side, one.kind, one.latency_ms, one.seed) for one in done]
    assert order[:2] == [("ours", "sync, process", 0, 1), ("ours", "sync, process", 50, 1)]
    assert order[6:10] == [
        ("TRL", "sync", 0, 1),
        ("TRL", "sync", 50, 1),
        ("TRL", "async", 0, 1),
        ("TRL", "async", 50, 1),
    ]
    assert order[10:12] == [("ours", "async, inline", 50, 2), ("ours", "async, inline", 0, 2)]
    assert len(order) == 16
    assert tool_latency.Rollouts(done, 4).timing("ours", "sync, thread", 50)["waits"] == pytest.approx(2, abs=0.9)


def test_kinds_are_those_that_ours_can_play() -> None:
    assert list(tool_latency.KINDS) == list(BINDINGS)
    assert set(tool_latency.KINDS.values()) == {"sync", "async"}


def as_drilled(ids: Sequence[int], rng: random.Random) -> list[int]:
    """Plays the task: the calls that the question asks for, by how many results are in the stream; then the answer."""
    text = CharFormat()
    said = text.decode(ids)
    names = said.rpartition("Look up ")[2].partition(".")[0].split(", then ")
    results = said.count(": shelf ")
    reply = f'!look_up {{"name": "{names[results]}"}}' if results < 2 else ANSWER
    return [*text.encode(reply), *text.stop_ids]


@pytest.mark.parametrize("kind", BINDINGS)
async def test_waiting_for_tools_overlaps(kind: str) -> None:
    actor = GeneratorActor(generator=ScriptedGenerator(as_drilled), chat_format=CharFormat())
    tools = await open_toolset([BINDINGS[kind]], TOOLS)
    try:
        await roll_out(actor, tools, items_for(8, 0, 0.0), seed=0, new=64)
        started = time.perf_counter()
        episodes = await roll_out(actor, tools, items_for(8, 1, 0.5), seed=1, new=64)
        wall_s = time.perf_counter() - started
    finally:
        await tools.close()
    played = summary(episodes)
    assert (played["two_calls"], played["calls"], played["faults"]) == (8, 16, [])
    assert all(episode.answer == ANSWER for episode in episodes)
    # Two calls of half a second each; one after the other the 16 would take 8 s.
    assert 1.0 <= wall_s < 4.0


async def test_tools_describe_themselves_as_the_task_does() -> None:
    for binding in BINDINGS.values():
        tools = await open_toolset([binding], TOOLS)
        try:
            described = tools.specs[0]
        finally:
            await tools.close()
        assert described.name == TOOL["function"]["name"]
        assert described.description == TOOL["function"]["description"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--latencies", "50"], "needs 0"), (["--episodes", "3"], "must be even")],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tool_latency.py", *arguments])
    with pytest.raises(SystemExit):
        tool_latency.main()
    assert message in capsys.readouterr().err
