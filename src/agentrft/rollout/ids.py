"""Names and random seeds of episodes: functions of who runs what, never of when or in which order.

A resumed job therefore gives an episode the same id, trace id and draws as before, and finds it in its journal.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeKey:
    """What tells one episode from every other."""

    run: str
    """Job id, with the phase and stage appended where a job runs the same item for several purposes."""
    step: int
    item: str
    """`Item.id`."""
    member: int
    attempt: int = 0
    """Counts up when the same item comes again within one step."""

    @property
    def id(self) -> str:
        """`ep_` and 24 hex digits."""
        return episode_id(self.run, self.step, self.item, self.member, self.attempt)

    @property
    def trace_id(self) -> str:
        """`trace_` and a UUIDv5, for tools and graders."""
        return trace_id(self.run, self.step, self.item, self.member, self.attempt)

    def seed(self, turn: int) -> int:
        """Seed of one reply. Differs by turn: a seed used twice would draw the same random numbers twice."""
        return seed(self.run, self.step, self.item, self.member, self.attempt, turn)


def episode_id(job: str, step: int, item: str, member: int, attempt: int) -> str:
    """`ep_` and 24 hex digits of SHA-256."""
    return "ep_" + _digest("episode", job, step, item, member, attempt).hex()[:24]


def trace_id(job: str, step: int, item: str, member: int, attempt: int) -> str:
    """`trace_` and the UUIDv5 of the same key."""
    return f"trace_{uuid.uuid5(uuid.NAMESPACE_OID, episode_id(job, step, item, member, attempt))}"


def seed(*parts: str | int) -> int:
    """A 63-bit integer that depends on every part and on nothing else."""
    return int.from_bytes(_digest("seed", *parts)[:8], "big") >> 1


def _digest(*parts: str | int) -> bytes:
    # JSON keeps ("a", "bc") and ("ab", "c") apart, which plain joining would not.
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
