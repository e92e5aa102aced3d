"""Which row or item comes when: functions of the seed and the step, so that a resumed job goes on where it was.

Orders are sorted hashes rather than a random generator's shuffle: the same on every machine and version, for ever.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence

from agentrft.rollout import Seat
from agentrft.types import Item


def shuffled(n: int, key: str) -> list[int]:
    """0 … n−1 in an order that depends on `key` only."""
    return sorted(range(n), key=lambda i: hashlib.sha256(f"{key}/{i}".encode()).digest())


def stream(n: int, seed: int, start: int, count: int) -> list[int]:
    """Positions start … start + count − 1 of an endless stream of indices below n; every pass has each index once."""
    passes = range(start // n, (start + count - 1) // n + 1)
    indices = [index for number in passes for index in shuffled(n, f"{seed}/pass/{number}")]
    first = start - passes.start * n
    return indices[first : first + count]


def step_seats(items: Sequence[Item], *, seed: int, step: int, groups: int, limit: int) -> list[Seat]:
    """Up to `limit` seats of optimiser step `step` (1-based), in the order in which they are played.

    The first `groups` go through the items pass by pass. The rest, played only to replace groups without signal, are
    the other items in an order of this step's own, then all of them again under the next attempt.
    """
    first = stream(len(items), seed, (step - 1) * groups, groups)
    spare = shuffled(len(items), f"{seed}/refill/{step}")
    unused = [index for index in spare if index not in set(first)]
    indices = itertools.islice(itertools.chain(first, unused, itertools.cycle(spare)), limit)
    taken: Counter[int] = Counter()
    seats = []
    for place, index in enumerate(indices):
        seats.append(Seat(index=place, item=items[index], attempt=taken[index]))
        taken[index] += 1
    return seats
