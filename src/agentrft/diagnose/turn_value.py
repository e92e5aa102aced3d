"""What one decision was worth: rewards of episodes that go on from before a turn, and from after it.

Before the turn the model decides anew; after it the recorded reply stands. The difference of the means is what this
decision, rather than the model's average one in this state, did to the expected reward of this model.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agentrft.credit.keys import calls_of
from agentrft.diagnose.baseline import BaselinePlan
from agentrft.graders import grade_episodes
from agentrft.protocols import Grader
from agentrft.rollout import (
    Agent,
    Branch,
    Difference,
    EpisodeKey,
    GradedEpisode,
    differences_of,
    play_on,
    together,
)
from agentrft.stats import Interval, student, welch
from agentrft.types import Episode, StopReason, Turn

SCHEMA = 1
"""Of the document."""
LEAST = 4
"""Graded continuations on each side, fewer of which say nothing (see `stats.welch`)."""
_SHOWN_DIFFERENCES = 3
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Continuations from before the turn, or from after it."""

    plan: BaselinePlan
    """Of one item; it names the ids and makes the rewards."""
    graded: Sequence[GradedEpisode]

    @property
    def rewards(self) -> list[float]:
        """Of those with a grade, as training would give them."""
        given = (self.plan.reward(one.episode, one.grade).value for one in self.graded)
        return [reward for reward in given if reward is not None]

    @property
    def n_faults(self) -> int:
        """Continuations that an outside part failed."""
        return sum(one.episode.stop_reason is StopReason.FAULT or one.grade.is_fault for one in self.graded)

    def to_json(self) -> dict[str, Any]:
        """`{reward, episodes, faults, ungraded}`; `reward` is an interval, null where nothing was graded."""
        rewards = self.rewards
        return {
            "reward": student(rewards).to_json() if rewards else None,
            "episodes": len(self.graded),
            "faults": self.n_faults,
            "ungraded": len(self.graded) - len(rewards) - self.n_faults,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the model decided in the turn, one way among others."""

    calls: str
    episodes: int
    reward: float | None
    """Their mean; None where none was graded."""
    is_recorded: bool
    """It is what the recorded episode did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnValue:
    """The value of one decision."""

    branch: Branch
    before: Side
    after: Side

    @property
    def difference(self) -> Interval | None:
        """Mean reward after the turn less that before it; None where a side has no reward."""
        before, after = self.before.rewards, self.after.rewards
        return welch(before, after) if before and after else None

    @property
    def verdict(self) -> Literal["raised", "lowered", "unsure", "too_few"]:
        """What the decision did to the expected reward."""
        difference = self.difference
        if difference is None or min(len(self.before.rewards), len(self.after.rewards)) < LEAST:
            return "too_few"
        return "raised" if difference.low > 0 else "lowered" if difference.high < 0 else "unsure"

    @property
    def choices(self) -> list[Choice]:
        """What the continuations from before the turn did in it, the most frequent first."""
        rewards: defaultdict[str, list[float | None]] = defaultdict(list)
        for one in self.before.graded:
            for turn in one.episode.turns[self.branch.turn : self.branch.turn + 1]:
                rewards[_decided(turn)].append(self.before.plan.reward(one.episode, one.grade).value)
        recorded = _decided(self.branch.episode.turns[self.branch.turn])
        by_count = sorted(rewards.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return [
            Choice(calls=calls, episodes=len(values), reward=_mean(values), is_recorded=calls == recorded)
            for calls, values in by_count
        ]

    @property
    def strayed(self) -> list[tuple[Difference, ...]]:
        """Of every continuation in which the calls before the turn did not give what was recorded: where."""
        played = [one.episode for side in (self.before, self.after) for one in side.graded]
        found = (tuple(differences_of(self.branch, episode, range(self.branch.turn))) for episode in played)
        state = tuple(one for one in self.branch.differences if one.what == "state")
        return [differences + state for differences in found if differences + state]

    def to_json(self) -> dict[str, Any]:
        """The document that `agentrft probe --json` prints (docs/cli.md); turns are numbered from 1 in it."""
        branch, difference, strayed = self.branch, self.difference, self.strayed
        turn = branch.episode.turns[branch.turn]
        own = range(branch.turn, branch.turn + 1)
        return {
            "episode": branch.episode.id,
            "item": branch.item.id,
            "turn": branch.turn + 1,
            "turns": len(branch.episode.turns),
            "decision": _decided(turn),
            "said": (turn.reply.content or "")[:_SHOWN_CHARS],
            "replay": {
                "calls": sum(len(past.results) for past in branch.episode.turns[: branch.turn]),
                "restored": branch.snapshot is not None,
                "equal": not strayed,
                "episodes_that_differ": len(strayed),
                "differences": [_shown(one) for one in (strayed[0] if strayed else ())[:_SHOWN_DIFFERENCES]],
                "own_results_differ": sum(bool(differences_of(branch, one.episode, own)) for one in self.after.graded),
            },
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "difference": None if difference is None else difference.to_json(),
            "choices": [asdict(choice) for choice in self.choices],
            "verdict": self.verdict,
        }


async def value_turn(
    branch: Branch,
    plans: tuple[BaselinePlan, BaselinePlan],
    agent: Agent,
    grader: Grader,
    *,
    on_played: Callable[[Episode], None] = lambda episode: None,
) -> TurnValue:
    """Play and grade the continuations of both sides; `plans` are those of before and after, with the branch's item.

    What an outside part fails costs one continuation and is counted. Raises UserError as `run_episode` does.
    """
    slots = asyncio.Semaphore(plans[0].in_flight)

    async def play(place: int, member: int) -> Episode:
        key = EpisodeKey(run=plans[place].run, step=0, item=branch.item.id, member=member)
        async with slots:
            episode = await play_on(branch, key, agent, keeps=place == 1, order=(place, member))
        on_played(episode)
        return episode

    seats = [(place, member) for place, plan in enumerate(plans) for member in range(plan.samples)]
    played = await together(play(place, member) for place, member in seats)
    grades = await grade_episodes(grader, played, branch.item)
    graded = [GradedEpisode(episode=episode, grade=grade) for episode, grade in zip(played, grades, strict=True)]
    n_before = plans[0].samples
    return TurnValue(
        branch=branch,
        before=Side(plan=plans[0], graded=graded[:n_before]),
        after=Side(plan=plans[1], graded=graded[n_before:]),
    )


def _decided(turn: Turn) -> str:
    """The calls of a reply in canonical form, on one line; texts and unreadable replies are one choice each."""
    if turn.malformed is not None:
        return "an unreadable call"
    return "; ".join(calls_of(turn)) or "no call"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shown(difference: Difference) -> dict[str, Any]:
    texts = {name: getattr(difference, name)[:_SHOWN_CHARS] for name in ("what", "recorded", "got")}
    return {"turn": difference.turn + 1, **texts}
