"""Where probes start from: an item, the trajectory so far, the right answer; and samples that end it differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentrft.types import Item, Message, Sample, StopReason, ToolCall

REFERENCE_FIELDS = ("answer", "reference_answer", "reference", "expected", "target", "label", "solution", "gold")
"""Where an item's right answer is looked for, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a probe makes its samples from."""

    item: Item
    start: Sample
    """An episode's trajectory up to its last reply; the prompt alone where nobody has played the item."""
    reference: str | None
    """The item's right answer, as text."""
    other_references: tuple[str, ...] = ()
    """Right answers of other items that are wrong here, each once."""
    tools: tuple[str, ...] = ()
    """Names of the agent's tools, as far as they are known."""


def reference_of(item: Item, field: str | None) -> str | None:
    """The item's right answer as text: of `field`, or of the first of `REFERENCE_FIELDS` that is text or a number."""
    for name in [field] if field else REFERENCE_FIELDS:
        value = item.fields.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


def other_references(reference: str | None, items: Sequence[Item], field: str | None) -> tuple[str, ...]:
    """The right answers of `items` that are not right here, in order, each once."""
    found = (reference_of(item, field) for item in items)
    return tuple(dict.fromkeys(text for text in found if text is not None and not is_right(text, reference)))


def is_right(text: str, reference: str | None) -> bool:
    """Whether the text is the right answer and nothing else: the same text, or the same number to 0.1 %."""
    if reference is None:
        return False
    if text.strip().casefold() == reference.strip().casefold():
        return True
    given, right = number_of(text), number_of(reference)
    return given is not None and right is not None and math.isclose(given, right, rel_tol=1e-3)


def number_of(text: str) -> float | None:
    """The finite number that an ASCII text is; None for any other text."""
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def near_number(reference: str | None) -> float | None:
    """A wrong number a tenth larger than the right one, of the same form; None where no number is right."""
    value = number_of(reference or "")
    if value is None:
        return None
    larger = value * 1.1 or 1.0
    if value == int(value):
        larger = float(round(larger)) if round(larger) != value else value + 1
    return larger


def is_near(text: str, reference: str | None) -> bool:
    """Whether the text is a number no farther from the right one than `near_number` is."""
    given, near = number_of(text), near_number(reference)
    if given is None or near is None or reference is None:
        return False
    right = float(reference)
    return abs(given - right) <= abs(near - right)


def start_of(item: Item, sample: Sample | None = None) -> Sample:
    """A sample's trajectory without its last reply (calls with results stay); the prompt alone without a sample."""
    messages = list(sample.messages if sample else ()) or list(item.messages)
    while messages and messages[-1].role == "assistant":
        messages.pop()
    n_calls = sum(len(message.tool_calls) for message in messages)
    return Sample(output_text="", messages=tuple(messages), n_calls=n_calls)


def answered(start: Sample, text: str) -> Sample:
    """The trajectory, then `text` as the final answer."""
    return replace(start, output_text=text, messages=(*start.messages, Message(role="assistant", content=text)))


def cut(start: Sample, text: str, stop_reason: StopReason) -> Sample:
    """The trajectory, then a reply that is no answer: graders see its text in `messages` only."""
    return replace(answered(start, text), output_text="", stop_reason=stop_reason)


def calling(start: Sample, calls: Sequence[tuple[str, str]]) -> Sample:
    """The trajectory, then (tool, JSON arguments) one after another, the last one without a result, and no answer."""
    messages = list(start.messages)
    made = [ToolCall(id=f"call_audit_{n}", name=name, arguments=given) for n, (name, given) in enumerate(calls)]
    for call in made:
        messages.append(Message(role="assistant", tool_calls=(call,)))
        if call is not made[-1]:
            messages.append(Message(role="tool", content="error: missing arguments", tool_call_id=call.id))
    return replace(
        start,
        output_tools=tuple(made[-1:]),
        messages=tuple(messages),
        stop_reason=StopReason.MAX_TURNS,
        n_calls=start.n_calls + len(made),
    )
