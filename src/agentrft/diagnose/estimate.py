"""What a baseline will take, from its first episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from agentrft.rollout import GradedEpisode, trained_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a provider, in USD per million tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """USD."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """For `episodes` of them."""

    episodes: int
    wall_s: float
    calls: float
    generated_tokens: float | None
    """None where tokens are not known."""
    read_tokens: float | None
    judge_tokens: float
    usd: float | None
    """None without a price."""


def estimate(
    first: Sequence[GradedEpisode],
    episodes: int,
    *,
    in_flight: int,
    counted: Sequence[tuple[int, int]] = (),
    price: Price | None = None,
) -> Estimate:
    """What `episodes` will take, `in_flight` at once, when they are like the `first`.

    `counted` is what the provider counted for some of the first: prompt and completion tokens. The first to end are the
    shortest, so everything is a little low.
    """
    share = episodes / len(first)
    generated: list[int] = [completion for _, completion in counted]
    read: list[int] = [prompt for prompt, _ in counted]
    for one in first if not counted else ():
        if one.episode.tokens is not None:
            generated.append(trained_tokens(one.episode))
            read.append(len(one.episode.tokens.ids) - generated[-1])
    mean_generated = math.fsum(generated) / len(generated) if generated else None
    mean_read = math.fsum(read) / len(read) if read else None
    judge = sum(used.total_tokens for one in first for used in one.grade.token_usage.values())
    usd = None
    if price is not None and mean_generated is not None and mean_read is not None:
        usd = episodes * price.of(mean_read, mean_generated)
    return Estimate(
        episodes=episodes,
        wall_s=episodes / min(in_flight, episodes) * fmean(one.episode.wall_s + one.grade.wall_s for one in first),
        calls=share * sum(one.episode.n_calls for one in first),
        generated_tokens=None if mean_generated is None else episodes * mean_generated,
        read_tokens=None if mean_read is None else episodes * mean_read,
        judge_tokens=share * judge,
        usd=usd,
    )
