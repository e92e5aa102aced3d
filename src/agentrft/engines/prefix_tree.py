"""Rows that begin alike, laid out as a forest: each shared prefix is computed once, whatever micro-batch it falls in.

Pure planning, no torch. A token's hidden state depends only on its ancestors and its depth, so merging equal prefixes
leaves every loss term and, up to summation order, the gradient unchanged; every (row, token) term is kept even where
rows share a trained token. Source: Tree Training (arXiv 2511.00413), conditions as in its section on exactness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentrft.types import Row

_MIN_SAVED_TOKENS = 4
"""A branch point costs two more attention calls a layer, about what four tokens cost; below that, recompute them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens [start, end) of the layout, a run without branches; its descendants end at `subtree_end`."""

    start: int
    end: int
    subtree_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """One micro-batch, laid out depth first."""

    ids: np.ndarray
    """Token ids [N], int64."""
    positions: np.ndarray
    """Depth of each token in its row [N], int64."""
    segments: tuple[Segment, ...]
    head_at: np.ndarray
    """Layout positions whose hidden state predicts some trained token [U], sorted, unique."""
    where: np.ndarray
    """For each loss term, its index into `head_at` [n]; terms are ordered by (row, token)."""
    targets: np.ndarray
    """For each loss term, the token it predicts [n]."""
    term_row: np.ndarray
    """For each loss term, its row's index in the micro-batch [n]."""
    term_at: np.ndarray
    """For each loss term, the token's index in its row [n]."""


def needed_tokens(row: Row) -> int:
    """How many of a row's first tokens must be computed: all before its last trained token."""
    for index in range(len(row.ids) - 1, 0, -1):
        if row.trained[index]:
            return index
    return 0


def lay_out(rows: Sequence[Row], *, share: bool = True) -> Forest:
    """The forest of `rows`; with `share` off every row is computed on its own (the padded peer of benchmarks)."""
    inputs = [tuple(row.ids[: needed_tokens(row)]) for row in rows]
    order = sorted(range(len(rows)), key=lambda r: (inputs[r], r))
    builder = _Builder(inputs)
    if share:
        builder.add_group(order)
    else:
        for r in order:
            builder.add_leaf(r, 0, [])
    ids, positions, segments = builder.finish()
    term_row, term_at = (np.array(x, dtype=np.int64) for x in _terms(rows))
    flat = [np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in builder.flat_by_row]
    predicted_at = np.array([flat[r][t - 1] for r, t in zip(term_row, term_at, strict=True)], dtype=np.int64)
    head_at, where = np.unique(predicted_at, return_inverse=True)
    targets = np.array([rows[r].ids[t] for r, t in zip(term_row, term_at, strict=True)], dtype=np.int64)
    return Forest(
        ids=ids,
        positions=positions,
        segments=segments,
        head_at=head_at,
        where=where.astype(np.int64),
        targets=targets,
        term_row=term_row,
        term_at=term_at,
    )


def _terms(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    pairs = [(r, t) for r, row in enumerate(rows) for t in range(1, len(row.ids)) if row.trained[t]]
    return [r for r, _ in pairs], [t for _, t in pairs]


class _Builder:
    """Emits segments depth first from rows sorted by their tokens."""

    def __init__(self, inputs: Sequence[tuple[int, ...]]) -> None:
        self._inputs = inputs
        self._ids: list[int] = []
        self._positions: list[np.ndarray] = []
        self._spans: list[tuple[int, int, int]] = []
        """(start, end, depth of nesting)"""
        self.flat_by_row: list[list[np.ndarray]] = [[] for _ in inputs]

    def add_group(self, order: list[int]) -> None:
        """Rows `order`, sorted by tokens, as one tree (or several when they start differently)."""
        stack: list[tuple[list[int], int, int]] = [(order, 0, 0)]
        while stack:
            members, depth, nesting = stack.pop()
            if len(members) == 1:
                self._emit(members, depth, len(self._inputs[members[0]]), nesting)
                continue
            shared = _common_prefix(self._inputs[members[0]], self._inputs[members[-1]])
            start = depth
            if (shared - depth) * (len(members) - 1) >= _MIN_SAVED_TOKENS:
                self._emit(members, depth, shared, nesting)
                start, nesting = shared, nesting + 1
            for child in reversed(self._children(members, shared)):
                if len(self._inputs[child[0]]) > start:
                    stack.append((child, start, nesting))

    def add_leaf(self, row: int, depth: int, _path: list[int]) -> None:
        self._emit([row], depth, len(self._inputs[row]), 0)

    def _children(self, members: list[int], shared: int) -> list[list[int]]:
        """Members by their next token; rows that end at `shared` are leaves of their own."""
        children: list[list[int]] = []
        last: int | None = None
        for r in members:
            token = self._inputs[r][shared] if len(self._inputs[r]) > shared else None
            if token is None or token != last or not children:
                children.append([r])
            else:
                children[-1].append(r)
            last = token
        return children

    def _emit(self, members: list[int], depth: int, end: int, nesting: int) -> None:
        if end <= depth:
            return
        start = len(self._ids)
        self._ids.extend(self._inputs[members[0]][depth:end])
        self._positions.append(np.arange(depth, end))
        self._spans.append((start, len(self._ids), nesting))
        flat = np.arange(start, len(self._ids))
        for r in members:
            self.flat_by_row[r].append(flat)

    def finish(self) -> tuple[np.ndarray, np.ndarray, tuple[Segment, ...]]:
        segments: list[Segment] = []
        for index, (start, end, nesting) in enumerate(self._spans):
            subtree_end = end
            for _, later_end, later_nesting in self._spans[index + 1 :]:
                if later_nesting <= nesting:
                    break
                subtree_end = later_end
            segments.append(Segment(start=start, end=end, subtree_end=subtree_end))
        positions = np.concatenate(self._positions) if self._positions else np.zeros(0, np.int64)
        return np.array(self._ids, dtype=np.int64), positions.astype(np.int64), tuple(segments)


def _common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    limit = min(len(a), len(b))
    for index in range(limit):
        if a[index] != b[index]:
            return index
    return limit


def unique_tokens(rows: Sequence[Row]) -> int:
    """Tokens left after sharing every common prefix among `rows`."""
    total = 0
    previous: tuple[int, ...] = ()
    for tokens in sorted(tuple(row.ids[: needed_tokens(row)]) for row in rows):
        total += len(tokens) - _common_prefix(previous, tokens)
        previous = tokens
    return total


def micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Row indices by micro-batch: units whole, groups together, about `max_tokens` unique tokens each.

    A unit larger than `max_tokens` gets a micro-batch of its own; nothing is ever cut.
    """
    group_of: dict[str, str] = {}
    by_group: dict[str, dict[str, list[int]]] = {}
    for index, row in enumerate(rows):
        # A unit whose rows name several groups goes with its first row's.
        group = group_of.setdefault(row.unit, row.group)
        by_group.setdefault(group, {}).setdefault(row.unit, []).append(index)
    batches: list[list[int]] = []
    current: list[int] = []
    size = 0
    for units in by_group.values():
        whole = [index for unit in units.values() for index in unit]
        parts = [whole] if unique_tokens([rows[i] for i in whole]) <= max_tokens else _split(rows, units, max_tokens)
        for part in parts:
            cost = unique_tokens([rows[i] for i in part])
            if current and size + cost > max_tokens:
                batches.append(current)
                current, size = [], 0
            current = current + part
            size += cost
    return [*batches, current] if current else batches


def _split(rows: Sequence[Row], units: dict[str, list[int]], max_tokens: int) -> list[list[int]]:
    """One group's units over several micro-batches, similar rows side by side so that sharing survives."""
    ordered = sorted(units.values(), key=lambda unit: tuple(rows[unit[0]].ids))
    parts: list[list[int]] = [[]]
    for unit in ordered:
        grown = parts[-1] + unit
        if parts[-1] and unique_tokens([rows[i] for i in grown]) > max_tokens:
            parts.append(list(unit))
        else:
            parts[-1] = grown
    return parts
