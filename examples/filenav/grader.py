"""The grader of filenav: a number in [0, 1] for one episode, from what the tools really showed.

    reward = quality × (1 − 0.15 × (calls − 1))

    quality   1     the answer is exactly right, and a tool showed the line it stands in
              0.2   the answer is wrong, but a tool showed the right line
              0.05  a tool showed some line of the right service
              0     otherwise; also no answer, or an episode that was cut off

Nothing that the model says counts as evidence: only tool results do, only whole lines of config files in them, and an
error message (which repeats the model's own words) never. The answer must be the value and nothing else, so listing
several values is a wrong answer. Calls cost in proportion to quality: being quick pays only when right.
"""

from __future__ import annotations

import re

CALL_COST = 0.15
_LINE = re.compile(r"(?:(?P<file>/\S+): )?(?P<service>[\w-]+)\.(?P<key>\w+) = (?P<value>\S+)", re.ASCII)


def grade(sample: dict, item: dict) -> float:
    """The reward of one episode on one row."""
    answer = (sample.get("output_text") or "").strip().removeprefix("Answer:").strip()
    if sample.get("stop_reason", "answered") != "answered" or not answer:
        return 0.0
    extra_calls = max(0, _calls(sample) - 1)
    return max(0.0, _quality(answer, item, _lines_shown(sample)) * (1 - CALL_COST * extra_calls))


def _quality(answer: str, item: dict, shown: list[dict]) -> float:
    of_service = [line for line in shown if line["service"] == item["service"]]
    right = [item["key"], item["answer"]]
    # `cat` shows no file name; the generator gives every environment its own value, so the value tells the file.
    found = any([line["key"], line["value"]] == right and line["file"] in (None, item["file"]) for line in of_service)
    if found:
        return 1.0 if answer == item["answer"] else 0.2
    return 0.05 if of_service else 0.0


def _lines_shown(sample: dict) -> list[dict]:
    outputs = [m.get("content") or "" for m in sample.get("messages") or [] if m.get("role") == "tool"]
    lines = [line for output in outputs if not output.startswith("error:") for line in output.split("\n")]
    return [match.groupdict() for line in lines if (match := _LINE.fullmatch(line))]


def _calls(sample: dict) -> int:
    made = sum(len(message.get("tool_calls") or []) for message in sample.get("messages") or [])
    return max(made, sample.get("n_calls") or 0)
