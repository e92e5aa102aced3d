"""Rows that the engine tests train on. No torch here."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from agentrft.types import Row

VOCABULARY = 300
"""Of the tiny models."""


def row(ids: Sequence[int], trained: Iterable[int], *, unit: str = "u", group: str = "g") -> Row:
    """A row whose tokens at the positions `trained` are trained, with credits that differ from each other."""
    marks = [t in set(trained) for t in range(len(ids))]
    credit = [((-1) ** t * 0.1 + 0.01 * t) if mark else 0.0 for t, mark in enumerate(marks)]
    return Row(ids=list(ids), trained=marks, log_probs=[0.0] * len(ids), credit=credit, unit=unit, group=group)


PROMPT = list(range(10, 30))
CASES: dict[str, list[Row]] = {
    "one row": [row([*PROMPT, 30, 31], [20, 21])],
    "identical rows": [row([*PROMPT, 30, 31], [20, 21])] * 4,
    "empty suffix": [row(PROMPT, [19]), row([*PROMPT, 30, 31], [20, 21])],
    "different suffix lengths": [row([*PROMPT, *[40 + n] * n], range(20, 20 + n)) for n in (1, 2, 7, 30)],
    "shared trained prefix": [row([*PROMPT, 30, 31, 32, 40 + n], [20, 21, 22, 23]) for n in range(3)],
    "one row a prefix of another": [row([*PROMPT, 30, 31], [20, 21]), row([*PROMPT, 30, 31, 32, 33], [20, 22, 23])],
    "nothing trained in one row": [row([*PROMPT, 30], []), row([*PROMPT, 31, 32], [20, 21])],
    "nothing in common": [row([n, *PROMPT], [10, 20]) for n in (50, 51, 52)],
    "a row of one token": [row([10], [0]), row([*PROMPT, 30], [20])],
}
"""What the reference on prefix sharing asks to be tested, and the corners of our own layout."""


def group_rows(seed: int = 0, groups: int = 3, members: int = 4) -> list[Row]:
    """Groups of two-turn episodes: one system prompt, a question per group, half the members share a first reply."""
    rng = random.Random(seed)

    def some(low: int, high: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]

    rows = []
    system = some(7, 7)
    for g in range(groups):
        question, first = some(3, 20), some(6, 6)
        for m in range(members):
            parts = [
                (system + question, False),
                (first if m < members // 2 else some(1, 8), True),
                (some(0, 9), False),
                (some(0, 9), True),
            ]
            ids = [token for tokens, _ in parts for token in tokens]
            trained = [mark for tokens, mark in parts for _ in tokens]
            credit = [rng.gauss(0.0, 0.02) if mark else 0.0 for mark in trained]
            log_probs = [-rng.uniform(0.5, 6.0) if mark else 0.0 for mark in trained]
            rows.append(
                Row(ids=ids, trained=trained, log_probs=log_probs, credit=credit, unit=f"{g}/{m}", group=str(g))
            )
    return rows
