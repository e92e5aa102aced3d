"""What detectors are told of a job's episodes: the items, the tools as they were offered, the limits in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from agentrft.detectors import InForce, Seen
from agentrft.diagnose import Baseline
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord
from agentrft.tools import JobTools
from agentrft.tools.guardrails.access import rules_for

Effect = Literal["read", "write"]


def seen_of(
    spec: JobSpec, tools: JobTools, baseline: Baseline, records_I_G: Sequence[Sequence[EpisodeRecord]]
) -> list[Seen]:
    """Every record with what it was played under, in the order of the items."""
    limits = InForce(**{name: getattr(spec.agent.limits, name) for name in InForce.__dataclass_fields__})
    mode = spec.guardrails.mode if spec.guardrails else "observe"
    effects = effects_of(spec, tools)
    rules = {name: rules_for(name, spec.guardrails) for name in tools.names} if spec.guardrails else {}
    polling = frozenset(name for name, rule in rules.items() if rule.polling)
    return [
        Seen(
            record=record,
            item=group.item,
            tools=tools.presented(group.item.tools) if group.item.tools else tools.specs,
            limits=limits,
            guardrails=mode,
            effects=effects,
            polling=polling,
            raw=record.extra.get("raw", {}),
        )
        for group, records_G in zip(baseline.groups, records_I_G, strict=True)
        for record in records_G
    ]


def effects_of(spec: JobSpec, tools: JobTools) -> Mapping[str, Effect]:
    """What the job, or the tool itself where the job is silent, says of each tool."""
    found: dict[str, Effect] = {}
    for name in tools.names:
        writes = tools.hints(name).writes
        own: Effect | None = None if writes is None else "write" if writes else "read"
        said = (rules_for(name, spec.guardrails).effect if spec.guardrails else None) or own
        if said is not None:
            found[name] = said
    return found
