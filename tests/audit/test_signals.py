from dataclasses import replace

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


def test_a_rise_is_of_the_items_that_every_point_has_and_its_error_over_them():
    points = [(0, {"a": 0.0, "b": 0.5, "c": 9.0}), (1, {"a": 0.9, "b": 0.1}), (2, {"a": 0.2, "b": 0.5, "d": 9.0})]
    # a rose by 0.2, b by 0: mean 0.1; deviation 0.2 / √2, over √2 items: 0.1. The middle of three has no part in it
    assert signals.rise(points) == pytest.approx((0.1, 0.1))
    assert signals.rise([(0, {"a": 0.0}), (4, {"a": 0.5})]) == (0.5, 0.0)
    assert signals.rise([(0, {"a": 0.0})]) == (0.0, 0.0)
    assert signals.rise([(0, {"a": 0.0}), (4, {"b": 0.5})]) == (0.0, 0.0)
    assert signals.rise([]) == (0.0, 0.0)


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


def on_items(*answers: tuple[str, ...], calls: tuple[str, ...] = ()):
    """A group for each tuple of answers."""
    groups = []
    for n, texts in enumerate(answers):
        made = [(episode(m, text=text, calls=calls), 0.0) for m, text in enumerate(texts)]
        groups.append(replace(group(*made), item=Item(id=f"i{n}", messages=())))
    return groups


def test_a_template_is_what_most_items_get():
    # "no" on 1, 1/2, 1 and 0 of four items: 2.5 / 4
    assert signals.template_share(on_items(("No ",), ("no", "a"), ("NO",), ("b",))) == pytest.approx(0.625)
    assert signals.template_share(on_items(("no",), ("no",), ("no",))) is None  # three items
    assert signals.template_share(on_items(("",), ("",), ("",), ("",))) == 0.0  # no answer is no template


def test_a_call_without_arguments_cannot_depend_on_the_item():
    answers = (("a",), ("b",), ("c",), ("d",))
    assert signals.template_share(on_items(*answers, calls=("{}",))) == 0.25
    assert signals.template_share(on_items(*answers, calls=('{"path": "/"}',))) == 1.0


def test_an_item_that_is_played_often_counts_once():
    once = on_items(("x",), ("a",), ("b",), ("c",))
    assert signals.template_share([*once, once[0], once[0]]) == 0.25


def test_kappa_by_hand():
    # 20 pairs: 8 pass both, 2 only the first, 2 only the second, 8 none. Observed 0.8, chance 0.5 · 0.5 + 0.5 · 0.5.
    pairs = [(True, True)] * 8 + [(True, False)] * 2 + [(False, True)] * 2 + [(False, False)] * 8
    assert signals.cohen_kappa(pairs) == pytest.approx(0.6)
    assert signals.cohen_kappa([(True, True)] * 20) is None  # chance is 1
    assert signals.cohen_kappa([]) is None


def test_kappa_takes_each_grader_by_its_own_threshold():
    first = [group(*[(episode(n), float(n % 2)) for n in range(20)])]
    second = [replace(first[0], grades=tuple(Grade(value=5.0 + 5.0 * (n % 2)) for n in range(20)))]
    assert signals.passing_kappa(first, second, 0.5, 8.0) == 1.0
    assert signals.passing_kappa(first, second, 0.5, 5.0) == 0.0  # the second passes all
    none = replace(first[0], grades=(Grade(value=None, reason="?"), *first[0].grades[1:]))
    assert signals.passing_kappa([none], second, 0.5, 8.0) is None  # 19 pairs
