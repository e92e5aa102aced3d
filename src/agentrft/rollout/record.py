"""What the learner gets to see of an episode: one row."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.types import Episode, Row, TokenTrace


def row_of(episode: Episode, credit_per_token_K: Sequence[float], *, group: str) -> Row:
    """The episode as one row; every token that turn k generated gets `credit_per_token_K[k]`, nothing else gets any.

    Raises AssertionError when the tokens break the invariant: that is a bug, and training on it would be silent harm.
    """
    tokens = checked_tokens(episode)
    credit = [0.0] * len(tokens.ids)
    for turn, per_token in zip(episode.turns, credit_per_token_K, strict=True):
        credit[turn.start : turn.end] = [per_token] * (turn.end - turn.start)
    return Row(
        ids=tokens.ids,
        trained=tokens.trained,
        log_probs=tokens.log_probs,
        credit=credit,
        unit=episode.id,
        group=group,
    )


def checked_tokens(episode: Episode) -> TokenTrace:
    """The episode's tokens, after checking that exactly the generated ones are trained.

    Generated is what the turns span: each reply's ids as they came from the generator, stop token included.
    """
    tokens = episode.tokens
    if tokens is None:
        raise AssertionError(f"episode {episode.id} has no tokens: it was not played by a token-exact actor")
    lengths = {len(tokens.ids), len(tokens.trained), len(tokens.log_probs)}
    if len(lengths) != 1:
        raise AssertionError(f"episode {episode.id}: ids, trained and log_probs differ in length: {sorted(lengths)}")
    generated = [False] * len(tokens.ids)
    position = tokens.prompt_tokens
    for turn in episode.turns:
        if not position <= turn.start < turn.end <= len(tokens.ids):
            raise AssertionError(f"episode {episode.id}: turn [{turn.start}, {turn.end}) does not follow {position}")
        generated[turn.start : turn.end] = [True] * (turn.end - turn.start)
        position = turn.end
    if generated != list(tokens.trained):
        raise AssertionError(f"episode {episode.id}: trained tokens are not the generated ones")
    if any(not trained and log_prob != 0.0 for trained, log_prob in zip(tokens.trained, tokens.log_probs, strict=True)):
        raise AssertionError(f"episode {episode.id}: a token that was not generated has a log-prob")
    return tokens


def trained_tokens(episode: Episode) -> int:
    """How many tokens the policy generated; 0 for text-only episodes."""
    return sum(episode.tokens.trained) if episode.tokens else 0
