"""Runs of a grid beside each other: every run by itself, and the seeds of a task and arm together, paired by item.

Intervals are 95 %, by the paired clustered bootstrap over items. Those of several seeds together have each item's
episodes of all seeds in one cluster: they cover the items, and the luck of a seed only as far as these seeds show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentrft.ladder.measure import Measured
from agentrft.stats import Interval
from harness.grid import SIZES, Grid, Run, write_runs
from harness.result import table
from harness.study import from_lists

_VALUES = ("reward_I_K", "success_I_K", "calls_I_K", "readable_I_K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run, or the runs of several seeds of the same task, arm and sizes."""

    runs: Sequence[Run]

    @property
    def label(self) -> str:
        """Task and seeds, for people."""
        seeds = ",".join(str(run["seed"]) for run in self.runs)
        return f"{self.runs[0]['task']} {'seed' if len(self.runs) == 1 else 'seeds'} {seeds}"

    @property
    def arm(self) -> str:
        return self.runs[0]["arm"]

    @property
    def splits(self) -> Sequence[str]:
        """In the order in which they were measured."""
        return list(self.runs[0]["measured"])

    def measured(self, split: str) -> Measured:
        """Every episode's numbers, the seeds' side by side."""
        return pooled([from_lists(run["measured"])[split] for run in self.runs])

    def mean(self, name: str) -> float:
        """Of a number that every run has."""
        return sum(run[name] for run in self.runs) / len(self.runs)

    def beside(self, arm: str, runs: Sequence[Run]) -> Line | None:
        """Another arm's runs of the same seeds; None where one of them is not there."""
        found = {_cell(run): run for run in runs if run["arm"] == arm}
        same = [found.get(_cell(run)) for run in self.runs]
        return Line(runs=[run for run in same if run]) if all(same) else None

    def over(self, before: Line, split: str) -> Interval:
        """The paired difference in reward to another line of the same seeds."""
        return self.measured(split).gain_over(before.measured(split))


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Each run, and after the runs of a task and arm all of their seeds together, where there are several."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault((run["task"], run["arm"], *(run[name] for name in SIZES)), []).append(run)
    lines: list[Line] = []
    for group in groups.values():
        lines += [Line(runs=[run]) for run in group]
        lines += [Line(runs=group)] if len(group) > 1 else []
    return lines


def pooled(parts: Sequence[Measured]) -> Measured:
    """The same items played by several models as one: each item's episodes side by side."""
    first = parts[0]
    if any(list(one.item_ids) != list(first.item_ids) for one in parts):
        raise ValueError(f"{first.stage} was measured on different items of {first.split}")
    side_by_side = {
        name: [
            [value for values_K in same for value in values_K]
            for same in zip(*(getattr(one, name) for one in parts), strict=True)
        ]
        for name in _VALUES
    }
    reasons = {reason for one in parts for reason in one.stop_reasons}
    stops = {reason: sum(one.stop_reasons.get(reason, 0) for one in parts) for reason in sorted(reasons)}
    return replace(first, **side_by_side, stop_reasons=stops)


def compare(grid: Grid, base: str, columns: Mapping[str, Callable[[Line], str]]) -> None:
    """The whole benchmark: make what was asked for, print the runs and their differences to the arm `base`, write JSON.

    `columns` are what the runs' table has between the gains and the minutes.
    """
    options = grid.options()
    runs = grid.sit(options)
    print("\n" + table(rows_of(runs, grid.arms[0], columns)))
    arms = [run for run in runs if run["arm"] != grid.arms[0]]
    print("\n" + table(difference_rows(arms, base)))
    write_runs(options.json, runs, cases_of(arms, base))


def rows_of(runs: Sequence[Run], start: str, columns: Mapping[str, Callable[[Line], str]]) -> list[tuple[str, ...]]:
    """One line for each run and split, and for seeds together; gains are over the arm `start`."""

    def row(line: Line, split: str) -> tuple[str, ...]:
        before = None if line.arm == start else line.beside(start, runs)
        return (
            f"{line.label} {line.arm}",
            split,
            unsigned(line.measured(split).figures().reward),
            "" if before is None else signed(line.over(before, split)),
            *(column(line) for column in columns.values()),
            f"{line.mean('wall_s') / 60:.1f}",
        )

    head = ("run", "split", "reward", f"gain over {start}", *columns, "min")
    return [head, *(row(line, split) for line in lines_of(runs) for split in line.splits)]


def differences(runs: Sequence[Run], base: str) -> list[tuple[Line, str, Interval]]:
    """(line, split, paired difference in reward to the arm `base` of the same seeds), for every other arm."""
    return [
        (line, split, line.over(other, split))
        for line in lines_of(runs)
        if line.arm != base and (other := line.beside(base, runs)) is not None
        for split in line.splits
    ]


def difference_rows(runs: Sequence[Run], base: str) -> list[tuple[str, ...]]:
    """The printed table of `differences`."""
    head = ("run", "split", f"reward less that of {base}", "items")
    return [
        head,
        *(
            (f"{line.label} {line.arm}", split, signed(difference), str(difference.n_items))
            for line, split, difference in differences(runs, base)
        ),
    ]


def cases_of(runs: Sequence[Run], base: str) -> list[dict[str, Any]]:
    """Rewards of the arms beside that of `base`, and their paired difference; such a difference has no speedup."""
    return [
        {
            "name": f"{line.label} {split}: {line.arm} beside {base}",
            "unit": "reward",
            "ours": round(line.measured(split).figures().reward.mean, 4),
            "peer": round(line.measured(split).figures().reward.mean - gap.mean, 4),
            "speedup": None,
            "difference": gap.to_json(),
        }
        for line, split, gap in differences(runs, base)
    ]


def signed(interval: Interval) -> str:
    """A difference with its bounds."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def unsigned(interval: Interval) -> str:
    """A mean with its bounds."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _cell(run: Run) -> tuple[Any, ...]:
    return (run["task"], run["seed"], *(run[name] for name in SIZES))
