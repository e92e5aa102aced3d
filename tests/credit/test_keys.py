from dataclasses import replace

import pytest

from agentrft.credit import view_of
from agentrft.credit.keys import calls_of, canonical, state_keys
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, ToolCall, ToolResult, Turn


def turn(*calls: tuple[str, str, str], malformed: str | None = None, text: str | None = None) -> Turn:
    """A turn with calls of (name, arguments, output)."""
    made = tuple(ToolCall(id=str(k), name=name, arguments=arguments) for k, (name, arguments, _) in enumerate(calls))
    results = tuple(ToolResult(call_id=str(k), output=output) for k, (_, _, output) in enumerate(calls))
    return Turn(reply=Message(role="assistant", content=text, tool_calls=made), results=results, malformed=malformed)


LS, CAT, END = turn(("ls", '{"path": "/"}', "a b")), turn(("cat", '{"path": "/a"}', "x")), turn(text="done")


def test_every_episode_begins_in_one_state():
    assert state_keys([LS, END])[0] == state_keys([CAT, END])[0] == state_keys([END])[0]


def test_the_same_calls_and_the_same_last_observation_are_the_same_state():
    assert state_keys([LS, END])[1] == state_keys([LS, CAT])[1]
    assert state_keys([LS, END])[1] != state_keys([CAT, END])[1]


def test_the_order_of_calls_does_not_matter_as_long_as_one_reads_the_same_last():
    first = turn(("grep", "{}", "no match"))
    one, other = state_keys([LS, CAT, first, END])[3], state_keys([CAT, LS, first, END])[3]
    assert one == other
    assert state_keys([LS, CAT, END])[2] != state_keys([CAT, LS, END])[2]  # the last observation differs


def test_a_call_made_twice_is_another_state_than_a_call_made_once():
    keys = state_keys([LS, LS, LS])
    assert len(set(keys)) == 3


def test_layout_of_arguments_and_results_does_not_matter():
    wide = turn(("ls", '{ "path" : "/" }', '{"b": 1,   "a": [1, 2]}'))
    tight = turn(("ls", '{"path":"/"}', '{"a":[1,2],"b":1}'))
    assert state_keys([wide, END]) == state_keys([tight, END])


def test_an_unreadable_reply_is_a_call_of_its_own():
    broken = turn(malformed="not JSON", text="ls(")
    assert calls_of(broken) == ("unreadable ls(",)
    assert state_keys([broken, END])[1] != state_keys([END, END])[0]


def test_a_state_that_the_tools_tell_wins_and_never_meets_one_that_was_only_seen():
    told = state_keys([LS, CAT, END], ["s0", "s1", None])
    assert told[:2] == state_keys([CAT, LS], ["s0", "s1"])
    assert told[2] == state_keys([LS, CAT, END])[2]
    assert len({*told, *state_keys([LS, CAT, END])}) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("at 2026-11-26T14:03:24Z ok", "at 2025-01-02 03:04:05.678+01:00 ok"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-0000-0000-0000-000000000000"),
        ("a\n\n  b ", "a b"),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}'),
        ("é", " é\t"),
    ],
)
def test_what_differs_between_equal_answers_is_left_out(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [("12", "13"), ("2026-11-26", "2026-11-27"), ("port 3100", "port 3101"), ("", "x")]
)
def test_what_may_matter_is_kept(one, other):
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, "\ud800", "NaN", '{"a": 1e999}', "\x00"])
def test_hostile_observations_have_keys_too(text):
    keys = state_keys([turn(("ls", text, text)), END])
    assert keys == state_keys([turn(("ls", text, text)), END])
    assert len(keys[1]) == 24


def test_a_view_of_a_played_group():
    played = (replace(LS, start=5, end=9), replace(END, start=12, end=14))
    episode = Episode(
        id="ep_1", trace_id="t", item_id="i", step=1, member=0, attempt=0, messages=(), turns=played,
        stop_reason=StopReason.ANSWERED,
    )  # fmt: skip
    group = Group(item=Item(id="i", messages=()), episodes=(episode,), grades=(Grade(value=1.0),))
    view = view_of(group, [0.5], turn_rewards_G_K=[[0.25, 0.0]])
    first, last = view.steps_G[0]
    assert view.rewards_G == (0.5,)
    assert (first.calls, first.n_tokens, first.turn_reward) == (('ls {"path":"/"}',), 4, 0.25)
    assert (last.calls, last.n_tokens, last.turn_reward) == ((), 2, 0.0)
    assert [first.state_key, last.state_key] == state_keys(played)
    with pytest.raises(ValueError, match="shorter"):
        view_of(group, [0.5], turn_rewards_G_K=[[0.25]])
