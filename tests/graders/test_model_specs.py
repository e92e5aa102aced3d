"""Documents of `score_model` and `label_model`: what is accepted, and what is said about the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_documents import LABEL, SCORE

from agentrft.engines.openai_chat import open_judge
from agentrft.errors import UserError
from agentrft.graders import build_grader, item_paths, parse_grader


def test_documents_round_trip_and_name_their_references():
    spec = parse_grader({**SCORE, "sampling_params": None})
    assert parse_grader(spec.model_dump(mode="json")) == spec
    assert parse_grader(parse_grader(LABEL).model_dump(mode="json")) == parse_grader(LABEL)
    assert item_paths(spec) == (("answer",),)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "input_text", "text": "a {{item.answer}}"},
        {"type": "output_text", "text": "a {{item.answer}}"},
        [{"type": "input_text", "text": "a {{item.answer}}"}],
        ["a {{item.answer}}"],
    ],
)
def test_openais_forms_of_content(content):
    spec = parse_grader({**SCORE, "input": [{"type": "message", "role": "developer", "content": content}]})
    assert spec.input[0].content == "a {{item.answer}}"
    assert item_paths(spec) == (("answer",),)


_IMAGE = {"type": "input_image", "image_url": "http://h/a.png"}


@pytest.mark.parametrize(
    ("document", "start"),
    [
        ({**SCORE, "model": ""}, "`grader.model`: String should have at least 1 character"),
        ({**SCORE, "input": []}, "`grader.input`: Tuple should have at least 1 item"),
        ({**SCORE, "input": "grade"}, "`grader.input`: Input should be a valid tuple, got 'grade'"),
        (
            {**SCORE, "input": [{"role": "tool", "content": "x"}]},
            "`grader.input.0.role`: Input should be 'system', 'developer', 'user' or 'assistant', got 'tool'",
        ),
        (
            {**SCORE, "input": [{"role": "user", "content": [_IMAGE]}]},
            "`grader.input.0.content`: got a part of type 'input_image', expected text",
        ),
        (
            {**SCORE, "input": [{"role": "user", "content": 5}]},
            "`grader.input.0.content`: got a part of type 'int', expected text",
        ),
        (
            {**SCORE, "input": [{"role": "user", "content": "{{answer}}"}]},
            "`grader.input.0.content`: got {{answer}}, expected a reference such as",
        ),
        ({**SCORE, "range": [1, 1]}, "`grader.range`: got [1.0, 1.0], expected two finite numbers"),
        (
            {**SCORE, "sampling_params": {"temperature": 3}},
            "`grader.sampling_params.temperature`: Input should be less",
        ),
        ({**SCORE, "sampling_params": {"max_tokens": 3}}, "`grader.sampling_params.max_tokens`: Extra inputs"),
        ({**SCORE, "base_url": "http://u:hush@h"}, "`grader.base_url`: expected an address such as"),
        ({**SCORE, "base_url": "h:80"}, "`grader.base_url`: expected an address such as"),
        ({**SCORE, "api_key_env": "sk-hush"}, "`grader.api_key_env`: expected the name of an environment variable"),
        ({**SCORE, "labels": ["a"]}, "`grader.labels`: Extra inputs are not permitted"),
        ({**LABEL, "labels": ["a"]}, "`grader.labels`: Tuple should have at least 2 items"),
        ({**LABEL, "labels": ["rude", "plain", "rude"]}, "`grader`: `labels` has a label twice"),
        ({**LABEL, "passing_labels": ["nice"]}, "`grader`: `passing_labels` has 'nice', expected some of rude, plain"),
        ({**LABEL, "passing_labels": []}, "`grader.passing_labels`: Tuple should have at least 1 item"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_documents(document, start):
    with pytest.raises(UserError) as caught:
        parse_grader(document)
    assert caught.value.message.startswith(start)
    assert "hush" not in caught.value.message


def test_a_judge_that_cannot_be_opened_blames_its_field(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    multi = {"type": "multi", "name": "m", "graders": {"a": SCORE}, "calculate_output": "a"}
    with pytest.raises(UserError) as caught:
        build_grader(multi, Path(), param="g", open_judge=open_judge)
    assert caught.value.param == "g.graders.a.api_key_env"
    with pytest.raises(UserError, match="pass `open_judge=agentrft"):
        build_grader(SCORE, Path())
