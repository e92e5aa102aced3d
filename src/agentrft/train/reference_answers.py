"""How likely the policy finds an item's reference answer before each turn: what information gain is made of.

One forward pass of the learner over all members: the rows of an episode share what the agent had seen, so an episode
is computed once, and each turn adds the tokens of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agentrft.errors import UserError
from agentrft.protocols import Learner
from agentrft.train.played import Played
from agentrft.types import Episode, Item, Row

Reply = Callable[[Item, str], Sequence[int]]
"""The tokens of a reply that answers with a text, as the model would write it, stop token included."""


@dataclass(frozen=True, slots=True)
class Said:
    """A reference answer as the model would say it."""

    ids: Sequence[int]
    """Up to the last token that is the answer's own; what every answer ends with is left out."""
    start: int
    """Where the answer's own tokens begin: after what every answer begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceAnswers:
    """The reference answers of all items of a run."""

    said: Mapping[str, Said]
    """By item id."""
    context_tokens: int
    """Of the model."""

    @classmethod
    def of(cls, items: Sequence[Item], name: str, reply: Reply, context_tokens: int) -> ReferenceAnswers:
        """From the items' field `name`; raises UserError where one is no answer to the model, or says nothing."""
        said = {item.id: _said(reply(item, reference_of(item, name)), reply(item, "")) for item in items}
        empty = next((id_ for id_, one in said.items() if one.start >= len(one.ids)), None)
        if empty is not None:
            raise UserError(
                f"the reference answer of item {empty!r} has no token of its own: it is what every answer is; "
                f"expected a text in the field {name!r}",
                param="training.credit.reference",
                code="invalid_credit",
            )
        return cls(said=said, context_tokens=context_tokens)

    async def log_probs(self, learner: Learner, played: Sequence[Played]) -> list[list[list[float | None]]]:
        """For each group, member and turn: the mean log-prob (nats/token) of the reference answer before its reply.

        Only the answer's own tokens count. −inf where it no longer fits; None for members without a reward.
        """
        rows = [row for one in played for row in self._rows(one)]
        log_probs_R_T = await learner.log_probs(rows) if rows else []
        means = {
            row.unit: math.fsum(log_probs_T) / sum(row.trained)
            for row, log_probs_T in zip(rows, log_probs_R_T, strict=True)
        }
        return [
            [
                [
                    None if reward is None else means.get(_unit(one, member, turn), -math.inf)
                    for turn in range(len(episode.turns))
                ]
                for member, (episode, reward) in enumerate(zip(one.group.episodes, one.rewards_G, strict=True))
            ]
            for one in played
        ]

    def _rows(self, one: Played) -> Iterator[Row]:
        said = self.said[one.group.item.id]
        for member, (episode, reward) in enumerate(zip(one.group.episodes, one.rewards_G, strict=True)):
            if reward is None:
                continue
            for turn, seen in enumerate(_seen(episode)):
                ids = [*seen, *said.ids]
                if len(ids) <= self.context_tokens:
                    own = len(said.ids) - said.start
                    trained = [False] * (len(ids) - own) + [True] * own
                    zeros = [0.0] * len(ids)
                    unit = _unit(one, member, turn)
                    yield Row(ids=ids, trained=trained, log_probs=zeros, credit=zeros, unit=unit, group=one.key)


def reference_of(item: Item, name: str) -> str:
    """The item's reference answer as text; empty where it has none."""
    value = item.fields.get(name)
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _said(reply: Sequence[int], empty: Sequence[int]) -> Said:
    """What a reply has beyond one without text."""
    most = min(len(reply), len(empty))
    start = next((n for n in range(most) if reply[n] != empty[n]), most)
    left = most - start
    tail = next((n for n in range(left) if reply[-1 - n] != empty[-1 - n]), left)
    if start >= len(reply) - tail:  # merged with what every answer ends with
        tail = 0
    return Said(reply[: len(reply) - tail], start)


def _seen(episode: Episode) -> Iterator[Sequence[int]]:
    """What the model had seen before each reply."""
    assert episode.tokens is not None
    for turn in episode.turns:
        yield episode.tokens.ids[: turn.start]


def _unit(one: Played, member: int, turn: int) -> str:
    return f"{one.key}/{member}/{turn}"
