"""Stored jobs and checkpoints as the SDK's own types read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from openai._models import construct_type
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import BaseModel

from agentrft.jobs.create_body import ApiJob, job_from_body
from agentrft.jobs.job_object import (
    EXTRA_FIELDS,
    EXTRA_REINFORCEMENT_FIELDS,
    checkpoint_object,
    estimated_finish,
    job_object,
    usage_fields,
)
from agentrft.jobs.service import create_job
from agentrft.jobs.spec import JobSpec
from agentrft.store import SqlStore, open_store

GRADER = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    "dpo": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}},
    "reinforcement": {"type": "reinforcement", "reinforcement": {"grader": GRADER}},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = open_store(tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def body(tmp_path: Path) -> dict[str, Any]:
    for name in ("file-a", "file-b"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n" * 12)
    return {"model": "o4-mini", "training_file": "file-a", "validation_file": "file-b", "suffix": "s", "seed": 5}


def stored(store: SqlStore, tmp_path: Path, body: dict[str, Any]) -> dict[str, Any]:
    asked = job_of(tmp_path, body)
    extra = {"request": asked.request, "runner": "server"}
    return store.get_job(create_job(store, asked.spec, tmp_path, extra=extra).id)


def job_of(tmp_path: Path, body: dict[str, Any]) -> ApiJob:
    return job_from_body(
        body, base_dir=tmp_path, files=lambda file_id, _: f"{file_id}.jsonl", resolve_model=lambda _: "smollm2"
    )


def missing(model: BaseModel, place: str = "") -> list[str]:
    """Fields of the SDK's type, nested ones too, that the answer did not have."""
    found = [f"{place}{name}" for name in type(model).model_fields if name not in model.model_fields_set]
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += missing(value, f"{place}{name}.")
    return found


def extra(model: BaseModel, place: str = "") -> set[str]:
    """What the answer has beyond the SDK's type."""
    found = {f"{place}{name}" for name in model.model_extra or {}}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found |= extra(value, f"{place}{name}.")
    return found


@pytest.mark.parametrize("kind", METHODS)
def test_the_sdk_finds_every_field_and_no_unknown_one(
    store: SqlStore, tmp_path: Path, body: dict[str, Any], kind: str
) -> None:
    shown = job_object(stored(store, tmp_path, {**body, "method": METHODS[kind]}))
    job = FineTuningJob.model_validate(shown, strict=True)
    assert missing(job) == []
    known = EXTRA_FIELDS | {f"method.reinforcement.{name}" for name in EXTRA_REINFORCEMENT_FIELDS}
    assert extra(job) <= known
    assert (job.model, job.seed, job.status, job.organization_id) == ("o4-mini", 5, "queued", "org-local")
    assert (job.training_file, job.validation_file) == ("file-a", "file-b")
    assert job.fine_tuned_model is None
    assert job.error is None
    assert shown["user_provided_suffix"] == "s"


def test_an_agent_job_with_our_keys_is_read_by_the_sdk_as_it_reads_answers(
    store: SqlStore, tmp_path: Path, body: dict[str, Any]
) -> None:
    section = {
        "grader": {"type": "multi", "name": "m", "graders": {"a": GRADER}, "calculate_output": "a"},
        "tools": [{"name": "t", "server_url": "https://t.example", "headers": {"Authorization": "Bearer hush"}}],
        "max_episode_steps": 7,
        "training": {"lora": {"rank": 2}},
    }
    shown = job_object(stored(store, tmp_path, {**body, "method": {"type": "reinforcement", "reinforcement": section}}))
    job = construct_type(value=shown, type_=FineTuningJob)  # which checks nothing: the SDK's `multi` has one part
    assert isinstance(job, FineTuningJob)
    assert job.method is not None
    reinforcement = job.method.reinforcement
    assert reinforcement is not None
    more = reinforcement.model_extra or {}
    assert more["tools"][0]["headers"] == {"Authorization": "**********"}
    assert more["max_episode_steps"] == 7
    assert more["training"] == {"lora": {"rank": 2}}
    assert "hush" not in str(shown)


def test_a_finished_job(store: SqlStore, tmp_path: Path, body: dict[str, Any]) -> None:
    job = stored(store, tmp_path, body)
    store.set_job_status(job["id"], "running")
    metrics = [
        {"step": 1, "metrics": {"tokens_trained": 100.0, "learn_s": 1.5, "valid_s": None}},
        {"step": 2, "metrics": {"tokens_trained": 50.0, "learn_s": 0.25, "judge_tokens": 7.0}},
    ]
    done = {"fine_tuned_model": "smollm2-s-abc", "result_files": ["file-r"], **usage_fields(metrics)}
    store.update_job(job["id"], done)
    store.set_job_status(job["id"], "succeeded")
    shown = FineTuningJob.model_validate(job_object(store.get_job(job["id"])), strict=True)
    prefix = job["id"].removeprefix("ftjob-")[:8]
    assert shown.fine_tuned_model == f"ft:o4-mini:local:s:{prefix}"
    assert shown.trained_tokens == 150
    assert shown.result_files == ["file-r"]
    assert isinstance(shown.finished_at, int)
    assert shown.estimated_finish is None
    usage = {"tokens_generated": 0, "judge_tokens": 7, "training_s": 1.75}
    assert (shown.model_extra or {})["usage_metrics"] == usage


def test_an_error_is_in_the_words_of_the_body(store: SqlStore, tmp_path: Path, body: dict[str, Any]) -> None:
    job = stored(store, tmp_path, {**body, "method": METHODS["reinforcement"]})
    message = f"{tmp_path}/file-a.jsonl, line 3: no `item.answer` (data.train); raise agent.limits.max_turns"
    error = {"code": "missing_item_key", "message": message, "param": "data.train"}
    store.set_job_status(job["id"], "failed", error=error)
    shown = FineTuningJob.model_validate(job_object(store.get_job(job["id"])), strict=True)
    assert shown.error is not None
    assert (shown.error.code, shown.error.param) == ("missing_item_key", "training_file")
    assert shown.error.message == (
        "file-a.jsonl, line 3: no `item.answer` (training_file); raise method.reinforcement.agent.limits.max_turns"
    )


def test_a_job_of_the_command_line_is_shown_too(store: SqlStore, tmp_path: Path) -> None:
    spec = JobSpec.model_validate({"model": "/models/m", "data": {"demonstrations": "d.jsonl"}, "seed": 3})
    shown = job_object(store.get_job(create_job(store, spec, tmp_path).id))
    job = FineTuningJob.model_validate(shown, strict=True)
    assert missing(job) == []
    assert job.hyperparameters.n_epochs == 2  # of 1.5
    assert (job.training_file, job.validation_file, job.seed) == ("d.jsonl", None, 3)
    assert shown["method"]["supervised"]["hyperparameters"]["learning_rate"] == 5e-4


def test_when_a_job_will_end() -> None:
    running = {"status": "running"}
    events = [
        {"created_at": 100.0 + 10 * step, "data": {"step": step, "total_steps": 20}} for step in (4, 2, 3)
    ]  # a step in 10 s; after step 4, at 140, there are 16 to go
    assert estimated_finish(running, events) == 300
    assert estimated_finish(running, events[:1]) is None
    assert estimated_finish(running, [events[0], {**events[0], "created_at": 200.0}]) is None  # told again on resume
    assert estimated_finish(running, [{"created_at": 1.0, "data": None}]) is None
    assert estimated_finish({"status": "paused"}, events) is None
    # A clock that was set back promises no end in the past.
    back = [{"created_at": 50.0, "data": {"step": 3, "total_steps": 20}}, events[1]]
    assert estimated_finish(running, back) == 50


def test_the_estimate_is_shown_while_running(store: SqlStore, tmp_path: Path, body: dict[str, Any]) -> None:
    job = stored(store, tmp_path, body)
    assert job_object({**job, "status": "running"}, estimated_finish=9)["estimated_finish"] == 9
    assert job_object({**job, "status": "paused"}, estimated_finish=9)["estimated_finish"] is None


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        ("supervised", {"loss": 0.5, "valid_nll": 0.7}, {"train_loss": 0.5, "full_valid_loss": 0.7}),
        ("dpo", {"loss": 0.5, "valid_loss": 0.6}, {"train_loss": 0.5, "full_valid_loss": 0.6}),
        (
            "reinforcement",
            {"loss": 0.5, "reward_mean": 0.25, "valid_reward_mean": 0.5},
            {"train_loss": None, "full_valid_loss": None, "train_mean_reward": 0.25, "full_valid_mean_reward": 0.5},
        ),
    ],
)
def test_a_checkpoint(
    store: SqlStore,
    tmp_path: Path,
    body: dict[str, Any],
    kind: str,
    metrics: dict[str, float],
    expected: dict[str, Any],
) -> None:
    job = stored(store, tmp_path, {**body, "method": METHODS[kind]})
    store.add_checkpoint(job["id"], 12, "/somewhere", {})
    shown = checkpoint_object(job, store.list_checkpoints(job["id"])[0], metrics)
    checkpoint = FineTuningJobCheckpoint.model_validate(shown, strict=True)
    assert missing(checkpoint) == []
    assert checkpoint.fine_tuned_model_checkpoint.endswith(":ckpt-step-12")
    assert (checkpoint.step_number, checkpoint.metrics.step) == (12, 12)
    assert {name: shown["metrics"][name] for name in expected} == expected


def test_the_statuses_are_openais_and_paused() -> None:
    from agentrft.jobs.job_object import EXTRA_STATUSES
    from agentrft.store.states import FOLLOWS

    openais = set(get_args(FineTuningJob.model_fields["status"].annotation))
    assert openais | EXTRA_STATUSES == set(FOLLOWS)
