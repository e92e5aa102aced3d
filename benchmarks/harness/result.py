"""A benchmark's result: cases beside a peer, printed as a table and written as JSON (design §7)."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

VECTOR_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measured number of ours beside the peer's, in the same unit."""

    name: str
    unit: str
    ours: float
    peer: float
    better: Literal["higher", "lower"]
    gated: bool = True
    """Whether the benchmark's overall speedup, the smallest of the gated ones, looks at this case."""

    @property
    def speedup(self) -> float:
        """How many times better ours is: above 1 ours wins, whichever way the unit points."""
        return self.ours / self.peer if self.better == "higher" else self.peer / self.ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All cases of one benchmark and what a reader needs to judge them."""

    title: str
    peer: str
    """What stands in the peer column."""
    cases: Sequence[Case]
    details: Mapping[str, Any] = field(default_factory=dict)
    """Configurations, sweeps and single timings behind the cases."""
    checks: Mapping[str, bool] = field(default_factory=dict)
    """What is required of this benchmark → whether it was reached; holds only at the benchmark's own sizes."""

    @property
    def speedup(self) -> float | None:
        """The smallest speedup of the gated cases; None when there is none."""
        return min((case.speedup for case in self.cases if case.gated), default=None)

    def as_json(self) -> dict[str, Any]:
        """`{cases: [{name, unit, ours, peer, speedup}], speedup}`, and beside it peer, checks, machine and details."""
        return {
            "cases": [
                {
                    "name": case.name,
                    "unit": case.unit,
                    "ours": round(case.ours, 4),
                    "peer": round(case.peer, 4),
                    "speedup": round(case.speedup, 3),
                }
                for case in self.cases
            ],
            "speedup": None if self.speedup is None else round(self.speedup, 3),
            "peer": self.peer,
            "checks": dict(self.checks),
            "machine": machine(),
            "details": dict(self.details),
        }

    def show(self) -> None:
        """Print the table; cases marked with * are the ones the overall speedup looks at."""
        rows = [(case.name + (" *" if case.gated else ""), case) for case in self.cases]
        header = [("", "unit", "ours", self.peer, "speedup")]
        body = [(name, c.unit, _short(c.ours), _short(c.peer), f"{c.speedup:.2f}x") for name, c in rows]
        print(f"\n{self.title}\n" + table(header + body))
        if self.speedup is not None:
            print(f"overall: {self.speedup:.2f}x (the smallest of the cases marked *)")
        for requirement, reached in self.checks.items():
            print(f"{'reached' if reached else 'MISSED':8} {requirement}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text; the first row is the header, the first column is left-aligned, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def deliver(result: Result, json_file: Path | None) -> None:
    """Print the table, and write the JSON where the user asked for it."""
    result.show()
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")


def median(values: Sequence[float]) -> float:
    """Median; the spread belongs into `details`, see `spread`."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median and largest of repeated timings."""
    return {"min": round(min(values), 4), "median": round(median(values), 4), "max": round(max(values), 4)}


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores we may use, vector instructions, and how busy it is now."""
    text = _read("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": named.get("model name", platform.processor()),
        "cores": cores,
        "vector_flags": [flag for flag in VECTOR_FLAGS if flag in flags],
        "python": platform.python_version(),
        "platform": sys.platform,
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def warn_when_busy() -> None:
    """Say on stderr when other work is running: timings taken now mean little."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load average {load:.1f}): take these figures as rough.", file=sys.stderr)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
