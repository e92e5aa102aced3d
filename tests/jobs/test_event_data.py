"""Events of type `metrics` in OpenAI's form; every number worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.graders import build_grader
from agentrft.jobs.event_data import teller
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord
from agentrft.train.log import StepFigures
from agentrft.types import (
    Episode,
    Grade,
    GradeError,
    Item,
    Message,
    Sample,
    StopReason,
    TokenTrace,
    TokenUsage,
    ToolCall,
    ToolResult,
    Turn,
)

EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
JUDGE = {"type": "score_model", "name": "style", "model": "judge-1", "input": [{"role": "user", "content": "x"}]}
CODE = {"type": "python", "name": "code", "source": "def grade(sample, item):\n    return 1.0"}


def spec(grader: dict[str, Any]) -> JobSpec:
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    return JobSpec.model_validate({"model": "m", "method": method, "data": {"train": "t.jsonl"}})


def record(
    grade: Grade,
    *,
    phase: Any = "train",
    turns: tuple[Turn, ...] = (),
    generated: int = 10,
    stop: StopReason = StopReason.ANSWERED,
) -> EpisodeRecord:
    """An episode whose prompt has 5 tokens; `generated` are the policy's."""
    tokens = TokenTrace(
        ids=[0] * (5 + generated),
        trained=[False] * 5 + [True] * generated,
        log_probs=[0.0] * (5 + generated),
        prompt_tokens=5,
        policy_version=0,
    )
    episode = Episode(
        id="ep_1",
        trace_id="trace_1",
        item_id="i",
        step=1,
        member=0,
        attempt=0,
        messages=(),
        turns=turns,
        stop_reason=stop,
        tokens=tokens,
        fault="down" if stop is StopReason.FAULT else None,
    )
    return EpisodeRecord(job_id="j", phase=phase, stage="rft", episode=episode, grade=grade, reward=grade.value)


def calling(name: str, start: int, end: int, *, wall_s: float = 1.0, is_error: bool = False) -> Turn:
    call = ToolCall(id="c", name=name, arguments="{}")
    result = ToolResult(call_id="c", output="r", wall_s=wall_s, is_error=is_error)
    return Turn(reply=Message(role="assistant", tool_calls=(call,)), results=(result,), start=start, end=end)


def answer(start: int, end: int) -> Turn:
    return Turn(reply=Message(role="assistant", content="a"), start=start, end=end)


def told(kind: str, document: JobSpec, **figures: Any) -> tuple[str, dict[str, Any]]:
    return teller(document, kind)(StepFigures(**{"step": 10, "steps": 20, "metrics": {}} | figures))


# ---------------------------------------------------------------------------------------------------- losses


def test_a_supervised_step_in_openais_words() -> None:
    metrics = {"loss": 0.151, "valid_nll": 0.4, "grad_norm": 1.0, "token_accuracy": 0.9}
    message, data = told("supervised", spec(EXACT), step=300, steps=300, metrics=metrics)
    assert message == "Step 300/300: training loss=0.15, validation loss=0.40, full validation loss=0.40"
    assert data == {
        "step": 300,
        "total_steps": 300,
        "train_loss": 0.151,
        "valid_loss": 0.4,
        "full_valid_loss": 0.4,
        "train_mean_token_accuracy": 0.9,
        "valid_mean_token_accuracy": None,
        "full_valid_mean_token_accuracy": None,
    }


def test_a_step_without_validation_does_not_speak_of_one() -> None:
    message, data = told("supervised", spec(EXACT), metrics={"loss": 0.5})
    assert message == "Step 10/20: training loss=0.50"
    assert data["full_valid_loss"] is None


def test_a_preference_step_has_margins_beside_the_losses() -> None:
    metrics = {"loss": 0.5, "margin": 1.5, "preferred_frac": 0.75, "valid_loss": 0.6, "valid_margin": 1.0}
    message, data = told("dpo", spec(EXACT), metrics=metrics)
    assert message == "Step 10/20: training loss=0.50, validation loss=0.60, full validation loss=0.60"
    assert (data["train_margin"], data["train_preferred_frac"], data["full_valid_margin"]) == (1.5, 0.75, 1.0)
    assert data["full_valid_preferred_frac"] is None


# --------------------------------------------------------------------------------------------------- rewards


WHOLE = {
    "step": 10,
    "total_steps": 20,
    "usage": {
        "graders": [],
        "samples": {
            "train_reasoning_tokens_mean": 15.0,
            "train_reasoning_tokens_count": 2,
            "valid_reasoning_tokens_mean": 8.0,
            "valid_reasoning_tokens_count": 1,
        },
    },
    "errors": {
        "graders": [
            {
                "name": "exact",
                "type": "string_check",
                "train_sample_parse_error_mean": 0.0,
                "train_sample_parse_error_count": 2,
                "train_invalid_variable_error_mean": 0.0,
                "train_invalid_variable_error_count": 2,
                "train_other_error_mean": 0.0,
                "train_other_error_count": 2,
                "valid_sample_parse_error_mean": 0.0,
                "valid_sample_parse_error_count": 1,
                "valid_invalid_variable_error_mean": 0.0,
                "valid_invalid_variable_error_count": 1,
                "valid_other_error_mean": 0.0,
                "valid_other_error_count": 1,
            }
        ]
    },
    "scores": {
        "graders": [{"name": "exact", "type": "string_check", "train_reward_mean": 0.5, "valid_reward_mean": 1.0}],
        "train_reward_mean": 0.42,
        "valid_reward_mean": 0.68,
    },
    "timing": {
        "step": {"eval": 0.5, "sampling": 2.0, "training": 1.0, "full_iteration": 3.5},
        "graders": [
            {
                "name": "exact",
                "type": "string_check",
                "train_execution_latency_mean": 1.0,
                "valid_execution_latency_mean": 1.0,
            }
        ],
    },
    "tools": [],
    "train_mean_reward": 0.42,
    "full_valid_mean_reward": 0.68,
    "full_valid_mean_parse_error": 0.0,
    "mean_unresponsive_rewards": 0.0,
    "reasoning_tokens_mean": 15.0,
    "completion_tokens_mean": 15.0,
    "valid_reasoning_tokens_mean": 8.0,
    "model_graders_token_usage": {},
}
"""Of two training episodes (10 and 20 tokens, graded in 0.5 and 1.5 s) and one of validation (8 tokens, 1 s)."""


def test_a_reinforcement_step_in_openais_words() -> None:
    message, data = told(
        "reinforcement",
        spec(EXACT),
        metrics={"reward_mean": 0.42, "valid_reward_mean": 0.68, "rollout_s": 2.0, "learn_s": 1.0, "valid_s": 0.5},
        train=[record(Grade(value=1.0, wall_s=0.5), generated=10), record(Grade(value=0.0, wall_s=1.5), generated=20)],
        validation=[record(Grade(value=1.0, wall_s=1.0), phase="validation", generated=8)],
    )
    assert message == (
        "Step 10/20 , train mean reward=0.42, full validation mean reward=0.68, full validation mean parse error=0.00"
    )
    assert data == WHOLE


def test_a_step_without_validation_has_null_means_and_counts_of_zero() -> None:
    message, data = told("reinforcement", spec(EXACT), metrics={"reward_mean": 0.5}, train=[record(Grade(value=1.0))])
    assert message == "Step 10/20 , train mean reward=0.50"
    errors = data["errors"]["graders"][0]
    assert (errors["valid_other_error_mean"], errors["valid_other_error_count"]) == (None, 0)
    assert data["full_valid_mean_reward"] is None
    assert data["full_valid_mean_parse_error"] is None
    assert data["timing"]["step"] == {"eval": None, "sampling": None, "training": None, "full_iteration": None}


def both(exact: Grade, style: Grade, code: Grade, value: float | None) -> Grade:
    parts = {"exact": exact, "look": style, "code": code}
    reason = None if value is not None else "part: none"
    usage = {"judge-1": style.token_usage["judge-1"]} if style.token_usage else {}
    return Grade(value=value, reason=reason, parts=parts, token_usage=usage)


def test_the_parts_of_a_multi_grader_are_told_apart() -> None:
    used = [TokenUsage(prompt_tokens=100, completion_tokens=10), TokenUsage(prompt_tokens=300, completion_tokens=30)]
    fine, broken = Grade(value=1.0), Grade(value=None, reason="raised", error=GradeError.PYTHON_RUNTIME)
    down = Grade(value=None, reason="down", error=GradeError.MODEL_SERVER, is_fault=True)
    grades = [
        both(fine, Grade(value=0.5, token_usage={"judge-1": used[0]}, wall_s=2.0), broken, None),
        both(Grade(value=0.0), Grade(value=1.0, token_usage={"judge-1": used[1]}, wall_s=4.0), fine, 1.0),
        both(fine, down, fine, None),
    ]
    multi = {"type": "multi", "name": "m", "graders": {"exact": EXACT, "look": JUDGE, "code": CODE}}
    _, data = told(
        "reinforcement",
        spec({**multi, "calculate_output": "exact + look + code"}),
        train=[record(grade) for grade in grades],
        validation=[record(grades[1], phase="validation")],
    )
    scores = {one["name"]: one["train_reward_mean"] for one in data["scores"]["graders"]}
    assert scores == {"exact": pytest.approx(2 / 3), "look": 0.75, "code": 1.0}
    errors = {one["name"]: one for one in data["errors"]["graders"]}
    assert errors["code"]["train_python_grader_runtime_error_mean"] == pytest.approx(1 / 3)
    assert errors["code"]["train_python_grader_runtime_error_count"] == 3
    assert errors["code"]["train_other_error_mean"] == 0.0
    assert errors["look"]["train_model_grader_server_error_mean"] == pytest.approx(1 / 3)
    assert "train_python_grader_runtime_error_mean" not in errors["exact"]
    (usage,) = data["usage"]["graders"]
    assert usage == {
        "name": "look",
        "type": "score_model",
        "model": "judge-1",
        "train_prompt_tokens_mean": 200.0,
        "train_prompt_tokens_count": 2,
        "train_completion_tokens_mean": 20.0,
        "train_completion_tokens_count": 2,
        "valid_prompt_tokens_mean": 300.0,
        "valid_prompt_tokens_count": 1,
        "valid_completion_tokens_mean": 30.0,
        "valid_completion_tokens_count": 1,
    }
    assert data["model_graders_token_usage"] == {
        "judge-1": {
            "train_prompt_tokens": 400,
            "train_completion_tokens": 40,
            "train_cached_tokens": 0,
            "eval_prompt_tokens": 300,
            "eval_completion_tokens": 30,
            "eval_cached_tokens": 0,
        }
    }
    latency = {one["name"]: one["train_execution_latency_mean"] for one in data["timing"]["graders"]}
    assert latency["look"] == 2.0  # 2, 4 and 0 s


def test_an_endpoint_without_a_number_is_unresponsive() -> None:
    endpoint = {"type": "endpoint", "name": "e", "url": "https://e.example"}
    silent = Grade(value=None, reason="no score", error=GradeError.UNRESPONSIVE_REWARD)
    odd = Grade(value=None, reason="?")
    _, data = told("reinforcement", spec(endpoint), train=[record(silent), record(odd), record(Grade(value=7.5))])
    assert data["mean_unresponsive_rewards"] == pytest.approx(1 / 3)
    errors = data["errors"]["graders"][0]
    assert errors["train_unresponsive_reward_error_mean"] == pytest.approx(1 / 3)
    assert errors["train_other_error_mean"] == pytest.approx(1 / 3)
    assert data["scores"]["graders"][0]["train_reward_mean"] == 7.5


def test_faults_are_seen_by_no_grader() -> None:
    lost = record(Grade(value=None, reason="the episode is a fault"), stop=StopReason.FAULT)
    _, data = told("reinforcement", spec(EXACT), train=[lost, record(Grade(value=1.0))])
    assert data["errors"]["graders"][0]["train_other_error_count"] == 1
    assert data["usage"]["samples"]["train_reasoning_tokens_count"] == 1


def test_tools_have_their_four_figures() -> None:
    # Two rollouts: one calls search twice (results of 7 and 3 tokens) and read once, the other read once, badly.
    long = (calling("search", 5, 8), calling("search", 15, 18, wall_s=3.0), calling("read", 21, 24), answer(28, 30))
    short = (calling("read", 5, 8, wall_s=0.5, is_error=True), answer(10, 12))
    _, data = told(
        "reinforcement",
        spec(EXACT),
        train=[record(Grade(value=1.0), turns=long), record(Grade(value=0.0), turns=short)],
        validation=[record(Grade(value=1.0), phase="validation", turns=(answer(5, 8),))],
    )
    read, search = data["tools"]
    assert search == {
        "name": "search",
        "train_calls_per_rollout_mean": 1.0,
        "train_tokens_per_call_mean": 5.0,  # (7 + 3) / 2
        "train_execution_latency_mean": 2.0,
        "train_error_count": 0,
        "valid_calls_per_rollout_mean": 0.0,
        "valid_tokens_per_call_mean": None,
        "valid_execution_latency_mean": None,
        "valid_error_count": 0,
    }
    assert read["train_calls_per_rollout_mean"] == 1.0
    assert read["train_tokens_per_call_mean"] == 3.0  # 4 and 2
    assert read["train_error_count"] == 1
    assert read["train_execution_latency_mean"] == 0.75


async def test_a_multi_grader_keeps_what_its_parts_gave(tmp_path: Path) -> None:
    unreadable = {**EXACT, "name": "gone", "reference": "{{item.missing}}"}
    multi = {"type": "multi", "name": "m", "graders": {"a": EXACT, "b": unreadable}, "calculate_output": "a + b"}
    grader = build_grader(multi, tmp_path)
    item = Item(id="i", messages=(), fields={"answer": "yes"})
    grade = await grader.grade(Sample(output_text="yes"), item, "trace_1")
    await grader.close()
    assert grade.value is None
    assert grade.parts["a"].value == 1.0
    assert grade.parts["b"].error is GradeError.INVALID_VARIABLE
    _, data = told("reinforcement", spec(multi), train=[record(grade)])
    a, b = data["errors"]["graders"]
    assert (a["train_invalid_variable_error_mean"], b["train_invalid_variable_error_mean"]) == (0.0, 1.0)


def test_an_event_is_json() -> None:
    _, data = told("reinforcement", spec(EXACT), train=[record(Grade(value=1.0))])
    json.dumps(data, allow_nan=False)
