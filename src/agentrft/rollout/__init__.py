"""Episodes: the agent loop, what bounds it, and what others get to see of it.

Read `episode.py` first; `actor.py` is who replies, `group.py` runs many at once, `record.py` makes rows and samples.
"""

from agentrft.rollout.actor import Actor, ChatActor, Dialogue, GeneratorActor
from agentrft.rollout.episode import Agent, run_episode
from agentrft.rollout.group import GradedEpisode, Rollout, Seat, run_groups
from agentrft.rollout.ids import EpisodeKey, episode_id, seed, trace_id
from agentrft.rollout.limits import Limits
from agentrft.rollout.record import checked_tokens, row_of, trained_tokens
from agentrft.together import together

__all__ = [
    "Actor",
    "Agent",
    "ChatActor",
    "Dialogue",
    "EpisodeKey",
    "GeneratorActor",
    "GradedEpisode",
    "Limits",
    "Rollout",
    "Seat",
    "checked_tokens",
    "episode_id",
    "row_of",
    "run_episode",
    "run_groups",
    "seed",
    "together",
    "trace_id",
    "trained_tokens",
]
