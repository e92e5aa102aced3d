"""What `decide` knows of a job besides its episodes: data, grader, tools, and how far prompts were searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rapidfuzz.distance import Levenshtein

from agentrft.data.preferences import Preference
from agentrft.data.rows import Demonstration
from agentrft.jobs.rows import demonstrations_of, preferences_of
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.facts import ItemFacts, JobFacts
from agentrft.ladder.plateau import plateau_from
from agentrft.tools.guardrails.access import rules_for
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.mcp_binding import McpBinding

_COMPARED = 200
"""Demonstrations that are compared with each other."""
_NEAR = 0.6
"""Likeness of two inputs from which on their outputs are compared."""
_FEWEST = 10
"""Demonstrations with a near input before anything is said of them."""


def item_facts(document: Mapping[str, Any]) -> list[ItemFacts]:
    """Of a diagnosis."""
    return [ItemFacts.of(item) for item in document["items"]]


def job_facts(
    spec: JobSpec,
    base_dir: Path,
    diagnosis: Mapping[str, Any] | None,
    optimisations: Sequence[Mapping[str, Any]] = (),
) -> JobFacts:
    """Of the job, its last diagnosis and its searches for better prompts (oldest first), where there are any.

    Raises UserError for data files that cannot be read.
    """
    demonstrations = demonstrations_of(spec, base_dir) if spec.data.demonstrations else []
    pairs = preferences_of(spec, base_dir) if spec.data.preferences else []
    grading = diagnosis["grading"] if diagnosis else None
    findings = diagnosis["failures"]["findings"] if diagnosis else []
    return JobFacts(
        grader=diagnosis["grader"]["kind"] if diagnosis else None,
        icc=grading["repeat"]["icc"] if grading else None,
        rho=grading["second"]["rho"] if grading and grading["second"] else None,
        fooled_by=tuple(grading["fooled_by"] or ()) if grading else (),
        demos=len(demonstrations),
        demo_calls=median(map(_calls, demonstrations)) if demonstrations else None,
        demo_likeness=likeness_of(demonstrations),
        pairs=sum(isinstance(one, Preference) for one in pairs),
        resettable=resets(spec),
        plateau=plateau_from(optimisations),
        top_ceiling=max((f["ceiling"]["mean"] for f in findings if f["ceiling"] and _is_mendable(f)), default=0.0),
        cut_replies=_cut_replies(diagnosis) if diagnosis else 0.0,
        is_ours=not (diagnosis and diagnosis["endpoint"]),
    )


def resets(spec: JobSpec) -> bool | None:
    """Whether tools start afresh for every episode; None where a service may carry something over.

    Python tools are made anew, and so is an MCP server that has a process or session of each episode's own. A service
    behind a URL does so too where all that it does is read.
    """
    kept = [binding for binding in spec.agent.tools if _may_keep(binding, spec)]
    return None if kept else True


def likeness_of(demonstrations: Sequence[Demonstration]) -> float | None:
    """How alike the demonstrated outputs of nearly the same inputs are, 0 to 1; None where few inputs are near.

    An output is its tool names in order where tools are called, else its words (F1 of their counts).
    """
    compared = [(_input_of(one), _output_of(one)) for one in demonstrations[:_COMPARED]]
    found: list[float] = []
    for place, (words, output) in enumerate(compared):
        others = [other for at, other in enumerate(compared) if at != place]
        near = max(others, key=lambda other: Levenshtein.normalized_similarity(words, other[0]), default=None)
        if near is not None and Levenshtein.normalized_similarity(words, near[0]) >= _NEAR:
            found.append(_alike(output, near[1]))
    return fmean(found) if len(found) >= _FEWEST else None


def _cut_replies(diagnosis: Mapping[str, Any]) -> float:
    stops = diagnosis["figures"]["stop_reasons"]
    return stops.get("max_reply_tokens", 0) / max(sum(stops.values()), 1)


def _is_mendable(finding: Mapping[str, Any]) -> bool:
    """Whether prompt, tools, outputs or limits own it."""
    return finding["owner"] in ("interface", "output", "harness", "prompt")


def _may_keep(binding: object, spec: JobSpec) -> bool:
    if isinstance(binding, HttpBinding):
        rules = rules_for(binding.name, spec.guardrails) if spec.guardrails else None
        return rules is None or rules.effect != "read"
    return isinstance(binding, McpBinding) and (binding.is_shared or binding.server_url is not None)


def _calls(demonstration: Demonstration) -> int:
    return sum(len(message.tool_calls) for message in demonstration.messages)


def _input_of(demonstration: Demonstration) -> list[str]:
    """Words of what the user asks first."""
    return next((m.content or "" for m in demonstration.messages if m.role == "user"), "").casefold().split()


def _output_of(demonstration: Demonstration) -> tuple[list[str], list[str]]:
    """Names of its calls, and words of its last reply."""
    names = [call.name for message in demonstration.messages for call in message.tool_calls]
    replies = [message.content or "" for message in demonstration.messages if message.role == "assistant"]
    return names, (replies[-1] if replies else "").casefold().split()


def _alike(one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]) -> float:
    if one[0] or other[0]:
        return Levenshtein.normalized_similarity(one[0], other[0])
    shared = sum((Counter(one[1]) & Counter(other[1])).values())
    return 2 * shared / max(len(one[1]) + len(other[1]), 1)
