"""How often credit by states had something to compare: counted from the ledgers of the episodes trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrft.protocols import EpisodeRecord


def coverage(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Of the turns after the first of all episodes that were trained on, how many have peers and a step term.

    Peers are found whatever the credit; a `step` that is not zero is what `step_groups` made of them. `by_step` has the
    same counts for each optimiser step. In a first turn all members meet, so it says nothing.
    """
    steps = sorted({record.episode.step for record in records})
    by_step = {str(step): _counts([r for r in records if r.episode.step == step]) for step in steps}
    return {**_counts(records), "by_step": by_step}


def _counts(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    later = [turn for record in records for turn in record.extra["credit"].get("turns", ())[1:]]
    with_peers = sum(bool(turn["peers"]) for turn in later)
    with_step_term = sum(bool(turn["parts"].get("step")) for turn in later)
    return {
        "later_turns": len(later),
        "with_peers": with_peers,
        "with_step_term": with_step_term,
        "peers_frac": with_peers / len(later) if later else None,
        "step_term_frac": with_step_term / len(later) if later else None,
    }
