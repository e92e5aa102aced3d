"""What a policy would have done to recorded episodes."""

from __future__ import annotations

from agentrft.tools import Guardrails, Policy
from agentrft.tools.guardrails.replay import replay, replay_all
from agentrft.types import Episode, Item, Message, StopReason, ToolCall, ToolResult, Turn

PROMPT = (Message(role="user", content="Refund A-17."),)


def episode(id: str, *calls: tuple[str, str, str]) -> Episode:
    """An episode of (tool, arguments, output), one call a turn."""
    turns, messages = [], list(PROMPT)
    for k, (name, arguments, output) in enumerate(calls):
        call = ToolCall(id=f"call_{k}_0", name=name, arguments=arguments)
        reply = Message(role="assistant", tool_calls=(call,))
        result = ToolResult(call_id=call.id, output=output, is_error=output.startswith("error"))
        turns.append(Turn(reply=reply, results=(result,)))
        messages += [reply, Message(role="tool", content=output, tool_call_id=call.id)]
    return Episode(
        id=id,
        trace_id="t",
        item_id="i",
        step=0,
        member=0,
        attempt=0,
        messages=tuple(messages),
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
    )


def policy(**rules: object) -> Policy:
    return Policy(guardrails=Guardrails.model_validate(rules))


def test_recorded_outputs_feed_the_rules() -> None:
    rules = policy(tools={"*": {}, "refund": {"args": {"id": {"seen_in": ["find"]}}}})
    refund = ("refund", '{"id": "B-2"}', "ok")
    played = episode("e", refund, ("find", "{}", "B-2 open"), refund)
    fired = replay(played, Item(id="i", messages=PROMPT), rules)
    assert [(one.turn, one.rule) for one in fired] == [(1, "tools.refund.args.id")]


def test_counts_by_success() -> None:
    good = episode("good", ("find", "{}", "x"), ("find", "{}", "x"), ("find", "{}", "x"))
    bad = episode("bad", ("find", "{}", "x"), ("drop", "{}", "gone"), ("broken", "{not json", "error: no"))
    rules = policy(deny=["drop"], loops={"same_call_same_result": 2})
    report = replay_all([(good, True), (bad, False), (bad, False)], rules)
    assert (report.succeeded, report.failed) == (1, 2)
    assert [(r.name, r.calls, r.succeeded, r.failed) for r in report.rules] == [
        ("deny", 2, 0, 1),
        ("loops.same_call_same_result", 1, 1, 0),
    ]
    assert report.rules[0].example.call.name == "drop"
    assert report.to_json()["rules"][0]["example"]["episode_id"] == "bad"


def test_nothing_fires_on_plain_episodes() -> None:
    assert replay_all([(episode("e", ("find", "{}", "x")), True)], policy()).rules == ()
