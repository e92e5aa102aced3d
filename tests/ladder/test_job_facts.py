"""What `decide` reads off a job: data, tools that start afresh, near-duplicate demonstrations, the best ceiling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.rows import Demonstration
from agentrft.errors import UserError
from agentrft.jobs.load import load_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.job_facts import job_facts, likeness_of, resets
from agentrft.types import Message, ToolCall

ROOT = Path(__file__).parents[2]
PYTHON = {"type": "python", "target": "tools.py:f"}
SERVICE = {"name": "lookup", "server_url": "https://tools.example.com/lookup"}


def spec(**document: Any) -> JobSpec:
    return JobSpec.model_validate({"model": "m", "data": {}, **document})


@pytest.mark.parametrize(
    ("tools", "rules", "afresh"),
    [
        ([], None, True),
        ([PYTHON], None, True),
        ([{"type": "mcp", "server_label": "s", "command": ["python", "s.py"]}], None, True),
        ([{"type": "mcp", "server_label": "s", "command": ["python", "s.py"], "sessions": "job"}], None, None),
        ([{"type": "mcp", "server_label": "s", "server_url": "https://x.example.com/mcp"}], None, None),
        ([PYTHON, SERVICE], None, None),
        ([SERVICE], {"tools": {"look*": {"effect": "read"}}}, True),
        ([SERVICE], {"tools": {"look*": {"effect": "write"}}}, None),
    ],
)
def test_which_tools_start_afresh(tools: list[Any], rules: Any, afresh: bool | None) -> None:
    assert resets(spec(agent={"tools": tools}, guardrails=rules)) is afresh


def demonstration(question: str, answer: str, *calls: str) -> Demonstration:
    made = tuple(ToolCall(id=str(n), name=name, arguments="{}") for n, name in enumerate(calls))
    messages = (
        Message(role="user", content=question),
        *((Message(role="assistant", tool_calls=made),) if made else ()),
        Message(role="assistant", content=answer),
    )
    return Demonstration(id=question, messages=messages)


def test_nearly_the_same_questions_with_the_same_answers_are_predictable() -> None:
    same = [demonstration(f"translate the word number {n}", "ja bitte") for n in range(12)]
    assert likeness_of(same) == 1.0
    # Half of the words are shared: F1 is ½.
    half = [demonstration(f"translate the word number {n}", f"ja {n}") for n in range(12)]
    assert likeness_of(half) == 0.5
    walks = [demonstration(f"find the port of {n}", "80", *["ls"] * (1 + n % 2)) for n in range(12)]
    # All are as near as each other, so each is compared with the first other: ½ for the first and the six odd ones.
    assert likeness_of(walks) == pytest.approx((7 * 0.5 + 5 * 1.0) / 12)


def test_of_few_or_unlike_questions_nothing_is_said() -> None:
    assert likeness_of([]) is None
    assert likeness_of([demonstration("the same question", "a")] * 5) is None
    unlike = [demonstration(" ".join(chr(97 + n) * k for k in range(1, 6)), "a") for n in range(20)]
    assert likeness_of(unlike) is None


def test_a_job_without_a_grader_is_read_from_its_data(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]} for n in range(3)
    ]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    job = spec(data={"demonstrations": "demos.jsonl", "preferences": "pairs.jsonl"})
    facts = job_facts(job, tmp_path, None)
    assert (facts.grader, facts.demos, facts.pairs, facts.demo_calls) == (None, 3, 1, 0)
    with pytest.raises(UserError, match=r"gone\.jsonl"):
        job_facts(spec(data={"demonstrations": "gone.jsonl"}), tmp_path, None)


def test_of_a_diagnosis_it_takes_grader_findings_and_who_played() -> None:
    job, base_dir = load_job(str(ROOT / "examples" / "filenav" / "job.yaml"))
    ceiling = {"mean": 0.09, "low": 0.0, "high": 0.2, "n_items": 5, "n_episodes": 40}
    finding = {"owner": "output", "ceiling": ceiling}
    diagnosis = {
        "endpoint": "http://x/v1",
        "grader": {"name": "reward", "kind": "code"},
        "grading": {"repeat": {"icc": 0.9}, "second": {"rho": 0.7}, "fooled_by": ["empty"]},
        "figures": {"stop_reasons": {"answered": 30, "max_reply_tokens": 10}},
        "failures": {
            "findings": [
                finding,
                {"owner": "agent", "ceiling": {**ceiling, "mean": 0.5}},
                {"owner": "prompt", "ceiling": None},
            ]
        },
    }
    facts = job_facts(job, base_dir, diagnosis)
    assert (facts.grader, facts.icc, facts.rho, facts.fooled_by) == ("code", 0.9, 0.7, ("empty",))
    assert (facts.top_ceiling, facts.is_ours, facts.demos) == (0.09, False, 128)
    assert (facts.demo_calls, facts.cut_replies) == (3, 0.25)
