"""The diagnosis as JSON data: what the terminal, the page, `decide` and the API read. Fields: docs/diagnose.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agentrft.detectors import Seen
from agentrft.diagnose.baseline import Baseline
from agentrft.diagnose.failures import Failures, failures_of
from agentrft.diagnose.figures import ItemFigures, figures_of, item_figures, no_results
from agentrft.diagnose.paths import paths_of
from agentrft.diagnose.repeat import Agreement, Repeatability
from agentrft.diagnose.tool_figures import tool_figures
from agentrft.diagnose.verdict import Bounds, Evidence, rule
from agentrft.errors import UserError
from agentrft.protocols import EpisodeRecord

SCHEMA = 1
"""Of the JSON document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that a diagnosis looks at."""

    baseline: Baseline
    records_I_G: Sequence[Sequence[EpisodeRecord]]
    """As stored, in the order of the baseline's groups."""
    seen: Sequence[Seen]
    tool_names: Sequence[str]
    """Every bound tool."""
    repeat: Repeatability
    agreement: Agreement | None = None
    fooled_by: tuple[str, ...] | None = None
    """Probes of the grader audit that failed; None when it did not run."""
    bounds: Bounds = field(default_factory=Bounds)


def diagnose(diagnosis: Diagnosis) -> dict[str, Any]:
    """The document, but for what only the job knows. Raises UserError when no episode has a grade."""
    baseline, plan = diagnosis.baseline, diagnosis.baseline.plan
    items = item_figures(baseline)
    if not any(item.rewards for item in items):
        reasons = no_results([grade for group in baseline.groups for grade in group.grades])
        raise UserError(
            f"None of the {plan.n_episodes} episodes could be graded: {reasons}. Mend the grader or the tools and run "
            "again.",
            code="nothing_graded",
        )
    usage = {
        r.episode.id: r.extra["usage"] for records_G in diagnosis.records_I_G for r in records_G if "usage" in r.extra
    }
    figures = figures_of(baseline, items, usage)
    failures = failures_of(diagnosis.seen, plan.pass_threshold)
    evidence = Evidence(
        figures=figures,
        samples=plan.samples,
        repeat=diagnosis.repeat,
        agreement=diagnosis.agreement,
        fooled_by=diagnosis.fooled_by,
    )
    document = {
        "schema": SCHEMA,
        "split": plan.split,
        "n_items": len(plan.items),
        "samples": plan.samples,
        "n_episodes": plan.n_episodes,
        "pass_threshold": plan.pass_threshold,
        "verdict": rule(evidence, diagnosis.bounds).to_json(),
        "bounds": asdict(diagnosis.bounds),
        "figures": figures.to_json(),
        "grading": {
            "repeat": diagnosis.repeat.to_json(),
            "second": diagnosis.agreement.to_json() if diagnosis.agreement else None,
            "fooled_by": None if diagnosis.fooled_by is None else list(diagnosis.fooled_by),
        },
        "failures": failures.to_json(),
        "tools": [one.to_json() for one in tool_figures(baseline.groups, diagnosis.tool_names)],
        "items": [
            _item(item, records_G, failures, plan.pass_threshold)
            for item, records_G in zip(items, diagnosis.records_I_G, strict=True)
        ],
    }
    return _writable(document)


def _writable(value: Any) -> Any:
    """Half surrogate pairs, which no encoding takes, replaced; numbers that JSON does not have as null."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_writable(key): _writable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(part) for part in value]
    return value


def _item(
    item: ItemFigures, records_G: Sequence[EpisodeRecord], failures: Failures, pass_threshold: float
) -> dict[str, Any]:
    """The item's figures, its paths, and its failed episodes by what `decide` asks of them."""
    causes = [cause for record in records_G if (cause := failures.causes.get(record.episode.id)) is not None]
    kinds: Mapping[str, int] = Counter(cause.kind.value for cause in causes)
    return {
        **item.to_json(),
        "paths": paths_of(records_G, pass_threshold).to_json(),
        "failed": len(causes),
        "failed_interface": sum(cause.is_interface for cause in causes),
        "failed_format": sum(cause.is_format for cause in causes),
        "classes": dict(kinds),
        "episodes": [record.episode.id for record in records_G],
    }
