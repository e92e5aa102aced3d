"""Evidence on one line."""

from __future__ import annotations

from agentrft.types import Sample

EVIDENCE_CHARACTERS = 120


def evidence_of(graded: Sample | str) -> str:
    """What was graded, on one line of at most 120 characters; what cannot be seen (control, zero width) as escapes.

    Of a sample that is the answer; without an answer the last message with its calls, and why the episode ended.
    """
    text = graded if isinstance(graded, str) else graded.output_text or _without_answer(graded)
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: 2 * EVIDENCE_CHARACTERS])
    line = line if line.strip() else repr(line)
    return line if len(line) <= EVIDENCE_CHARACTERS else line[: EVIDENCE_CHARACTERS - 1] + "…"


def _without_answer(sample: Sample) -> str:
    last = sample.messages[-1] if sample.messages else None
    calls = ", ".join(f"{call.name}({call.arguments})" for call in sample.output_tools)
    said = calls or (last.content if last and last.role == "assistant" else None) or "nothing"
    return f"[{sample.stop_reason}] {said}"
