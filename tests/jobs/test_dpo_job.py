"""`dpo` in the job document, and what the checks say of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job, parse_job
from agentrft.losses import DpoLoss, KtoLoss, SimpoLoss

MakeJob = Callable[..., Path]


def call(name: str = "look", **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def question(n: int) -> dict[str, Any]:
    return {"role": "user", "content": f"what does w{n} mean"}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def pair(n: int = 0, good: Any = None, bad: Any = None) -> dict[str, Any]:
    return {
        "input": {"messages": [question(n)]},
        "preferred_output": [good or said("a word")],
        "non_preferred_output": [bad or said("no")],
    }


def rated(n: int, desirable: bool) -> dict[str, Any]:
    return {"messages": [question(n), said("a word")], "desirable": desirable}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def check(make_job: MakeJob) -> Callable[..., Any]:
    def run(text: str, *, held_out: str | None = None, **dpo: Any):
        changes: dict[str, Any] = {"method.type": "dpo", "method.dpo": dpo, "data.preferences": "pairs.jsonl"}
        path = make_job(changes | ({"data.preferences_validation": "held_out.jsonl"} if held_out else {}))
        (path.parent / "pairs.jsonl").write_text(text)
        if held_out:
            (path.parent / "held_out.jsonl").write_text(held_out)
        return check_job(*load_job(path))

    return run


def facts(report: Any) -> dict[str, str]:
    return dict(report.facts)


def test_a_right_job_passes_and_is_described(check):
    report = check(lines(pair(1), pair(2, call(word="w"), call(word="x"))), held_out=lines(pair(3)))
    assert [problem.message for problem in report.problems] == []
    assert facts(report)["preferences"] == "2 pairs, 1 held out"
    assert facts(report)["longest in pairs.jsonl"].endswith("tokens")
    assert not any("preferences" in warning for warning in report.warnings)


def test_rated_conversations_and_a_lopsided_file(check):
    rows = [rated(n, n > 1) for n in range(5)]
    report = check(lines(*rows), loss={"type": "kto"})
    assert report.problems == []
    assert facts(report)["preferences"] == "5 rated conversations"
    assert any("no `data.preferences_validation`" in warning for warning in report.warnings)
    assert not any("desirable" in warning for warning in report.warnings)  # 3 to 2
    report = check(lines(*rows), loss={"type": "kto", "desirable_weight": 4})
    assert any("3 desirable and 2 undesirable conversations; KTO wants" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("text", "dpo", "code", "words"),
    [
        (lines(pair(), {"input": 1}), {}, "invalid_row", "line 2: `input` is 1"),
        (lines(pair(good=call("jump"))), {}, "unknown_tool", "line 1: the preferred output calls 'jump'"),
        (lines(pair(good=call(wort="w"))), {}, "invalid_demonstration", "Mend the preferred output"),
        (lines(pair(good=said("a " * 400))), {}, "context_overflow", "line 1: The preferred side of preference"),
        (lines(rated(1, True)), {}, "invalid_row", "train on rated conversations with `method.dpo.loss: {type: kto}`"),
        (lines(pair()), {"loss": {"type": "kto"}}, "invalid_row", "train on pairs with"),
        ("", {}, "empty_file", "holds no rows"),
    ],
)
def test_what_cannot_be_trained_on_is_named(check, text, dpo, code, words):
    problems = [problem for problem in check(text, **dpo).problems if words in problem.message]
    assert [(problem.code, problem.param) for problem in problems] == [(code, "data.preferences")]


def test_a_question_is_on_one_side_only(check):
    # The same question after a call is the same question.
    after = {
        "input": {"messages": [question(2), call(word="w"), {"role": "tool", "tool_call_id": "c", "content": "x"}]},
        "preferred_output": [said("a")],
        "non_preferred_output": [said("b")],
    }
    (problem,) = check(lines(pair(1), pair(2)), held_out=lines(pair(3), after)).problems
    assert (problem.code, problem.param) == ("overlapping_splits", "data.preferences_validation")
    assert "line 2 is line 2 there" in problem.message


def test_a_dpo_job_without_preferences_is_told_how_to_make_them(make_job: MakeJob):
    report = check_job(*load_job(make_job({"method.type": "dpo"})))
    (problem,) = report.problems
    assert (problem.code, problem.param) == ("preferences_missing", "data.preferences")
    assert "agentrft pairs" in problem.message


def job(**dpo: Any) -> dict[str, Any]:
    return {"model": "m", "method": {"type": "dpo", "dpo": dpo}, "data": {"preferences": "p.jsonl"}}


@pytest.mark.parametrize(
    ("dpo", "loss"),
    [
        ({}, DpoLoss()),
        ({"hyperparameters": {"beta": 0.2}}, DpoLoss(beta=0.2)),
        ({"loss": {"type": "dpo", "nll_coef": 1}, "hyperparameters": {"beta": 0.2}}, DpoLoss(beta=0.2, nll_coef=1)),
        ({"loss": {"type": "simpo", "beta": 2.5}}, SimpoLoss(beta=2.5)),
        ({"loss": {"type": "kto"}, "hyperparameters": {"beta": 0.3}}, KtoLoss(beta=0.3)),
    ],
)
def test_beta_goes_where_the_loss_has_it_and_survives_the_store(dpo, loss):
    spec = parse_job(job(**dpo))
    assert spec.method.dpo.loss == loss
    assert parse_job(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("dpo", "words"),
    [
        ({"loss": {"type": "dpo", "beta": 0.1}, "hyperparameters": {"beta": 0.2}}, "are the same setting"),
        ({"loss": {"type": "ipo"}}, "`method.dpo.loss.type`: expected one of"),
        ({"loss": {"type": "simpo", "nll_coef": 1}}, "unknown key `nll_coef`"),
        ({"hyperparameters": {"beta": 0}}, "`method.dpo.hyperparameters.beta`"),
        ({"hyperparameters": {"beta": "auto"}}, "`method.dpo.hyperparameters.beta`"),
        ({"patience": 0}, "`method.dpo.patience`"),
        ({"hyperparameters": {"epochs": 1}}, "unknown key `epochs`"),
    ],
)
def test_what_cannot_take_effect_is_refused(dpo, words):
    with pytest.raises(UserError) as caught:
        parse_job(job(**dpo))
    assert words in caught.value.message


def test_a_split_may_not_be_called_preferences():
    with pytest.raises(UserError, match="splits may not be called preferences"):
        parse_job({"model": "m", "data": {"splits": {"preferences": "a.jsonl"}}})


def test_the_example_plays_the_agent_of_the_job_whose_episodes_it_takes():
    folder = Path(__file__).parents[2] / "examples" / "filenav"
    spec, _ = load_job(folder / "dpo.yaml")
    played, _ = load_job(folder / "job.yaml")
    assert spec.method.type == "dpo"
    assert (spec.agent, spec.guardrails, spec.model) == (played.agent, played.guardrails, played.model)
