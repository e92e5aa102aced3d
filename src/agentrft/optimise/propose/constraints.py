"""What a tool wants of its arguments and does not say: read from calls that it accepted and calls that it refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrft.optimise.edit import Edit
from agentrft.optimise.propose.evidence import CallSeen, Evidence, episodes_of, told
from agentrft.types import ToolSpec

FEWEST_REFUSED = 3
FEWEST_ACCEPTED = 3
_FORMATS = (
    (r"\d{4}-\d{2}-\d{2}", "ISO date"),
    (r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:?\d{2})?", "ISO date and time"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "date written with slashes"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "date written with dots"),
    (r"\d{2}:\d{2}", "time of day as HH:MM"),
    (r"[+-]?\d+", "whole number"),
    (r"[+-]?\d+\.\d+", "decimal number"),
    (r"[A-Z]{3}", "three capital letters"),
    (r"[^@\s]+@[^@\s]+\.[^@\s]+", "e-mail address"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"https?://\S+", "URL"),
)
_MOST_WORDS = 200


def constraints(evidence: Evidence) -> Iterator[Edit]:
    """For each argument of a tool that refuses calls: the form of accepted values, and what the refusals say."""
    for spec in evidence.tools:
        calls = evidence.calls_of(spec.name)
        refused = [call for call in calls if call.is_error]
        if len(refused) < FEWEST_REFUSED:
            continue
        accepted = [call for call in calls if not call.is_error]
        for name in _parameters(spec):
            yield from _form(evidence, spec.name, name, accepted, refused)
        yield from _words(evidence, spec, refused)


def _form(
    evidence: Evidence, tool: str, name: str, accepted: Sequence[CallSeen], refused: Sequence[CallSeen]
) -> Iterator[Edit]:
    """The form that all accepted values of an argument have and that most refused ones lack."""
    good = _values(accepted, name)
    bad = _values(refused, name)
    rule = _rule(good, bad) if len(good) >= FEWEST_ACCEPTED and len(bad) >= FEWEST_REFUSED else None
    if rule is None:
        return
    why = f"{tool} refused {len(bad)} calls whose `{name}` was written otherwise (such as {_shown(bad[0])})"
    yield _parameter_edit(evidence, f"tool:{tool}:{name}", tool, name, rule, why, episodes_of(refused))


def _words(evidence: Evidence, spec: ToolSpec, refused: Sequence[CallSeen]) -> Iterator[Edit]:
    """The commonest refusal in the tool's own words, at the argument that it names, or at the tool."""
    said = Counter(_sentence(call.output) for call in refused)
    sentence, count = said.most_common(1)[0]
    if count < FEWEST_REFUSED or not sentence:
        return
    why = f"{spec.name} refused {count} calls with these words"
    shown = episodes_of([call for call in refused if _sentence(call.output) == sentence])
    names = [name for name in _parameters(spec) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)]
    note = f'Refused otherwise: "{sentence}".'
    if names:
        yield _parameter_edit(evidence, f"tool:{spec.name}:refusal", spec.name, names[0], note, why, shown)
    else:
        yield tool_edit(evidence, f"tool:{spec.name}:refusal", spec.name, note, why, shown)


def _parameter_edit(
    evidence: Evidence, component: str, tool: str, name: str, more: str, why: str, episodes: tuple[str, ...]
) -> Edit:
    """A sentence more in the description of an argument."""
    place = ("agent", "tool_docs", tool, "parameters", name)
    adds = ((place, told(evidence.tools, tool, name), more),)
    return Edit(kind="tools", component=component, adds=adds, why=why, evidence=episodes)


def tool_edit(evidence: Evidence, component: str, tool: str, more: str, why: str, episodes: tuple[str, ...]) -> Edit:
    """A sentence more in the description of a tool."""
    adds = ((("agent", "tool_docs", tool, "description"), told(evidence.tools, tool), more),)
    return Edit(kind="tools", component=component, adds=adds, why=why, evidence=episodes)


def _rule(good: Sequence[Any], bad: Sequence[Any]) -> str | None:
    """Words for what tells accepted values from refused ones; None where nothing does."""
    example = Counter(map(_shown, good)).most_common(1)[0][0]
    texts, wrong = list(map(_text, good)), list(map(_text, bad))
    for pattern, name in _FORMATS:
        if all(re.fullmatch(pattern, text) for text in texts) and _mostly(not re.fullmatch(pattern, t) for t in wrong):
            return f"{name[0].upper()}{name[1:]}, e.g. {example}."
    shapes = {_shape(text) for text in texts}
    if len(shapes) <= 2 and _mostly(_shape(text) not in shapes for text in wrong):
        return f"Written like {example}."
    return _bounds(good, bad)


def _bounds(good: Sequence[Any], bad: Sequence[Any]) -> str | None:
    numbers = [[value for value in side if _is_number(value)] for side in (good, bad)]
    if len(numbers[0]) < len(good) or len(numbers[1]) < len(bad):
        return None
    low, high = min(numbers[0]), max(numbers[0])
    if _mostly(value > high for value in bad):
        return f"At most {high:g}."
    return f"At least {low:g}." if _mostly(value < low for value in bad) else None


def _mostly(signs: Iterator[bool]) -> bool:
    found = list(signs)
    return sum(found) >= 0.8 * len(found)


def _shape(text: str) -> str:
    """A value with its characters replaced by their kinds, runs collapsed: `ORD-1042` is `A-9`."""
    kinds = re.sub(r"[^\W\d_]", lambda m: "A" if m[0].isupper() else "a", re.sub(r"\d", "9", text))
    return re.sub(r"(.)\1+", r"\1", kinds)


def _sentence(output: str) -> str:
    """The first line of a refusal, without the word that every refusal begins with, numbers kept."""
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, Mapping):
        output = str(document.get("error") or document.get("message") or output)
    first = next((line.strip() for line in output.splitlines() if line.strip()), "")
    first = re.sub(r"^(error|failed|failure)\s*[:\-]\s*", "", first, flags=re.IGNORECASE)
    return first.replace('"', "'")[:_MOST_WORDS].strip().rstrip(".")


def _values(calls: Sequence[CallSeen], name: str) -> list[Any]:
    return [call.arguments[name] for call in calls if call.arguments.get(name) not in (None, "")]


def _parameters(spec: ToolSpec) -> list[str]:
    properties = spec.parameters.get("properties")
    return list(properties) if isinstance(properties, Mapping) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    return _text(value)[:60]
