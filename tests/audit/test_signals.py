import pytest

from agentrft.audit import signals
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, TokenTrace, ToolCall, Turn


def episode(member: int, *, calls: tuple[str, ...] = (), text: str = "", log_probs: tuple[float, ...] = (-1.0,)):
    turns = [
        Turn(reply=Message(role="assistant", tool_calls=(ToolCall(id="c", name="p", arguments=a),)), start=0, end=1)
        for a in calls
    ]
    turns.append(Turn(reply=Message(role="assistant", content=text), start=1, end=len(log_probs)))
    n = len(log_probs)
    trace = TokenTrace(ids=[1] * n, trained=[True] * n, log_probs=log_probs, prompt_tokens=0, policy_version=0)
    return Episode(
        id=f"ep_{member}", trace_id="t", item_id="i", step=1, member=member, attempt=0, messages=(),
        turns=tuple(turns), stop_reason=StopReason.ANSWERED, tokens=trace,
    )  # fmt: skip


def group(*pairs, canary: bool = False):
    return Group(
        item=Item(id="i", messages=(), fields={"canary": canary}),
        episodes=tuple(one for one, _ in pairs),
        grades=tuple(Grade(value=value) for _, value in pairs),
    )


def test_slope_is_least_squares():
    # x mean 1, y mean 1: Σ(x−1)(y−1) = 1 + 0 + 1 = 2, Σ(x−1)² = 2
    assert signals.slope([(0, 0.0), (1, 1.0), (2, 2.0)]) == 1.0
    assert signals.slope([(3, 5.0)]) == 0.0


def test_spearman_shares_the_ranks_of_ties():
    assert signals.spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    # ranks 1, 2.5, 2.5 and 1, 2, 3, centre 2: product 1 + 0 + 0.5 = 1.5; squares 1.5 and 2; 1.5 / √3
    assert signals.spearman([0, 1, 1], [1, 2, 3]) == pytest.approx(0.8660254)
    assert signals.spearman([1, 1], [1, 2]) is None


def test_reward_goes_with_length_and_calls():
    short, long = episode(0), episode(1, calls=("{}",), log_probs=(-1.0, -1.0))
    assert signals.reward_length_rho([group((short, 0.0), (long, 1.0))]) == pytest.approx(1.0)
    assert signals.reward_calls_rho([group((short, 1.0), (long, 0.0))]) == pytest.approx(-1.0)


def test_diversity_counts_canonical_sequences():
    # the order of keys and spaces do not count: 2 distinct of 3
    calls = ('{"a":1,"b":2}', '{"b": 2, "a": 1}', '{"a":3}')
    members = [(episode(i, calls=(call,)), 0.0) for i, call in enumerate(calls)]
    assert signals.signature_diversity([group(*members)]) == pytest.approx(2 / 3)


def test_entropy_is_estimated_where_tools_are_called():
    # only the token of the calling reply counts: −(−0.5)
    one = episode(0, calls=("{}",), log_probs=(-0.5, -9.0))
    assert signals.decision_entropy_estimate([group((one, 1.0))]) == 0.5
    assert signals.decision_entropy_estimate([group((episode(0), 1.0))]) is None


def test_only_a_rewarded_canary_counts():
    pairs = ((episode(0), 0.0), (episode(1), 0.3))
    assert signals.canaries_rewarded([group(*pairs, canary=True), group(*pairs)]) == ["ep_1"]


def test_a_new_word_of_winners_emerges():
    winners = [(episode(i, text="say please"), 1.0) for i in range(10)]
    losers = [(episode(10 + i, text="say"), 0.0) for i in range(10)]
    found = signals.emergent_ngrams([group(*winners, *losers)], {"say": 20}, 20, ratio=10.0)
    # now 10.5 / 21 = 0.5, at the start 0.5 / 21: 21 times; "say" is in all and goes with nothing
    assert found.keys() == {"please", "say please"}
    assert found["please"][0] == pytest.approx(21.0)
    assert found["please"][1] == [f"ep_{i}" for i in range(10)]
