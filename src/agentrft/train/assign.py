"""From what groups earned to rows: rewards → credit of every turn → one scale → credit of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.credit import METHODS, Credited, CreditFunction, GroupView, RewardScale
from agentrft.losses import PolicyLoss, penalised_rewards, row_divisors, row_kl, scaled_credit
from agentrft.protocols import Learner
from agentrft.rollout import row_of, trained_tokens
from agentrft.train.played import Played
from agentrft.train.reference_answers import ReferenceAnswers
from agentrft.types import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The credit of one optimiser step."""

    views: Sequence[GroupView]
    """What it was made from, by group."""
    credited: Credited
    """In units of reward, with its parts."""
    advantages_I_G_K: Sequence[Sequence[Sequence[float]]]
    """The same after scaling: for every group, member and turn."""
    scale: RewardScale
    """The run-wide scale, this step included; kept up whether the loss uses it or not."""


async def views_of(
    loss: PolicyLoss, learner: Learner, played: Sequence[Played], reference: ReferenceAnswers | None = None
) -> list[GroupView]:
    """What credit sees of each group; where the loss prices the distance to the reference, rewards are less that.

    With a `reference` answer, how likely it was before each turn.
    """
    rewards_I_G = [one.rewards_G for one in played]
    if loss.reward_kl_coef and played:
        rows_R = rows_of(loss, played, [[[0.0] * len(e.turns) for e in one.group.episodes] for one in played])
        kl_R = row_kl(rows_R, await learner.log_probs(rows_R, reference=True))
        rewards_I_G = penalised_rewards(rewards_I_G, kl_R, loss.reward_kl_coef)
    if reference is None:
        return [one.view(rewards_G) for one, rewards_G in zip(played, rewards_I_G, strict=True)]
    likely_I_G_K = await reference.log_probs(learner, played)
    return [
        one.view(rewards_G, likely_G_K)
        for one, rewards_G, likely_G_K in zip(played, rewards_I_G, likely_I_G_K, strict=True)
    ]


def assign_credit(loss: PolicyLoss, credit: CreditFunction, views: Sequence[GroupView], scale: RewardScale) -> Assigned:
    """The advantage of every turn; a loss that is defined with a credit of its own takes that instead of `credit`."""
    credited = (METHODS[loss.credit] if loss.credit else credit)(views)
    scale = scale.updated([view.rewards_G for view in views], credited.basis_I_G)
    if loss.scale == "run":
        advantages_I_G_K = [[scale.advantages(c_K) for c_K in c_G_K] for c_G_K in credited.credit_I_G_K]
    else:
        advantages_I_G_K = _scaled(loss, views, credited)
    return Assigned(views=views, credited=credited, advantages_I_G_K=advantages_I_G_K, scale=scale)


def rows_of(
    loss: PolicyLoss, played: Sequence[Played], advantages_I_G_K: Sequence[Sequence[Sequence[float]]]
) -> list[Row]:
    """The members with a reward as rows, by (seat, member); each token gets its turn's advantage / the normaliser.

    The default is the token mean over the whole step: long episodes count by their length. The loss is a plain sum.
    """
    credited = [
        (one.key, episode, advantages_K)
        for one, advantages_G_K in zip(played, advantages_I_G_K, strict=True)
        for episode, reward, advantages_K in zip(one.group.episodes, one.rewards_G, advantages_G_K, strict=True)
        if reward is not None
    ]
    divisors_R = row_divisors(loss, [trained_tokens(episode) for _, episode, _ in credited])
    return [
        row_of(episode, [advantage / divisor for advantage in advantages_K], group=key)
        for (key, episode, advantages_K), divisor in zip(credited, divisors_R, strict=True)
    ]


def _scaled(loss: PolicyLoss, views: Sequence[GroupView], credited: Credited) -> list[list[list[float]]]:
    """`scaled_credit`, each turn in its member's place."""
    per_turn = [
        [
            (reward, credit, step.n_tokens)
            for reward, credit_K, steps in zip(view.rewards_G, credit_G_K, view.steps_G, strict=True)
            for credit, step in zip(credit_K, steps, strict=True)
        ]
        for view, credit_G_K in zip(views, credited.credit_I_G_K, strict=True)
    ]
    # Over a batch every turn is one more number; a group's own deviation and mean are those of its members' rewards.
    of_turns = [[reward for reward, _, _ in turns] for turns in per_turn]
    flat = scaled_credit(
        loss.scale,
        of_turns if loss.scale == "batch" else [view.rewards_G for view in views],
        [[credit for _, credit, _ in turns] for turns in per_turn],
        [[tokens for _, _, tokens in turns] for turns in per_turn],
    )
    advantages = [iter(turns) for turns in flat]
    return [
        [[next(of_group) for _ in steps] for steps in view.steps_G]
        for view, of_group in zip(views, advantages, strict=True)
    ]
