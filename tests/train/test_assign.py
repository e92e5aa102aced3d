"""From rewards to rows, by hand: two members with two turns and one with none that counts."""

import math

import pytest

from agentrft.credit import METHODS, Credited, PenaltiesSpec, RewardScale
from agentrft.losses import (
    DapoLoss,
    DrGrpoLoss,
    GrpoLoss,
    MaxrlLoss,
    PolicyGradientLoss,
    ReinforcePpLoss,
    RlooLoss,
    scaled_credit,
)
from agentrft.rollout import Seat
from agentrft.train.assign import assign_credit, rows_of, views_of
from agentrft.train.played import Crediting, Played
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, TokenTrace, ToolResult, Turn

ITEM = Item(id="row-1", messages=(Message(role="user", content="?"),))
SAID = Message(role="assistant", content="x")


def episode(member: int, turn_tokens: tuple[int, ...], stop: StopReason = StopReason.ANSWERED) -> Episode:
    """Two prompt tokens, then every turn's tokens and one token of a result after each."""
    ids, trained, turns = [7, 7], [False, False], []
    for tokens in turn_tokens:
        start = len(ids)
        ids += [1] * tokens + [9]
        trained += [True] * tokens + [False]
        results = (ToolResult(call_id="c", output=f"{member}"),)
        turns.append(Turn(reply=SAID, results=results, start=start, end=start + tokens))
    log_probs = [-1.0 if one else 0.0 for one in trained]
    trace = TokenTrace(ids=ids, trained=trained, log_probs=log_probs, prompt_tokens=2, policy_version=0)
    return Episode(
        id=f"ep_{member}", trace_id="t", item_id="row-1", step=1, member=member, attempt=0, messages=ITEM.messages,
        turns=tuple(turns), stop_reason=stop, tokens=trace,
    )  # fmt: skip


def played(*members: tuple[tuple[int, ...], float | None], crediting: Crediting | None = None) -> Played:
    episodes = tuple(episode(member, tokens) for member, (tokens, _) in enumerate(members))
    grades = tuple(Grade(value=None, reason="none") if v is None else Grade(value=v) for _, v in members)
    group = Group(item=ITEM, episodes=episodes, grades=grades)
    return (crediting or Crediting()).played(Seat(index=0, item=ITEM), group, PenaltiesSpec())


class Reference:
    """A learner whose reference gives every trained token the same log-prob."""

    def __init__(self, log_prob: float) -> None:
        self.log_prob = log_prob

    async def log_probs(self, rows, *, reference):
        assert reference
        return [[self.log_prob if trained else 0.0 for trained in row.trained] for row in rows]


def by_turn(*credit_G_K):
    """A credit function that gives these numbers, whatever the group."""

    def credit(groups):
        parts = [[[{"trajectory": value} for value in credit_K] for credit_K in credit_G_K] for _ in groups]
        return Credited(parts_I_G_K=parts, basis_I_G=[[0.5, -0.5, 0.0] for _ in groups])

    return credit


THREE = (((2, 1), 1.0), ((3, 2), 0.0), ((4,), None))


async def test_the_default_is_the_token_mean_of_one_credit_per_episode():
    one = played(*THREE)
    views = await views_of(PolicyGradientLoss(), Reference(-9.0), [one])
    assigned = assign_credit(PolicyGradientLoss(), METHODS["group_mean"], views, RewardScale())
    # Rewards 1 and 0: credits ±0.5, their RMS 0.5, advantages ±1; 3 + 5 trained tokens; the ungraded one is no row.
    assert assigned.advantages_I_G_K == [[[1.0, 1.0], [-1.0, -1.0], [0.0]]]
    rows = rows_of(PolicyGradientLoss(), [one], assigned.advantages_I_G_K)
    assert [list(row.credit) for row in rows] == [
        [0, 0, 1 / 8, 1 / 8, 0, 1 / 8, 0],
        [0, 0, -1 / 8, -1 / 8, -1 / 8, 0, -1 / 8, -1 / 8, 0],
    ]
    assert {(row.group, row.unit) for row in rows} == {("row-1#0", "ep_0"), ("row-1#0", "ep_1")}


async def test_turns_may_earn_differently_and_the_scale_is_that_of_the_rewards():
    one = played(*THREE)
    views = await views_of(PolicyGradientLoss(), Reference(0.0), [one])
    assigned = assign_credit(PolicyGradientLoss(), by_turn([0.5, 1.0], [-0.5, 0.25], [0.0]), views, RewardScale())
    assert assigned.scale.rms == 0.5
    rows = rows_of(PolicyGradientLoss(), [one], assigned.advantages_I_G_K)
    assert list(rows[0].credit) == [0, 0, 1 / 8, 1 / 8, 0, 2 / 8, 0]
    assert list(rows[1].credit) == [0, 0, -1 / 8, -1 / 8, -1 / 8, 0, 0.5 / 8, 0.5 / 8, 0]


async def test_a_groups_own_scale_divides_every_turn():
    one = played(*THREE)
    views = await views_of(GrpoLoss(), Reference(0.0), [one])
    credit = by_turn([0.5, 1.0], [-0.5, 0.25], [0.0])
    deviation = math.sqrt(0.5) + 1e-4  # of 1 and 0, n − 1
    assigned = assign_credit(GrpoLoss(), credit, views, RewardScale())
    expected = [[0.5 / deviation, 1.0 / deviation], [-0.5 / deviation, 0.25 / deviation], [0.0]]
    assert assigned.advantages_I_G_K == [[pytest.approx(turns) for turns in expected]]
    # Mean of row means: 2 rows, of 3 and 5 tokens.
    rows = rows_of(GrpoLoss(), [one], assigned.advantages_I_G_K)
    assert rows[0].credit[5] == pytest.approx(1.0 / deviation / (2 * 3))
    assert rows[1].credit[6] == pytest.approx(0.25 / deviation / (2 * 5))
    assert rows_of(DrGrpoLoss(row_tokens=10), [one], assigned.advantages_I_G_K)[0].credit[5] == pytest.approx(
        1.0 / deviation / (2 * 10)
    )


@pytest.mark.parametrize("loss", [GrpoLoss(), DapoLoss(), DrGrpoLoss(), RlooLoss(), MaxrlLoss(), ReinforcePpLoss()])
async def test_one_credit_per_episode_is_scaled_as_the_loss_says(loss):
    groups = [played(*THREE), played(((1,), 0.25), ((6, 1), 0.5), ((2,), 0.75))]
    views = await views_of(loss, Reference(0.0), groups)
    assigned = assign_credit(loss, METHODS["group_mean"], views, RewardScale())
    credit_I_G = METHODS[loss.credit or "group_mean"](views).basis_I_G
    rewards_I_G = [list(view.rewards_G) for view in views]
    expected = scaled_credit(loss.scale, rewards_I_G, credit_I_G, [[3, 5, 4], [1, 7, 2]])
    for advantages_G_K, expected_G in zip(assigned.advantages_I_G_K, expected, strict=True):
        for advantages_K, of_member in zip(advantages_G_K, expected_G, strict=True):
            assert list(advantages_K) == pytest.approx([of_member] * len(advantages_K), abs=1e-12)


async def test_a_loss_with_a_credit_of_its_own_takes_that():
    views = await views_of(RlooLoss(), Reference(0.0), [played(*THREE)])
    assert assign_credit(RlooLoss(), METHODS["group_mean"], views, RewardScale()).advantages_I_G_K == [
        [[1.0, 1.0], [-1.0, -1.0], [0.0]]
    ]


async def test_the_distance_to_the_reference_is_paid_from_the_reward_before_credit():
    loss = PolicyGradientLoss(kl_coef=0.1)
    [view] = await views_of(loss, Reference(-3.0), [played(*THREE)])
    # Every token is 2 nats likelier than under the reference: 3 and 5 tokens cost 0.1 · 6 and 0.1 · 10.
    assert view.rewards_G == (pytest.approx(0.4), pytest.approx(-1.0), None)


async def test_nothing_played_is_no_credit():
    views = await views_of(PolicyGradientLoss(kl_coef=0.1), Reference(0.0), [])
    scale = RewardScale(rms=0.3, steps=2)
    assigned = assign_credit(PolicyGradientLoss(), METHODS["group_mean"], views, scale)
    assert (assigned.advantages_I_G_K, assigned.scale) == ([], scale)
    assert rows_of(PolicyGradientLoss(), [], []) == []


def test_turn_rewards_alone_are_signal():
    same = (((1,), 0.5), ((1, 1), 0.5))
    assert not played(*same).has_signal
    crediting = Crediting(turn_rewards=lambda group: [[0.1] * len(e.turns) for e in group.episodes])
    assert played(*same, crediting=crediting).has_signal
    balanced = Crediting(turn_rewards=lambda group: [[0.2 / len(e.turns)] * len(e.turns) for e in group.episodes])
    assert not played(*same, crediting=balanced).has_signal
