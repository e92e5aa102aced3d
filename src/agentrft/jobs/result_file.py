"""The result file of a job: its metrics by step as CSV, OpenAI's columns first."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS: dict[str, dict[str, str | None]] = {
    "supervised": {
        "train_loss": "loss",
        "train_accuracy": "token_accuracy",
        "valid_loss": "valid_nll",
        "valid_mean_token_accuracy": None,
    },
    "dpo": {
        "train_loss": "loss",
        "train_accuracy": "preferred_frac",
        "valid_loss": "valid_loss",
        "valid_mean_token_accuracy": "valid_preferred_frac",
        "train_margin": "margin",
        "valid_margin": "valid_margin",
    },
    "reinforcement": {
        "train_mean_reward": "reward_mean",
        "valid_mean_reward": "valid_reward_mean",
        "train_success_rate": "success_rate",
        "valid_success_rate": "valid_success_rate",
        "train_tool_calls_mean": "calls_mean",
        "valid_tool_calls_mean": "valid_calls_mean",
        "train_tool_error_frac": "tool_error_frac",
        "train_no_grade_frac": "no_grade_frac",
        "train_fault_frac": "fault_frac",
        "train_truncated_frac": "trunc_frac",
        "tokens_generated": "tokens_generated",
        "entropy": "entropy",
        "kl_ref": "kl_ref_k3",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
    },
}
"""Column → metric, by method; `step` comes first. None: OpenAI's column, and nothing here measures it."""


def result_csv(kind: str, metrics: Sequence[Mapping[str, Any]]) -> str:
    """The file's text, from `Store.list_metrics`; a figure that a step does not have is left empty."""
    columns = COLUMNS[kind]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    for entry in metrics:
        figures = entry["metrics"]
        values = [None if name is None else figures.get(name) for name in columns.values()]
        writer.writerow([entry["step"], *("" if value is None else repr(float(value)) for value in values)])
    return text.getvalue()
