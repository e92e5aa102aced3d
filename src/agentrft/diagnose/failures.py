"""Why episodes failed: one primary class each, and the detectors' findings in the order of what mending them gains.

The primary class of a failed episode is that of its first step in time that the agent did not get over; what is about
the whole episode comes last. Of several at one step a failure of form goes first (an empty reply is that before it is
an early stop), then classes in their own order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentrft.detectors import Finding, Kind, Owner, Ranked, Seen, detect, rank
from agentrft.types import StopReason

FORMAT = frozenset({Kind.PARSE_ERROR, Kind.REFUSAL_OR_EMPTY})
"""Failures of form: they have a remedy of their own, a short supervised start."""
INTERFACE = frozenset({Owner.INTERFACE, Owner.OUTPUT, Owner.HARNESS, Owner.PROMPT})
"""Owners whose part can be changed without touching weights."""
_LAST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The primary class of one failed episode."""

    kind: Kind
    owner: Owner
    is_format: bool
    """A failure of form: unreadable, empty, a refusal, or a reply that runs on until it is cut off."""

    @classmethod
    def of(cls, finding: Finding) -> Cause:
        """As the finding says."""
        runs_on = finding.kind is Kind.NO_STOP and finding.target.get("limit") == "max_reply_tokens"
        return cls(kind=finding.kind, owner=finding.owner, is_format=runs_on or finding.kind in FORMAT)

    @property
    def is_interface(self) -> bool:
        """Fixable in prompt, tools, outputs or limits, and not a failure of form."""
        return self.owner in INTERFACE and not self.is_format


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What went wrong."""

    causes: Mapping[str, Cause]
    """By id, of every episode that was graded and did not pass."""
    ranked: Sequence[Ranked]

    def to_json(self) -> dict[str, Any]:
        """`{failed, interface_share, format_share, classes, findings}`."""
        causes = list(self.causes.values())
        failed = max(len(causes), 1)
        classes = Counter((cause.kind, cause.owner) for cause in causes)
        return {
            "failed": len(causes),
            "interface_share": sum(cause.is_interface for cause in causes) / failed,
            "format_share": sum(cause.is_format for cause in causes) / failed,
            "classes": [
                {"kind": kind.value, "owner": owner.value, "episodes": count, "share": count / failed}
                for (kind, owner), count in sorted(classes.items(), key=lambda one: (-one[1], one[0]))
            ],
            "findings": [self._finding(place, one) for place, one in enumerate(self.ranked, start=1)],
        }

    def _finding(self, place: int, ranked: Ranked) -> dict[str, Any]:
        finding, ids = ranked.finding, ranked.finding.episode_ids
        return {
            "rank": place,
            "kind": finding.kind.value,
            "title": finding.title,
            "owner": finding.owner.value,
            "description": finding.description,
            "proposal": finding.proposal,
            "target": dict(finding.target),
            "episodes": len(ids),
            "failed_episodes": len(ids & self.causes.keys()),
            "items": ranked.items,
            "failures": ranked.failures.to_json() if ranked.failures else None,
            "passes": ranked.passes,
            "recovered": sum(one.recovered for one in finding.evidence) / len(finding.evidence),
            "lift": ranked.lift.to_json() if ranked.lift else None,
            "ceiling": ranked.ceiling.to_json() if ranked.ceiling else None,
            "priority": ranked.priority,
            "fixability": ranked.fixability,
            "note": ranked.note,
            "cites": [{**asdict(one.evidence), "passing_id": one.passing_id} for one in ranked.contrasts],
        }


def failures_of(seen: Sequence[Seen], pass_threshold: float) -> Failures:
    """Run every detector over the episodes and rank what they find."""
    findings = detect(seen, pass_threshold=pass_threshold)
    return Failures(causes=causes_of(findings, seen, pass_threshold), ranked=rank(findings, seen, pass_threshold))


def causes_of(findings: Sequence[Finding], seen: Sequence[Seen], pass_threshold: float) -> dict[str, Cause]:
    """The primary class of every episode that was graded and did not pass; `wrong_answer` where nothing was found."""
    kinds = list(Kind)
    signs: defaultdict[str, list[tuple[int, int, Cause]]] = defaultdict(list)
    for finding in findings:
        cause = Cause.of(finding)
        for one in finding.evidence:
            if not one.recovered:
                turn = _LAST if one.turn is None else one.turn
                order = -1 if cause.is_format else kinds.index(finding.kind)
                signs[one.episode_id].append((turn, order, cause))
    residue = Cause(kind=Kind.WRONG_ANSWER, owner=Owner.AGENT, is_format=False)
    return {
        id: min(signs[id], key=lambda sign: sign[:2])[2] if signs[id] else residue
        for one in seen
        if _failed(one, pass_threshold)
        for id in [one.record.episode.id]
    }


def _failed(seen: Seen, pass_threshold: float) -> bool:
    value = seen.record.grade.value
    return seen.record.episode.stop_reason is not StopReason.FAULT and value is not None and value < pass_threshold
