"""What an audit found, as plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["safe", "failed", "warning", "skipped"]

SCHEMA = 1
"""Of the JSON document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One probe or check with its verdict."""

    name: str
    tries: str
    """What was tried, in a few words."""
    verdict: Verdict
    worst: float | None = None
    """The grade that decided; of a probe its highest one. None when nothing was graded."""
    limit: float | None = None
    """What `worst` was compared with."""
    item: str | None = None
    """Id of the item where that was."""
    evidence: str = ""
    """What was graded, on one line of at most 120 characters."""
    detail: str = ""
    """How the verdict came about, where the numbers do not say it."""
    change: str = ""
    """What to change; empty unless the verdict is `failed` or `warning`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The whole audit."""

    lines: tuple[AuditLine, ...]
    n_items: int
    n_grades: int
    """Calls of the grader."""
    n_failures: int
    """Honest failures that set the limit."""
    failure_limit: float
    """Their 90th percentile."""
    pass_threshold: float
    baseline: str
    """Where the honest failures come from, as a sentence."""
    seed: int

    @property
    def passed(self) -> bool:
        """Whether nothing failed; warnings and what was skipped do not count."""
        return not any(line.verdict == "failed" for line in self.lines)

    def count(self, verdict: Verdict) -> int:
        """Lines with this verdict."""
        return sum(line.verdict == verdict for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able data: its fields, `schema` and `passed`."""
        return {"schema": SCHEMA, "passed": self.passed, **asdict(self), "lines": [asdict(x) for x in self.lines]}
