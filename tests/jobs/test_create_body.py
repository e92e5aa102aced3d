"""OpenAI's create body → a job: what its fields set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from create_bodies import GRADER, SCHEMA, TOOL, JobOf, body, refused, rft

from agentrft.jobs.create_body import count_rows
from agentrft.jobs.spec import JobSpec

# ------------------------------------------------------------------------------------------------------ what is taken


def test_the_smallest_body_is_a_supervised_job(job_of: JobOf) -> None:
    job = job_of(body())
    assert job.spec.model == "smollm2-135m-instruct"
    assert job.spec.method.type == "supervised"
    assert job.spec.data.demonstrations == "file-a.jsonl"
    assert job.spec.data.demonstrations_validation is None
    assert job.spec.seed == 77
    # 12 rows: a batch of 8; 30 steps would need 20 passes, at most 10.
    assert job.spec.method.supervised.hyperparameters.n_epochs == 10
    assert job.request == {
        "model": "o4-mini",
        "training_file": "file-a",
        "validation_file": None,
        "suffix": None,
        "seed": 77,
        "metadata": {},
        "integrations": [],
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
            },
        },
    }


def test_null_is_the_same_as_absent(job_of: JobOf) -> None:
    nulls = dict.fromkeys(
        ("validation_file", "suffix", "seed", "metadata", "integrations", "hyperparameters", "method")
    )
    assert job_of(body(**nulls)) == job_of(body())


def test_everything_of_a_supervised_body(job_of: JobOf) -> None:
    job = job_of(
        body(
            validation_file="file-b",
            suffix="My-Model_1.0",
            seed=2**31 - 1,
            metadata={"team": "a" * 512, "k" * 64: ""},
            integrations=[],
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 3}}},
        )
    )
    assert job.spec.data.demonstrations_validation == "file-b.jsonl"
    assert job.spec.suffix == "My-Model_1.0"
    assert job.spec.seed == 2**31 - 1
    assert job.spec.metadata["team"] == "a" * 512
    assert job.spec.method.supervised.hyperparameters.n_epochs == 2
    assert job.request["metadata"] == job.spec.metadata


def test_the_old_hyperparameters_are_the_supervised_ones(job_of: JobOf) -> None:
    job = job_of(body(hyperparameters={"n_epochs": 4}))
    assert job.spec.method.supervised.hyperparameters.n_epochs == 4
    assert job.request["method"]["supervised"]["hyperparameters"]["n_epochs"] == 4


@pytest.mark.parametrize("section", ["absent", None, {}, {"hyperparameters": None}])
def test_a_method_without_its_section_has_the_defaults(job_of: JobOf, section: Any) -> None:
    method: dict[str, Any] = {"type": "dpo"} | ({} if section == "absent" else {"dpo": section})
    job = job_of(body(method=method, validation_file="file-b"))
    assert job.spec.data.preferences == "file-a.jsonl"
    assert job.spec.data.preferences_validation == "file-b.jsonl"
    assert job.request["method"]["dpo"]["hyperparameters"]["beta"] == "auto"


def test_dpo_takes_beta_and_our_losses(job_of: JobOf) -> None:
    job = job_of(body(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.4}, "patience": 2}}))
    assert job.spec.method.dpo.loss.beta == 0.4
    assert job.spec.method.dpo.patience == 2
    simpo = {"loss": {"type": "simpo", "margin": 0.5}}
    assert job_of(body(method={"type": "dpo", "dpo": simpo})).spec.method.dpo.loss.type == "simpo"


def test_an_agent_job_with_everything(job_of: JobOf) -> None:
    section = {
        "tools": [TOOL],
        "max_episode_steps": 10,
        "response_format": SCHEMA,
        "hyperparameters": {"compute_multiplier": 1.5, "n_epochs": 1, "batch_size": 6, "reasoning_effort": "default"},
        "agent": {"system": "Look.", "demos": "file-d", "limits": {"max_reply_tokens": 64}},
        "guardrails": {"mode": "observe"},
        "training": {"lora": {"rank": 4}, "credit": "step_groups"},
        "audit": False,
        "data": {"test": "file-t", "splits": {"hard": "file-h"}},
    }
    job = job_of(rft(section))
    spec = job.spec
    assert spec.data.path_of("train") == "file-a.jsonl"
    assert spec.data.path_of("validation") == "file-b.jsonl"
    assert spec.data.path_of("test") == "file-t.jsonl"
    assert spec.data.path_of("hard") == "file-h.jsonl"
    assert spec.agent.tools[0].type == "http"
    assert spec.agent.demos == "file-d.jsonl"
    assert (spec.agent.limits.max_turns, spec.agent.limits.max_reply_tokens) == (10, 64)
    assert (spec.training.steps, spec.training.group_size) == (2, 12)  # ⌈12 / 6⌉, 1.5 × 8
    assert spec.training.credit.type == "step_groups"
    assert spec.training.lora is not None
    assert spec.training.lora.rank == 4
    assert spec.audit is False
    shown = job.request["method"]["reinforcement"]
    assert shown["tools"] == [{**TOOL, "headers": {"Authorization": "**********"}}]
    assert shown["max_episode_steps"] == 10
    assert shown["response_format"] == SCHEMA
    assert shown["agent"] == section["agent"]
    assert shown["training"] == section["training"]


def test_the_parts_of_agent_rft_are_there_when_not_given(job_of: JobOf) -> None:
    shown = job_of(rft()).request["method"]["reinforcement"]
    assert (shown["tools"], shown["max_episode_steps"], shown["response_format"]) == ([], None, None)


def test_an_endpoint_grader_with_its_limits(job_of: JobOf) -> None:
    endpoint = {"type": "endpoint", "url": "https://g.example/grade", "rate_limit": 5, "pass_threshold": 8}
    job = job_of(rft({"grader": {**endpoint, "headers": {"X-Key": "hush-hush"}}}))
    grader = job.spec.method.reinforcement.grader  # type: ignore[union-attr]
    assert (grader.type, grader.pass_threshold) == ("endpoint", 8)
    shown = job.request["method"]["reinforcement"]["grader"]
    assert shown == {"name": "endpoint", **endpoint, "headers": {"X-Key": "**********"}}


def test_a_multi_grader_is_a_dict_of_graders(job_of: JobOf) -> None:
    multi = {"type": "multi", "name": "both", "graders": {"exact": GRADER}, "calculate_output": "exact"}
    assert job_of(rft({"grader": multi})).request["method"]["reinforcement"]["grader"] == multi


def test_the_document_can_be_stored_and_read_again(job_of: JobOf) -> None:
    spec = job_of(rft({"tools": [{**TOOL, "headers": {}}], "response_format": SCHEMA})).spec
    assert JobSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_no_secret_is_in_what_is_shown(job_of: JobOf) -> None:
    secrets = [f"canary-{n}-b7f1" for n in range(6)]
    section = {
        "tools": [
            {**TOOL, "headers": {"Authorization": f"Bearer {secrets[0]}", "X-Other": secrets[1]}},
            {"type": "mcp", "server_label": "s", "server_url": "https://m.example", "headers": {"K": secrets[2]}},
        ],
        "grader": {
            "type": "multi",
            "name": "m",
            "calculate_output": "a + b",
            "graders": {
                "a": {"type": "endpoint", "name": "a", "url": "https://g.example", "headers": {"K": secrets[3]}},
                "b": GRADER,
            },
        },
        "audit": {"grader": {"type": "endpoint", "url": "https://g.example", "headers": {"K": secrets[4]}}},
    }
    job = job_of(rft(section))
    shown = json.dumps(job.request) + str(job) + repr(job.spec) + json.dumps(job.spec.model_dump(mode="json"))
    assert [secret for secret in secrets if secret in shown] == []
    assert shown.count("**********") >= 10


def test_a_few_rows_are_refused_in_openais_words(job_of: JobOf) -> None:
    error = refused(job_of, body(training_file="file-few"))
    assert error.message.startswith("Training file has 7 example(s), but must have at least 10 examples")
    assert (error.param, error.code) == ("training_file", "invalid_n_examples")
    error = refused(job_of, rft(validation_file="file-none"))
    assert error.message.startswith("Validation file has 0 example(s)")
    assert error.param == "validation_file"
    assert job_of(body(training_file="file-few"), min_examples=7).spec.data.demonstrations == "file-few.jsonl"


def test_code_that_can_do_without_output_json_is_taken(job_of: JobOf) -> None:
    source = "def grade(sample, item):\n    return float(sample.get('output_json') == item['answer'])"
    job = job_of(rft({"grader": {"type": "python", "name": "p", "source": source}}))
    assert job.spec.method.reinforcement is not None
    assert job.spec.method.reinforcement.response_format is False


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"", 0),
        (b"{}", 1),
        (b"{}\n", 1),
        (b"{}\n\n  \n{}\n", 2),
        (b"\xef\xbb\xbf\n{}\r\n\r\n{}", 2),
        (b"\n\n", 0),
        (b" " * 200_000 + b"{}" + b" " * 200_000 + b"\n{}", 2),
    ],
)
def test_rows_are_lines_that_are_not_blank(tmp_path: Path, text: bytes, rows: int) -> None:
    (tmp_path / "f.jsonl").write_bytes(text)
    assert count_rows(tmp_path / "f.jsonl") == rows
