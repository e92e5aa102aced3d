"""What is left: failed, and no other class says why. The honest argument for training."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, clip
from agentrft.detectors.view import View, World


def find(world: World, others: Sequence[Finding]) -> list[Finding]:
    """One finding with the failed episodes in which `others` show nothing that the agent did not get over."""
    explained = {one.episode_id for finding in others for one in finding.evidence if not one.recovered}
    evidence = tuple(_evidence(view) for view in world.views if view.passed is False and view.id not in explained)
    if not evidence:
        return []
    return [
        Finding(
            kind=Kind.WRONG_ANSWER,
            title="wrong answers without a cause in the interface",
            owner=Owner.AGENT,
            description=f"{len(evidence)} failed episodes show none of the other classes.",
            evidence=evidence,
            proposal="Training candidate: prompts rarely mend these.",
        )
    ]


def _evidence(view: View) -> Evidence:
    return view.whole(f"answered {clip(view.answer, 60)!r}" if view.answered else "no answer", turn=view.last_turn)
