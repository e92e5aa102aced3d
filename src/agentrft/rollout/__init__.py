"""Episodes: the agent loop, what bounds it, and what others get to see of it.

Read `episode.py` first; `actor.py` is who replies, `group.py` runs many at once, `record.py` makes rows and samples,
`branch.py` goes on from a turn of a recorded episode.
"""

from agentrft.rollout.actor import Actor, ChatActor, Dialogue, GeneratorActor
from agentrft.rollout.branch import Branch, Difference, differences_of, play_on, reach
from agentrft.rollout.episode import Agent, run_episode
from agentrft.rollout.forks import Forks
from agentrft.rollout.group import GradedEpisode, Rollout, Seat, run_groups
from agentrft.rollout.ids import EpisodeKey, episode_id, seed, trace_id
from agentrft.rollout.limits import Limits
from agentrft.rollout.record import checked_tokens, row_of, trained_tokens
from agentrft.together import together

__all__ = [
    "Actor",
    "Agent",
    "Branch",
    "ChatActor",
    "Dialogue",
    "Difference",
    "EpisodeKey",
    "Forks",
    "GeneratorActor",
    "GradedEpisode",
    "Limits",
    "Rollout",
    "Seat",
    "checked_tokens",
    "differences_of",
    "episode_id",
    "play_on",
    "reach",
    "row_of",
    "run_episode",
    "run_groups",
    "seed",
    "together",
    "trace_id",
    "trained_tokens",
]
