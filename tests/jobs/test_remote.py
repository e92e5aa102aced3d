"""What a document from the network may not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agentrft.errors import UserError
from agentrft.graders import parse_grader
from agentrft.jobs.remote import check_model_name, check_remote, check_remote_grader
from agentrft.jobs.spec import File, JobSpec

CODE = "def grade(sample, item):\n    return 1.0"
HTTP = {"name": "t", "server_url": "https://t.example"}
JUDGE = {
    "type": "score_model",
    "name": "j",
    "model": "m",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}
PYTHON = {"type": "python", "name": "p", "source": CODE}


def spec(**parts: Any) -> JobSpec:
    grader = parts.pop("grader", PYTHON)
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    data = {"train": "file-a.jsonl", "validation": "file-b.jsonl", **parts.pop("data", {})}
    return JobSpec.model_validate({"model": "m", "method": method, "data": data, **parts})


def multi(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "multi", "name": "m", "graders": {"fine": PYTHON, "bad": part}, "calculate_output": "bad"}


def test_what_the_api_offers_is_taken() -> None:
    check_remote(
        spec(
            grader=multi(JUDGE),
            agent={"tools": [HTTP, {"type": "mcp", "server_label": "s", "server_url": "https://m.example"}]},
            guardrails={"secrets": {"patterns": {"key": "sk-[a-z]+"}}, "tools": {"t": {"max_calls": 3}}},
            training={"credit": "step_groups"},
            audit={"grader": PYTHON},
        )
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"agent": {"tools": [HTTP, {"type": "python", "target": "tools.py:f"}]}}, "agent.tools.1"),
    ({"agent": {"tools": [{"type": "mcp", "server_label": "s", "command": ["sh"]}]}}, "agent.tools.0.command"),
    ({"grader": {"type": "python", "name": "p", "source_file": "g.py"}}, "method.reinforcement.grader.source_file"),
    ({"grader": {**PYTHON, "isolation": "process"}}, "method.reinforcement.grader.isolation"),
    ({"grader": multi({**PYTHON, "isolation": "process"})}, "method.reinforcement.grader.graders.bad.isolation"),
    ({"grader": {**JUDGE, "base_url": "http://10.0.0.1/v1"}}, "method.reinforcement.grader.base_url"),
    ({"grader": {**JUDGE, "api_key_env": "AWS_SECRET"}}, "method.reinforcement.grader.api_key_env"),
    ({"audit": {"grader": {**PYTHON, "isolation": "process"}}}, "audit.grader.isolation"),
    ({"training": {"credit": "mine.py:rule"}}, "training.credit"),
    ({"training": {"credit": {"type": "turn_returns", "rewards": "mine.py:r"}}}, "training.credit"),
    ({"guardrails": {"approver": "a.py:f"}}, "guardrails.approver"),
    ({"guardrails": {"plugins": ["a.py:f"]}}, "guardrails.plugins.0"),
    ({"guardrails": {"secrets": {"env": ["HOME"]}}}, "guardrails.secrets.env"),
    ({"data": {"train": "/etc/passwd"}}, "data.train"),
    ({"data": {"test": "../other/file.jsonl"}}, "data.test"),
    ({"data": {"demonstrations": "a/../../b.jsonl"}}, "data.demonstrations"),
    ({"data": {"preferences_validation": "..\\b.jsonl"}}, "data.preferences_validation"),
    ({"agent": {"demos": "/etc/shadow"}}, "agent.demos"),
    ({"data": {"splits": {"hard": "C:/b.jsonl"}}}, "data.splits.hard"),
    ({"data": {"splits": {"hard": "a\0.jsonl"}}}, "data.splits.hard"),
]


@pytest.mark.parametrize(("parts", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_reaches_into_the_machine_is_refused_with_a_way_out(parts: dict[str, Any], param: str) -> None:
    with pytest.raises(UserError, match="not taken over the network") as caught:
        check_remote(spec(**parts))
    assert (caught.value.param, caught.value.code) == (param, "forbidden_option")
    assert caught.value.message.count("; ") >= 1


KNOWN_WORDS_FOR_FILES = {
    "agent.demos",
    "agent.tools.cwd",  # beside `command` only
    "agent.tools.target",
    "audit.grader.graders.source_file",
    "audit.grader.source_file",
    "data.demonstrations",
    "data.demonstrations_validation",
    "data.preferences",
    "data.preferences_validation",
    "data.splits",
    "data.test",
    "data.train",
    "data.validation",
    "guardrails.approver",
    "guardrails.plugins",
    "method.reinforcement.grader.graders.source_file",
    "method.reinforcement.grader.source_file",
    "training.credit.rewards",
    "training.credit.target",
}


def test_no_field_that_names_a_file_is_forgotten() -> None:
    """A new one must be refused here, or become an uploaded file in `create_body`; then it belongs into the set."""
    assert set(file_fields(JobSpec)) == KNOWN_WORDS_FOR_FILES


def file_fields(annotation: Any, place: str = "") -> Iterator[str]:
    """Places of fields that look as if they named a file: by their type, their pattern or their name."""
    for model in models_in(annotation):
        for name, field in model.model_fields.items():
            here = f"{place}{name}"
            is_named_so = field.annotation == str | None and name in ("cwd", "source_file")
            is_target = ".py:" in f"{field.metadata} {field.annotation}"
            if is_named_so or is_target or File in parts_of(field.rebuild_annotation()):
                yield here
            yield from file_fields(field.annotation, f"{here}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def parts_of(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def test_embeddings_are_asked_only_where_the_operator_says() -> None:
    grader = {
        "type": "text_similarity",
        "name": "t",
        "input": "{{sample.output_text}}",
        "reference": "{{item.a}}",
        "evaluation_metric": "cosine",
        "embeddings": {"base_url": "http://e.example/v1", "model": "m"},
    }
    with pytest.raises(UserError) as caught:
        check_remote(spec(grader=grader))
    assert caught.value.param == "method.reinforcement.grader.embeddings.base_url"
    check_remote(spec(grader=grader), judge_urls=["http://e.example/v1/"])


def test_a_listed_address_is_taken_but_no_key_of_the_server() -> None:
    judge = {**JUDGE, "base_url": "http://judge.example/v1"}
    check_remote(spec(grader=judge), judge_urls=["http://judge.example/v1"])
    with pytest.raises(UserError, match=r"use http://judge\.example/v1"):
        check_remote(spec(grader={**JUDGE, "base_url": "http://j2.example/v1"}), judge_urls=["http://judge.example/v1"])
    with pytest.raises(UserError, match="environment"):
        check_remote(spec(grader={**judge, "api_key_env": "K"}), judge_urls=["http://judge.example/v1"])


def test_a_grader_alone_is_checked_the_same() -> None:
    check_remote_grader(parse_grader(multi(JUDGE)))
    with pytest.raises(UserError) as caught:
        check_remote_grader(parse_grader(multi({"type": "python", "name": "p", "source_file": "/etc/passwd"})))
    assert caught.value.param == "grader.graders.bad.source_file"


@pytest.mark.parametrize(
    "name",
    ["o4-mini", "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M", "ft:a:local:s:ab12cd34:ckpt-step-2", "a.b"],
)
def test_names_of_models_are_taken(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "/models/a",
        "./a",
        "../a",
        "a/../b",
        "..",
        ".",
        "~/a",
        "~root",
        "a/b/c",
        "a\\b",
        "a b",
        "a\0",
        "",
        "-a",
        "ftjob-ab",
        "file:///etc",
        "a/..",
        "../..",
        "a\n",
        "模型",
        "x" * 300,
    ],
)
def test_folders_and_jobs_are_not(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_model_name(name)
    assert (caught.value.param, caught.value.code) == ("model", "forbidden_option")
