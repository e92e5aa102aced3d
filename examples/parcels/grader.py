"""The grader of parcels: a number in [0, 1] for one episode, from the state that the tools left behind.

    reward = quality × (1 − 0.15 × calls beyond two)

    quality   1     the parcel lies where it should, the others where they lay, and the answer is its old shelf
              0.3   the depot is as it should be, but the answer is wrong
              0.1   it is not, but a tool showed the parcel
              0     otherwise; also no answer, or an episode that was cut off

The state is worked out from the row's depot and the moves that the server reported: whole lines of tool results, in
order. Nothing that the model says counts, and neither does an error message, which repeats the model's own words. Two
calls are needed: one to learn the parcel's id, one to move it. Calls cost in proportion to quality: being quick pays
only when right.
"""

from __future__ import annotations

import re

CALL_COST = 0.15
FEWEST_CALLS = 2
_SHOWN = re.compile(
    r"(?P<id>P\d\d) \w+ for \w+ (?:on [A-E][1-4]|moved from (?P<before>[A-E][1-4]) to (?P<after>[A-E][1-4]))", re.ASCII
)


def grade(sample: dict, item: dict) -> float:
    """The reward of one episode on one row."""
    answer = (sample.get("output_text") or "").strip().removeprefix("Answer:").strip()
    if sample.get("stop_reason", "answered") != "answered" or not answer:
        return 0.0
    extra_calls = max(0, _calls(sample) - FEWEST_CALLS)
    return max(0.0, _quality(answer, item, _lines_shown(sample)) * (1 - CALL_COST * extra_calls))


def _quality(answer: str, item: dict, shown: list[dict]) -> float:
    found = {parcel: line.split()[2] for parcel, line in item["parcels"].items()}
    left = found | {line["id"]: line["after"] for line in shown if line["after"]}
    if left == found | {item["parcel"]: item["to"]}:
        return 1.0 if answer == item["answer"] else 0.3
    return 0.1 if any(line["id"] == item["parcel"] for line in shown) else 0.0


def _lines_shown(sample: dict) -> list[dict]:
    outputs = [m.get("content") or "" for m in sample.get("messages") or [] if m.get("role") == "tool"]
    lines = [line for output in outputs if not output.startswith("error:") for line in output.split("\n")]
    return [match.groupdict() for line in lines if (match := _SHOWN.fullmatch(line))]


def _calls(sample: dict) -> int:
    made = sum(len(message.get("tool_calls") or []) for message in sample.get("messages") or [])
    return max(made, sample.get("n_calls") or 0)
