import math

import pytest

from agentrft.credit import PenaltiesSpec, RewardScale
from agentrft.protocols import BackwardReport, OptimReport
from agentrft.rollout import Seat
from agentrft.train.metrics import (
    METRICS,
    credit_metrics,
    readable_fraction,
    rollout_metrics,
    update_metrics,
)
from agentrft.train.played import Crediting, Played, differ
from agentrft.types import Episode, Grade, Group, Intervention, Item, Message, Row, StopReason, ToolResult, Turn

REPLY = Message(role="assistant", content="x")
WATCHED = Intervention(rule="injection", message="m", enforced=False)
SEEN = (
    ToolResult(call_id="c", output="o", wall_s=0.4, interventions=(WATCHED,)),
    ToolResult(call_id="d", output="error: no", wall_s=9.0, is_error=True, tries=0),
)
GOOD, ANSWER, BROKEN = Turn(reply=REPLY, results=SEEN), Turn(reply=REPLY), Turn(reply=REPLY, malformed="?")


def episode(stop=StopReason.ANSWERED, turns=(ANSWER,)) -> Episode:
    return Episode(
        id="ep", trace_id="t", item_id="i", step=0, member=0, attempt=0, messages=(), turns=turns, stop_reason=stop
    )


def group(*members: tuple[Episode, float | None]) -> Played:
    grades = [Grade(value=None, reason="none") if value is None else Grade(value=value) for _, value in members]
    item = Item(id="i", messages=())
    played = Group(item=item, episodes=tuple(one for one, _ in members), grades=tuple(grades))
    return Crediting().played(Seat(index=0, item=item), played, PenaltiesSpec())


def test_what_rollouts_say_by_hand():
    groups = [
        # rewards 1 and min(0.6, 0) = 0: signal
        group((episode(turns=(GOOD, ANSWER)), 1.0), (episode(StopReason.MAX_TURNS, (BROKEN, GOOD)), 0.6)),
        # a fault and an episode without a grade: no signal
        group((episode(StopReason.FAULT, ()), None), (episode(), None)),
    ]
    assert rollout_metrics(groups, 2.5, pass_threshold=0.5) == pytest.approx(
        {
            "reward_mean": 0.5,  # (1 + 0) / 2
            "success_rate": 1.0,  # both grades reach 0.5
            "calls_mean": 1 / 3,  # 0, 1 unreadable, 0 over the three that are no fault
            "tool_error_frac": 1 / 2,  # of the two results in each of two episodes
            "tool_call_s": 0.4,  # the other call was not made
            "interventions_mean": 2 / 3,
            "readable_frac": 2.5 / 3,  # 1, 1/2, 1
            "trunc_frac": 1 / 4,
            "fault_frac": 1 / 4,
            "no_grade_frac": 1 / 4,
            "signal_frac": 1 / 2,
            "groups": 2,
            "tokens_generated": 0,
            "rollout_s": 2.5,
        }
    )


def test_means_over_nothing_are_left_out():
    metrics = rollout_metrics([group((episode(StopReason.FAULT, ()), None))], 1.0, pass_threshold=0.5)
    assert metrics["fault_frac"] == 1.0
    assert not {"reward_mean", "success_rate", "calls_mean", "readable_frac"} & metrics.keys()


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.5, 0.5], False),
        ([0.5, 0.5 + 1e-7], False),
        ([0.5, 0.5 + 1e-5], True),
        ([0.5, None], False),
        ([None, None], False),
        ([0.1, None, 0.2], True),
    ],
)
def test_signal_needs_two_rewards_that_differ(rewards, expected):
    assert differ(rewards) is expected
    assert group(*((episode(), value) for value in rewards)).has_signal is expected


@pytest.mark.parametrize(
    ("stop", "turns", "expected"),
    [
        (StopReason.ANSWERED, (GOOD, ANSWER), 1.0),
        (StopReason.MALFORMED, (BROKEN, BROKEN), 0.0),
        (StopReason.MAX_REPLY_TOKENS, (GOOD, ANSWER), 0.5),  # the last reply was cut off
        (StopReason.MAX_EPISODE_TOKENS, (GOOD, ANSWER), 0.5),
        (StopReason.MAX_EPISODE_TOKENS, (GOOD, GOOD), 1.0),  # the result did not fit: the reply was whole
        (StopReason.MAX_TURNS, (GOOD, ANSWER), 1.0),  # the last call was readable, just not executed
        (StopReason.MAX_TIME, (), None),
    ],
)
def test_readable_replies(stop, turns, expected):
    assert readable_fraction(episode(stop, turns)) == expected


def row(log_probs: list[float]) -> Row:
    trained = [value != 0.0 for value in log_probs]
    return Row(ids=[1] * len(log_probs), trained=trained, log_probs=log_probs, credit=log_probs, unit="u", group="g")


def test_what_credit_says_by_hand():
    metrics = credit_metrics(
        [row([0.0, -1.0, -3.0])], [[[1.0, 1.0], [-1.0]], [[0.7, 0.1], [-0.5]]], RewardScale(rms=0.25, steps=1)
    )
    # √((1 + 1 + (0.49 + 0.01)/2 + 0.25)/4); (1 + 3)/2
    assert metrics == pytest.approx({"adv_rms": math.sqrt(0.625), "reward_scale": 0.25, "entropy": 2.0})
    assert credit_metrics([], [], RewardScale()) == {}


def test_what_an_update_says_by_hand():
    report = BackwardReport(
        log_probs=[[0.0, -1.5, -3.0], [-0.25]],
        gradients=[[0.0, -0.5, 0.0], [0.25]],
        loss=0.5,
        metrics={"masked_frac": 0.25, "kl_mu_k3": 0.01, "weight": 1.1, "weight_sq": 1.25},
        unique_tokens=3,
        row_tokens=4,
        micro_batches=1,
        wall_s=0.1,
    )
    metrics = update_metrics(
        [row([0.0, -1.0, -3.0]), row([-0.5])], report, OptimReport(grad_norm=2.0, policy_version=1), 1e-4
    )
    assert metrics["ess"] == pytest.approx(1.21 / 1.25)
    assert metrics["log_prob_gap_max"] == 0.5
    assert (metrics["tokens_trained"], metrics["tokens_rows"], metrics["tokens_unique"]) == (3, 4, 3)
    assert (metrics["loss"], metrics["grad_norm"], metrics["learning_rate"]) == (0.5, 2.0, 1e-4)
    assert metrics.keys() <= METRICS.keys()


def test_every_metric_has_a_unit_and_a_meaning():
    assert all(metric.unit and metric.meaning for metric in METRICS.values())
