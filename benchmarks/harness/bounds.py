"""Figures beside what is required of them, for benchmarks that have no peer: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.result import machine, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A measured number beside what is required of it."""

    name: str
    unit: str
    ours: float
    limit: float | None = None
    """None for what is only reported."""
    must_be: Literal["at least", "at most", "below"] = "at most"

    @property
    def reached(self) -> bool | None:
        """Whether it is as required; None where nothing is."""
        if self.limit is None:
            return None
        if self.must_be == "at least":
            return self.ours >= self.limit
        return self.ours < self.limit if self.must_be == "below" else self.ours <= self.limit

    @property
    def requirement(self) -> str:
        """In words; empty where nothing is required."""
        return "" if self.limit is None else f"{self.must_be} {self.limit:g}"


def as_json(found: Sequence[Bound], details: Mapping[str, Any]) -> dict[str, Any]:
    """`{cases: [{name, unit, ours, limit, reached}], speedup: null}`, and beside it checks, machine and details."""
    cases = [
        {"name": one.name, "unit": one.unit, "ours": round(one.ours, 4), "limit": one.limit, "reached": one.reached}
        for one in found
    ]
    checks = {f"{one.name} {one.requirement} {one.unit}".strip(): one.reached for one in found if one.requirement}
    return {"cases": cases, "speedup": None, "checks": checks, "machine": machine(), "details": dict(details)}


def deliver(title: str, found: Sequence[Bound], details: Mapping[str, Any], json_file: Path | None) -> None:
    """Print the table, and write the JSON where the user asked for it."""
    verdicts = {True: "reached", False: "MISSED", None: ""}
    rows = [(one.name, one.unit, f"{one.ours:.4g}", one.requirement, verdicts[one.reached]) for one in found]
    print(f"\n{title}\n" + table([("", "unit", "ours", "required", ""), *rows]))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(as_json(found, details), indent=2) + "\n", encoding="utf-8")
