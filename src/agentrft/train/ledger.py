"""The credit ledger: for every turn of an episode, what its advantage is made of and what the update did to it.

Stored in `EpisodeRecord.extra["credit"]` as plain JSON data; `docs/credit.md` explains its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrft.credit import Parts, Peers, Reward, peers_of
from agentrft.train.assign import Assigned
from agentrft.train.played import Played
from agentrft.types import Row, Turn

_CALLS_SHOWN = 200
"""Characters of what one peer called; the whole text is in the peer's own episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one update did to the tokens of a row; both lists are aligned with the row's ids."""

    row: Row
    gradient_T: Sequence[float]
    """d loss / d log-prob."""
    moved_T: Sequence[float] | None = None
    """By how much the log-prob changed (nats); None where that was not measured."""


def reward_ledger(reward: Reward) -> dict[str, Any]:
    """How the reward of an episode came about; its parts add up to it."""
    return {"reward": dict(reward.parts)}


def ledgers_of(
    live: Sequence[Played], assigned: Assigned, updates: Mapping[str, Update]
) -> dict[str, tuple[float, dict[str, Any]]]:
    """By episode id, for every member that was trained on: its mean advantage over turns, and its ledger."""
    ledgers: dict[str, tuple[float, dict[str, Any]]] = {}
    parts_I_G_K, advantages_I_G_K = assigned.credited.parts_I_G_K, assigned.advantages_I_G_K
    for one, view, parts_G_K, advantages_G_K in zip(live, assigned.views, parts_I_G_K, advantages_I_G_K, strict=True):
        peers_G_K = peers_of(view)
        for member in view.graded:
            episode, reward, advantages_K = one.group.episodes[member], one.rewards[member], advantages_G_K[member]
            turns = zip(episode.turns, parts_G_K[member], advantages_K, peers_G_K[member], strict=True)
            update = updates[episode.id]
            ledger = reward_ledger(_priced(reward, view.rewards_G[member])) | {
                "turns": [_entry(turn, parts, advantage, peers, update) for turn, parts, advantage, peers in turns]
            }
            ledgers[episode.id] = (mean_over_turns(advantages_K), ledger)
    return ledgers


def mean_over_turns(advantages_K: Sequence[float]) -> float:
    """The advantage of an episode as one number: exactly that of its turns where all have the same."""
    return advantages_K[0] if len(set(advantages_K)) == 1 else sum(advantages_K) / max(len(advantages_K), 1)


def _priced(reward: Reward, priced: float | None) -> Reward:
    """With what the distance to the reference cost."""
    assert reward.value is not None
    assert priced is not None
    kl = priced - reward.value
    return Reward(value=priced, parts={**reward.parts, "kl": kl}) if kl else reward


def _entry(turn: Turn, parts: Parts, advantage: float, peers: Peers, update: Update) -> dict[str, Any]:
    span = slice(turn.start, turn.end)
    # A token with credit and without gradient is one that the loss left out: by its trust region or a correction.
    pairs = zip(update.row.credit[span], update.gradient_T[span], strict=True)
    masked = sum(bool(credit) and not gradient for credit, gradient in pairs)
    entry = {
        "parts": dict(parts),
        "advantage": advantage,
        "tokens": turn.end - turn.start,
        "masked_frac": masked / (turn.end - turn.start),
        "peers": [
            {"member": member, "turn": at, "calls": "; ".join(calls)[:_CALLS_SHOWN], "earned": earned}
            for member, at, calls, earned in zip(peers.members, peers.turns, peers.calls, peers.returns, strict=True)
        ],
    }
    return entry if update.moved_T is None else entry | {"log_prob_change": sum(update.moved_T[span])}
