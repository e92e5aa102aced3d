"""The result file: OpenAI's columns first, a line for every step."""

from __future__ import annotations

import csv
import io

import pytest

from agentrft.jobs.result_file import COLUMNS, result_csv
from agentrft.train.metrics import METRICS


def test_a_supervised_job() -> None:
    text = result_csv(
        "supervised",
        [
            {"step": 1, "metrics": {"loss": 0.5, "grad_norm": 1.0, "token_accuracy": 0.75}},
            {"step": 2, "metrics": {"loss": 1 / 3, "valid_nll": 0.25}},
        ],
    )
    assert text == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.5,0.75,,\n2,0.3333333333333333,,0.25,\n"
    )


def test_a_reinforcement_job_with_a_validation_before_the_first_step_and_a_nan() -> None:
    metrics = [
        {"step": 0, "metrics": {"valid_reward_mean": 0.1}},
        {"step": 1, "metrics": {"reward_mean": None, "grad_norm": 2.0}},
    ]
    rows = list(csv.DictReader(io.StringIO(result_csv("reinforcement", metrics))))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert (rows[0]["train_mean_reward"], rows[0]["valid_mean_reward"]) == ("", "0.1")
    assert (rows[1]["train_mean_reward"], rows[1]["grad_norm"]) == ("", "2.0")


def test_a_job_without_steps_has_the_head_only() -> None:
    assert result_csv("dpo", []).count("\n") == 1


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_are_metrics_that_there_are(kind: str) -> None:
    assert {name for name in COLUMNS[kind].values() if name} <= METRICS.keys()
