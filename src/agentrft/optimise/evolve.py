"""Search over combinations with `gepa`: evolution along a Pareto front of items, drawing from a menu of edits.

Its own figure for a candidate is a maximum of noise and is shown to nobody; its best few play again in fresh slots.
gepa calls synchronously from a thread of its own; the episodes run on the loop that started it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.optimise.arena import Arena, slots_of
from agentrft.optimise.edit import Edit
from agentrft.optimise.search import FEWEST_SLOTS, Tell

MINIBATCH = 3
VALIDATION_ITEMS = 30
RACED = 6
_EXPLORED = 0.5
"""Share of the draws that pass over the evidence, which may mislead."""
_NONE = "as it is"


async def evolve(
    arena: Arena, menu: Sequence[Edit], budget: int, *, seed: int = 0, tell: Tell = lambda text: None
) -> list[Edit]:
    """The best combination found, possibly none; spends about `budget` episodes, a quarter of them on racing the best.

    Raises UserError where `gepa` is not installed.
    """
    if importlib.util.find_spec("gepa") is None:
        raise UserError(
            "this search needs gepa, which is not installed. Install it: pip install 'agentrft[optimise]', or give a "
            "budget below 1,500 episodes, which search without it",
            code="missing_extra",
        )
    found = await asyncio.to_thread(_run, arena, menu, budget * 3 // 4, seed, asyncio.get_running_loop())
    candidates = [chosen for chosen in found if chosen]
    tell(f"{len(candidates)} combinations, the best {min(RACED, len(candidates))} play again")
    return await _race(arena, candidates[:RACED], budget // 4, tell)


async def _race(arena: Arena, candidates: Sequence[list[Edit]], budget: int, tell: Tell) -> list[Edit]:
    """The candidate that gains most over the job, halving them; none where nothing gains."""
    left = [(candidate, list[float]()) for candidate in candidates]
    start, end = len(arena.items), arena.spent + budget  # second samples: the search saw the first ones
    while left:
        rounds_left = max(1, (len(left) - 1).bit_length())
        count = min((end - arena.spent) // (rounds_left * (len(left) + 1)), len(arena.items))
        if count < FEWEST_SLOTS:
            break
        for candidate, gains in left:
            gains += await arena.gains(candidate, [], slots_of(len(arena.items), start, count))
        start += count
        left.sort(key=lambda one: -_mean(one[1]))
        tell(f"{len(left)} left, best {_mean(left[0][1]):+.3f}")
        if len(left) == 1:
            break
        left = left[: (len(left) + 1) // 2]
    return left[0][0] if left and _mean(left[0][1]) > 0 else []


def _run(
    arena: Arena, menu: Sequence[Edit], budget: int, seed: int, loop: asyncio.AbstractEventLoop
) -> list[list[Edit]]:
    """gepa's candidates as lists of edits, the best by its own account first."""
    from gepa.api import optimize

    options: dict[str, dict[str, Edit | None]] = {}
    for edit in menu:
        options.setdefault(edit.component, {_NONE: None})[edit.key] = edit
    draws = random.Random(seed)

    def propose(
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        others = {name: [key for key in options[name] if key != candidate[name]] for name in components_to_update}
        return {name: draws.choice(keys) for name, keys in others.items()}

    shares = {name: max(edit.share for edit in edits.values() if edit) for name, edits in options.items()}
    slots = slots_of(len(arena.items), 0, len(arena.items))
    result = optimize(
        seed_candidate=dict.fromkeys(options, _NONE),
        trainset=slots,
        valset=slots[:VALIDATION_ITEMS],
        adapter=_Adapter(arena, options, loop),
        custom_candidate_proposer=propose,
        module_selector=_ByEvidence(shares, draws) if any(shares.values()) else "round_robin",
        reflection_minibatch_size=MINIBATCH,
        skip_perfect_score=False,  # 1 is not the best that every grader gives
        use_merge=False,
        max_metric_calls=budget,
        logger=_Quiet(),
        display_progress_bar=False,
        seed=seed,
    )
    ranked = sorted(range(len(result.candidates)), key=lambda n: -result.val_aggregate_scores[n])
    return [_edits(result.candidates[n], options) for n in ranked]


class _Adapter:
    """gepa's view of an arena."""

    propose_new_texts: Any = None

    def __init__(
        self, arena: Arena, options: Mapping[str, Mapping[str, Edit | None]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._arena = arena
        self._options = options
        self._loop = loop

    def evaluate(self, batch: list[Any], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Rewards of the slots; 0 where there is none."""
        from gepa.core.adapter import EvaluationBatch

        playing = self._arena.tallies(_edits(candidate, self._options), batch)
        tallies = asyncio.run_coroutine_threadsafe(playing, self._loop).result()
        rewards = [0.0 if tally.reward is None else tally.reward for tally in tallies]
        traces = [{} for _ in rewards] if capture_traces else None
        return EvaluationBatch(outputs=rewards, scores=rewards, trajectories=traces)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Nothing: the menu's proposer draws, and reads no records."""
        return {name: [{"Feedback": "-"}] for name in components_to_update}


class _ByEvidence:
    """Chooses the component to change by what speaks for its edits, now and then any."""

    def __init__(self, shares: Mapping[str, float], draws: random.Random) -> None:
        """`shares` of the failed episodes, by component, not all 0."""
        total, even = sum(shares.values()), 1 / len(shares)
        self._weights = {name: _EXPLORED * even + (1 - _EXPLORED) * share / total for name, share in shares.items()}
        self._draws = draws

    def __call__(
        self,
        state: Any,
        trajectories: Sequence[Any],
        subsample_scores: Sequence[float],
        candidate_idx: int,
        candidate: Mapping[str, str],
    ) -> list[str]:
        return self._draws.choices(list(self._weights), list(self._weights.values()))


class _Quiet:
    def log(self, message: str) -> None:
        """gepa's own progress is about figures that flatter."""


def _edits(candidate: Mapping[str, str], options: Mapping[str, Mapping[str, Edit | None]]) -> list[Edit]:
    chosen = (options[name][key] for name, key in candidate.items())
    return [edit for edit in chosen if edit is not None]


def _mean(gains: Sequence[float]) -> float:
    return sum(gains) / len(gains) if gains else 0.0
