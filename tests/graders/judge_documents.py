"""Documents of a `score_model` and a `label_model` grader, for the tests of both."""

from __future__ import annotations

from typing import Any

SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "clear",
    "model": "judge-1",
    "input": [
        {"role": "system", "content": "Is the answer clear? Reference: {{item.answer}}"},
        {"role": "user", "content": "{{sample.output_text}}"},
    ],
}
LABEL: dict[str, Any] = {
    **SCORE,
    "type": "label_model",
    "name": "polite",
    "labels": ["rude", "plain", "kind"],
    "passing_labels": ["plain", "kind"],
}
