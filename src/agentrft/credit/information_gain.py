"""Information gain: a turn earns what it adds to the probability of the reference answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from agentrft.credit.turn_returns import returns_over
from agentrft.credit.view import Credited, GroupView, StepView
from agentrft.errors import UserError

CAP = 0.5
"""Largest gain of one turn, so that the episode's own reward stays the larger part."""


def information_gain(groups: Sequence[GroupView], *, weight: float, form: Literal["gain", "potential"]) -> Credited:
    """`turn_returns` (γ = 1) of the turn rewards w·(p_{k+1} − p_k), p_k = exp(mean log-prob of the reference answer).

    p_k is what the policy gives the reference answer before turn k, p_{k+1} after its tool results. `gain`: the last
    turn earns the episode's reward only, and a gain is at most ± 0.5; what is optimised is reward + w·(last p − p_0),
    so it is biased towards making the answer likely. `potential`: the last turn gives p back, so that p_k only serves
    as a baseline, nothing is capped, and the mean gradient is that of the reward alone (Ng, Harada and Russell 1999).
    Source: IGPO, arXiv:2510.14967, without normalising before the sum.

    Raises UserError where a turn of a graded member has no reference log-prob. A reference that stands in the prompt
    can be copied: look at p_0 first.
    """
    shaped = [
        replace(
            group,
            steps_G=tuple(
                steps if reward is None else _with_gains(steps, weight, form)
                for reward, steps in zip(group.rewards_G, group.steps_G, strict=True)
            ),
        )
        for group in groups
    ]
    return returns_over(shaped, 1.0, of_turns="shaping")


def _with_gains(steps: Sequence[StepView], weight: float, form: str) -> tuple[StepView, ...]:
    likely_K = [_probability(step, turn) for turn, step in enumerate(steps)]
    gains_K = [after - before for before, after in pairwise(likely_K)]
    if form == "gain":
        gains_K = [max(-CAP, min(CAP, gain)) for gain in gains_K] + [0.0 for _ in likely_K[-1:]]
    else:
        gains_K += [-likely for likely in likely_K[-1:]]
    return tuple(
        replace(step, turn_reward=step.turn_reward + weight * gain) for step, gain in zip(steps, gains_K, strict=True)
    )


def _probability(step: StepView, turn: int) -> float:
    log_prob = step.reference_log_prob
    if log_prob is None or math.isnan(log_prob):
        raise UserError(
            f"credit information_gain: turn {turn} has no log-prob of the reference answer; every training row needs "
            "the field that `training.credit.reference` names, with a text",
            param="training.credit",
            code="invalid_credit",
        )
    return math.exp(min(log_prob, 0.0))
