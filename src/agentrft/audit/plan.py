"""What a grader is audited with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.audit.honest import Honest
from agentrft.types import Item

MAX_ITEMS = 10
"""Items beyond these are not used: an audit is to take seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What to audit a grader with."""

    items: Sequence[Item]
    """The first `MAX_ITEMS` are used."""
    pass_threshold: float
    """The grade from which on an episode is a success."""
    honest: Sequence[Honest] = ()
    """Played episodes; where none of them failed, the audit makes failures up and says so."""
    demonstrations: Sequence[Honest] = ()
    """Conversations that end well: trajectories for probes to start from. They are never counted as failures."""
    reference: str | None = None
    """The item's field with the right answer; None looks for the usual names."""
    asks_model: bool = False
    """The grader asks a judge: how far it agrees with itself is measured then, instead of asking for equal grades."""
    positive_control: bool = False
    """Whether right answers must pass; for graders that compare with one."""
    hang_s: float = 10.0
    """A grade of one long answer that takes longer hangs."""
    seed: int = 0
