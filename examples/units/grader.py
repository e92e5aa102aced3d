"""The grader of units: a number in [0, 1] for one episode, from what the tools really showed.

    reward  = quality × (1 − 0.15 × calls beyond the fewest that the question needs)
    quality = 0.7 × answer + 0.3 × steps

    e       relative error of the answer
    answer  1 if e ≤ 0.001 and a tool showed the number that was asked for, else 0.25 × exp(−4 e)
    steps   of the best way to the answer, the part whose numbers tools showed: each way is a list of numbers, the last
            is the answer

A guess is worth 0.25 × 0.7 at most, however good, and a wrong answer stays below 0.5, where success begins. The answer
must be one plain number (the asked unit may follow), so listing several earns nothing. Calls cost in proportion to
quality: being quick pays only when right.
"""

from __future__ import annotations

import math
import re

CALL_COST = 0.15
TOLERANCE = 1e-3
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?")


def grade(sample: dict, item: dict) -> float:
    """The reward of one episode on one row."""
    answer = _number((sample.get("output_text") or "").strip().removeprefix("Answer:").strip(), item["unit"])
    if sample.get("stop_reason", "answered") != "answered" or answer is None:
        return 0.0
    shown = _numbers_shown(sample)
    quality = 0.7 * _answer(answer, shown, item) + 0.3 * _steps(shown, item)
    extra_calls = max(0, _calls(sample) - item["calls"])
    return max(0.0, quality * (1 - CALL_COST * extra_calls))


def _answer(answer: float, shown: list[float], item: dict) -> float:
    right = float(item["answer"])
    error = abs(answer - right) / abs(right)
    if error <= TOLERANCE and _is_among(right, shown):
        return 1.0
    return 0.25 * math.exp(-4 * error)


def _steps(shown: list[float], item: dict) -> float:
    return max(sum(_is_among(step, shown) for step in way) / len(way) for way in item["ways"])


def _is_among(value: float, shown: list[float]) -> bool:
    return any(abs(number - value) <= TOLERANCE * abs(value) for number in shown)


def _numbers_shown(sample: dict) -> list[float]:
    """The numbers that tools gave back; an error message repeats the model's own words and is not a number."""
    outputs = [m.get("content") or "" for m in sample.get("messages") or [] if m.get("role") == "tool"]
    return [number for output in outputs if (number := _number(output, "")) is not None]


def _number(text: str, unit: str) -> float | None:
    text = text.removesuffix(f" {unit}") if unit else text
    return float(text) if _NUMBER.fullmatch(text) else None


def _calls(sample: dict) -> int:
    made = sum(len(message.get("tool_calls") or []) for message in sample.get("messages") or [])
    return max(made, sample.get("n_calls") or 0)
