import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.credit import PenaltiesSpec, Usage, reward_after, reward_of, usage_of
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, ToolResult, Turn


@pytest.mark.parametrize(
    ("grade", "stop_reason", "reward"),
    [
        (0.8, StopReason.ANSWERED, 0.8),
        (-0.3, StopReason.ANSWERED, -0.3),
        (0.8, StopReason.MALFORMED, 0.8),  # not cut off by a limit: whatever the grader thinks of it
        (0.8, StopReason.MAX_TURNS, 0.0),
        (0.8, StopReason.MAX_REPLY_TOKENS, 0.0),
        (0.8, StopReason.MAX_EPISODE_TOKENS, 0.0),
        (0.8, StopReason.MAX_TIME, 0.0),
        (-0.3, StopReason.MAX_TURNS, -0.3),
    ],
)
def test_truncation_never_pays(grade, stop_reason, reward):
    assert reward_of(Grade(value=grade), stop_reason) == reward


def test_no_grade_is_no_reward_not_zero():
    assert reward_of(Grade(value=None, reason="judge unreadable"), StopReason.ANSWERED) is None
    assert reward_of(Grade(value=None, reason="fault"), StopReason.MAX_TURNS) is None


def reward(grade: float, *, stop=StopReason.ANSWERED, usage=None, parts=None, **settings):
    spec = PenaltiesSpec.model_validate(settings)
    return reward_after(Grade(value=grade, sub_grades=parts or {}), stop, usage or Usage(), spec)


GRADES = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.none() | GRADES, st.sampled_from(StopReason))
def test_without_settings_it_is_the_default_rule(value, stop):
    grade = Grade(value=value, reason="none" if value is None else None)
    assert reward_after(grade, stop, Usage(calls=99), PenaltiesSpec()).value == reward_of(grade, stop)


def test_a_call_budget_by_hand():
    # 2 free, budget 6: 4 calls are half way, half of 0.2 = 0.1 of what was earned
    cost = {"calls": {"weight": 0.2, "free": 2, "budget": 6}}
    assert reward(1.0, usage=Usage(calls=4), **cost).value == pytest.approx(0.9)
    assert reward(0.5, usage=Usage(calls=4), **cost).value == pytest.approx(0.45)
    assert reward(1.0, usage=Usage(calls=2), **cost).value == 1.0
    assert reward(1.0, usage=Usage(calls=60), **cost).value == pytest.approx(0.8)


def test_failing_costs_nothing_so_nothing_presses_for_shortness_before_success():
    cost = {"calls": {"weight": 0.2, "budget": 6}, "tokens": {"weight": 0.3, "budget": 100}}
    for grade in (0.0, -1.0):
        short, long = (reward(grade, usage=Usage(calls=n, tokens=100 * n), **cost).value for n in (1, 6))
        assert short == long == grade


def test_length_and_latency_by_hand():
    # 50 of 100 tokens: 0.15; 3 s of 4 s: 0.075
    costs = {"tokens": {"weight": 0.3, "budget": 100}, "tool_seconds": {"weight": 0.1, "budget": 4}}
    shaped = reward(1.0, usage=Usage(tokens=50, tool_seconds=3.0), **costs)
    assert shaped.value == pytest.approx(0.775)
    assert shaped.parts == pytest.approx({"grade": 1.0, "tokens": -0.15, "tool_seconds": -0.075})


def test_cost_of_a_tool_by_hand():
    # web 3 × 0.05 = 0.15; cat costs nothing; 9 × 0.05 stops at 0.3
    tools = {"tools": {"each": {"web": 0.05}, "most": 0.3}}
    assert reward(1.0, usage=Usage(by_tool={"web": 3, "cat": 7}), **tools).value == pytest.approx(0.85)
    assert reward(1.0, usage=Usage(by_tool={"web": 9}), **tools).value == pytest.approx(0.7)


def test_process_by_hand():
    # 3 of 4 calls valid: a quarter of 0.1 of the reward; without calls all is well
    assert reward(0.8, usage=Usage(calls=4, valid_calls=3), process=0.1).value == pytest.approx(0.78)
    assert reward(0.8, usage=Usage(), process=0.1).value == 0.8


def test_a_shut_gate_multiplies_what_was_earned():
    gates = {"gates": [{"part": "safe", "at_least": 0.5, "factor": 0.25}]}
    assert reward(0.8, parts={"safe": 0.5}, **gates).value == 0.8
    shut = reward(0.8, parts={"safe": 0.4}, **gates)
    assert shut.value == pytest.approx(0.2)
    assert shut.parts == pytest.approx({"grade": 0.8, "gate:safe": -0.6})
    assert reward(0.8, **gates).value == pytest.approx(0.2)  # a part without a grade opens nothing
    assert reward(-0.5, **gates).value == -0.5  # and no gate makes a failure better


def test_a_grader_with_another_range_by_hand():
    # Grades 0 … 10: 5 is half a success, which earned 5; 0.2 of it
    cost = {"success_range": [0, 10], "calls": {"weight": 0.2, "budget": 4}}
    assert reward(5.0, usage=Usage(calls=4), **cost).value == pytest.approx(4.0)
    # −1 … 1: 0 is half a success, 1 above the worst; 0.2 of that
    cost["success_range"] = [-1, 1]
    assert reward(0.0, usage=Usage(calls=4), **cost).value == pytest.approx(-0.2)


def test_rules_for_truncated_episodes():
    cut = StopReason.MAX_TURNS
    assert reward(0.8, stop=cut, truncated="grade").value == 0.8
    assert reward(0.8, stop=cut, truncated="leave_out").value is None
    assert reward(0.8, truncated="leave_out").value == 0.8
    assert reward(0.8, stop=cut).parts == {"grade": 0.8, "truncated": -0.8}


SHARE = st.floats(0.01, 0.2)
USAGE = st.builds(
    Usage,
    calls=st.integers(0, 1000),
    tokens=st.integers(0, 10**6),
    tool_seconds=st.floats(0, 1e6),
    by_tool=st.dictionaries(st.sampled_from(["web", "cat"]), st.integers(0, 1000)),
)


@given(st.floats(-1, 1), SHARE, SHARE, SHARE, USAGE, st.booleans(), st.sampled_from(StopReason))
def test_parts_add_up_and_penalties_never_pay(grade, calls, tokens, tool, usage, is_safe, stop):
    shaped = reward(
        grade,
        stop=stop,
        usage=usage,
        parts={"safe": float(is_safe)},
        calls={"weight": calls, "budget": 5},
        tokens={"weight": tokens, "budget": 500, "free": 100},
        tools={"each": {"web": tool}},
        gates=[{"part": "safe", "at_least": 1.0}],
    )
    assert sum(shaped.parts.values()) == pytest.approx(shaped.value)
    assert shaped.value <= grade
    assert shaped.value == grade or grade > 0
    assert shaped.value >= min(grade, 0.0)


def test_what_an_episode_used():
    def turn(start, end, *calls, malformed=None, errors=()):
        made = tuple(ToolCall(id=name, name=name, arguments="{}") for name in calls)
        results = tuple(
            ToolResult(call_id=name, output="", is_error=name in errors, wall_s=0.5) for name in (calls or ("?",))
        )
        reply = Message(role="assistant", tool_calls=made)
        return Turn(reply=reply, results=results, malformed=malformed, start=start, end=end)

    turns = (turn(3, 7, "cat", "web", errors=("web",)), turn(9, 10, malformed="unreadable"), turn(12, 20, "cat"))
    episode = Episode(
        id="e", trace_id="t", item_id="i", step=1, member=0, attempt=0, messages=(), turns=turns,
        stop_reason=StopReason.MAX_TURNS,
    )  # fmt: skip
    # 2 calls, 1 unreadable, 1 call; 4 + 1 + 8 tokens; three results of half a second; one of them a mistake
    assert usage_of(episode) == Usage(calls=4, tokens=13, tool_seconds=1.5, valid_calls=2, by_tool={"cat": 2, "web": 1})
