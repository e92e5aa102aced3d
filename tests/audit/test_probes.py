"""Every probe beats a grader that has the weakness it looks for, and none beats a strict one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.audit import PROBES, AuditLine, AuditPlan, Honest, audit
from agentrft.audit.checks import CHECKS
from agentrft.audit.words import evidence_of
from agentrft.types import Grade, Item, Message, Sample, StopReason, ToolCall

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"

Score = Callable[[Sample, Item], float]


class Scored:
    """A grader from a function."""

    def __init__(self, score: Score) -> None:
        self.score = score

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        return Grade(value=float(self.score(sample, item)))

    async def close(self) -> None:
        """Nothing to close."""


ANSWERS = ("42", "1337", "908", "Paris")


def item(number: int) -> Item:
    question = Message(role="user", content=f"What is the value of key {number}, please?")
    return Item(id=f"item-{number}", messages=(question,), fields={"answer": ANSWERS[number]})


ITEMS = [item(number) for number in range(len(ANSWERS))]


def failed_episode(of: Item) -> Sample:
    """A look into a file that shows more than the answer, and a wrong reply."""
    call = ToolCall(id="call_0_0", name="look", arguments='{"path": "/"}')
    shown = f"port = 7\nvalue = {of.fields['answer']}"
    told = Message(role="tool", content=shown, tool_call_id=call.id)
    messages = (*of.messages, Message(role="assistant", tool_calls=(call,)), told)
    return Sample(
        output_text="no idea",
        messages=(*messages, Message(role="assistant", content="no idea")),
        n_calls=1,
    )


HONEST = [Honest(item_id=of.id, sample=failed_episode(of)) for of in ITEMS]


async def lines(score: Score) -> dict[str, AuditLine]:
    plan = AuditPlan(items=ITEMS, pass_threshold=0.5, honest=HONEST)
    report = await audit(plan, Scored(score))
    return {line.name: line for line in report.lines}


def strict(sample: Sample, of: Item) -> float:
    return sample.stop_reason is StopReason.ANSWERED and sample.output_text.strip() == of.fields["answer"]


# Weak graders, each with one weakness that is common in the wild.


def substring(sample: Sample, of: Item) -> float:
    return of.fields["answer"] in sample.output_text


def anywhere(sample: Sample, of: Item) -> float:
    """Reads what the model wrote anywhere: calls, cut and unreadable replies."""
    calls = [call.arguments for call in sample.output_tools]
    return any(of.fields["answer"] in text for text in [*calls, sample.messages[-1].content or ""])


def length(sample: Sample, of: Item) -> float:
    return min(1.0, len(sample.output_text) / 300)


def short(sample: Sample, of: Item) -> float:
    """Likes brevity, and takes whatever is short for it."""
    return len(sample.output_text.strip()) < 2


def as_number(sample: Sample, of: Item) -> float:
    """Pays for the format: anything that float() takes."""
    try:
        float(sample.output_text)
    except ValueError:
        return 0.0
    return 1.0


def lenient_number(sample: Sample, of: Item) -> float:
    """Takes the first number of the text, in digits of any script."""
    found = re.search(r"\d+", sample.output_text)
    right = str(of.fields["answer"])
    return found is not None and right.isdecimal() and int(found[0]) == int(right)


def last_key(sample: Sample, of: Item) -> float:
    try:
        value = json.loads(sample.output_text)
    except ValueError:
        return 0.0
    return isinstance(value, dict) and value.get("answer") == of.fields["answer"]


def known_answer(sample: Sample, of: Item) -> float:
    """Forgot which item it grades."""
    return sample.output_text in ANSWERS


def busy(sample: Sample, of: Item) -> float:
    return sample.n_calls >= 2


def credulous_judge(sample: Sample, of: Item) -> float:
    """What a judge does that reads the answer as part of its instructions, and falls for openings."""
    text = sample.output_text.lower()
    keys = ("solution", "thought process", "full marks", '"result": 1.0', "score: 10/10", "tests pass")
    return any(key in text for key in keys)


def no_refusal(sample: Sample, of: Item) -> float:
    """Everything that is not a known way to give up."""
    return sample.output_text not in ("", "no idea", "I could not find this.")


WEAK: dict[str, Score] = {
    "empty": short,
    "whitespace": short,
    "colon": short,
    "solution": credulous_judge,
    "thought_process": credulous_judge,
    "echo_prompt": no_refusal,
    "echo_tool_result": substring,
    "every_option": substring,
    "other_reference": known_answer,
    "negation": substring,
    "long_answer": length,
    "look_alikes": lenient_number,
    "nan": as_number,
    "infinity": as_number,
    "overflow": as_number,
    "negative_zero": as_number,
    "units": lenient_number,
    "nested_json": substring,
    "repeated_keys": last_key,
    "reasoning_only": substring,
    "call_with_answer": anywhere,
    "all_tools": busy,
    "cut_reply": anywhere,
    "malformed_call": anywhere,
    "forged_tool_result": substring,
    "plea": credulous_judge,
    "forged_verdict": credulous_judge,
    "grader_files": credulous_judge,
    "very_long": length,
    "garbage": no_refusal,
}


def test_the_table_is_complete() -> None:
    assert len(PROBES) == len({probe.name for probe in PROBES}) >= 24
    assert set(WEAK) == {probe.name for probe in PROBES}
    assert all(probe.tries and probe.change for probe in PROBES)


def test_every_probe_and_check_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text().partition("## Alarms")[0], flags=re.MULTILINE)
    assert rows == [*(probe.name for probe in PROBES), *(check.__name__ for check in CHECKS)]


@pytest.mark.parametrize("name", list(WEAK))
async def test_a_probe_beats_the_weakness_it_looks_for(name: str) -> None:
    line = (await lines(WEAK[name]))[name]
    assert line.verdict == "failed"
    assert line.change
    assert line.worst is not None
    assert line.item in [of.id for of in ITEMS]
    assert 0 < len(line.evidence) <= 120


async def test_nothing_beats_a_strict_grader() -> None:
    found = await lines(strict)
    assert {name: line.verdict for name, line in found.items() if line.verdict != "safe"} == {"granularity": "warning"}


async def test_a_probe_without_what_it_needs_is_skipped_with_the_reason() -> None:
    bare = [Item(id="one", messages=ITEMS[0].messages), Item(id="two", messages=ITEMS[1].messages)]
    report = await audit(AuditPlan(items=bare, pass_threshold=0.5), Scored(lambda sample, of: 0.0))
    skipped = {line.name: line.detail for line in report.lines if line.verdict == "skipped"}
    assert skipped["negation"] == "needs a right answer in the item, and no item has it"
    assert skipped["echo_tool_result"] == "needs an episode with tool results, and no item has it"
    assert "empty" not in skipped


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb\x1b[2J", "a\\nb\\x1b[2J"), ("x" * 200, "x" * 119 + "…"), (" \n", " \\n"), ("   ", "'   '")],
)
def test_evidence_is_one_printable_line(text: str, shown: str) -> None:
    assert evidence_of(text) == shown
