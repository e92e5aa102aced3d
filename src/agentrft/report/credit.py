"""The credit ledger of an episode in words, turn by turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.report.text import one_line

_PEERS_SHOWN = 3
_WIDTH = 60


def credit_texts(credit: Mapping[str, Any]) -> list[str]:
    """What each turn of an episode earned, from `EpisodeRecord.extra["credit"]`; empty where it was not trained on."""
    return [_turn(entry) for entry in credit.get("turns", ())]


def reward_text(credit: Mapping[str, Any]) -> str:
    """`grade +0.800, calls -0.100`: what the reward is made of; empty where it is the grade and nothing else."""
    parts = credit.get("reward", {})
    return ", ".join(f"{name} {value:+.3f}" for name, value in parts.items()) if len(parts) > 1 else ""


def _turn(entry: Mapping[str, Any]) -> str:
    parts = entry["parts"]
    made_of = ", ".join(f"{name.replace('_', ' ')} {value:+.2f}" for name, value in parts.items())
    text = f"advantage {entry['advantage']:+.2f} from credit {sum(parts.values()):+.2f} ({made_of})"
    text += f"; {entry['tokens']} tokens"
    if entry["masked_frac"]:
        text += f", {entry['masked_frac']:.0%} of them masked"
    if "log_prob_change" in entry:
        text += f"; the update moved its log-prob by {entry['log_prob_change']:+.2f}"
    return "\n".join([text, *_peers(entry["peers"])])


def _peers(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What others did from the same state and what they earned, the most frequent first."""
    earned: defaultdict[str, list[float]] = defaultdict(list)
    for peer in peers:
        earned[peer["calls"]].append(peer["earned"])
    by_count = sorted(earned.items(), key=lambda pair: -len(pair[1]))
    lines = [
        f"  {len(values)} other{'' if len(values) == 1 else 's'} here: {one_line(calls, _WIDTH) or 'no call'} "
        f"→ earned {sum(values) / len(values):.2f}"
        for calls, values in by_count[:_PEERS_SHOWN]
    ]
    more = sum(len(values) for _, values in by_count[_PEERS_SHOWN:])
    return [*lines, f"  {more} others did something else"] if more else lines
