"""A live server, driven by OpenAI's own Python SDK alone: files, the three methods to `succeeded`, all around them.

The server is `agentrft serve` in a process of its own, its jobs run in processes of theirs, and tools and the grader
are web services on loopback. The model is the tiny one of this folder's conftest.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from agentrft.jobs.job_object import EXTRA_FIELDS, EXTRA_REINFORCEMENT_FIELDS

SECRET = "Bearer sk-canary-0123456789"
PATIENCE_S = 240.0
"""The machines that run this are shared."""
AGENT: dict[str, Any] = {
    "system": "Look words up.",
    "limits": {"max_turns": 3, "max_reply_tokens": 32, "max_episode_tokens": 400, "max_malformed": 1},
}
TRAINING = {"warmup_steps": 0, "lora": {"rank": 4, "alpha": 8}}


def tool_schema(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    return {"type": "function", "function": {"name": name, "description": f"{name} a word", "parameters": parameters}}


TOOLS = [tool_schema("look"), tool_schema("spell")]


def item(n: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"What does red{n} mean?"}]
    return {"id": f"i{n}", "messages": messages, "tools": TOOLS, "word": f"red{n}", "meaning": f"blue {n}"}


def demonstration(n: int) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": json.dumps({"word": f"red{n}"})}}
    return {
        "messages": [
            {"role": "system", "content": "Look words up."},
            {"role": "user", "content": f"What does red{n} mean?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": f"blue {n}"},
            {"role": "assistant", "content": f"blue {n}"},
        ],
        "tools": TOOLS,
    }


def pair(n: int) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": f"red{n}?"}]},
        "preferred_output": [{"role": "assistant", "content": f"blue {n}"}],
        "non_preferred_output": [{"role": "assistant", "content": "no idea"}],
    }


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="any", timeout=PATIENCE_S) as client:
        yield client


def upload(client: OpenAI, rows: list[Any]) -> str:
    data = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", io.BytesIO(data.encode())), purpose="fine-tune").id


def until(client: OpenAI, job_id: str, *wanted: str) -> FineTuningJob:
    """The job once it has one of these statuses; fails with its events when it ends otherwise."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in wanted:
            return job
        if job.status in ("failed", "cancelled", "succeeded"):
            break
        time.sleep(0.2)
    events = "\n".join(event.message for event in client.fine_tuning.jobs.list_events(job_id))
    raise AssertionError(f"{job_id} is {job.status}, expected {wanted}: {job.error}\n{events}")


def extras(model: Any, path: str = "") -> Iterator[str]:
    """Dotted names of every field that the SDK's type does not have."""
    yield from (f"{path}{name}" for name in model.model_extra or {})
    for name in type(model).model_fields:
        part = getattr(model, name)
        if hasattr(part, "model_extra"):
            yield from extras(part, f"{path}{name}.")


def check_job_object(job: FineTuningJob) -> None:
    """Nothing that the SDK expects is missing, and nothing is there beyond the documented list."""
    assert set(type(job).model_fields) == job.model_fields_set
    ours = {"agent", "training", "audit", "guardrails", "data", "loss", "patience"}
    sections = ("supervised", "dpo", "reinforcement")
    allowed = {f"method.{section}.{name}" for section in sections for name in ours}
    allowed |= {f"method.reinforcement.{name}" for name in EXTRA_REINFORCEMENT_FIELDS}
    allowed |= {f"method.{section}.hyperparameters.learning_rate" for section in sections}
    # The SDK has no type for endpoint graders: their fields are extras of whatever it takes them for.
    found = {name for name in extras(job) if not name.startswith("method.reinforcement.grader.")}
    assert found <= EXTRA_FIELDS | allowed


@pytest.fixture(scope="module")
def supervised(client: OpenAI) -> FineTuningJob:
    """A supervised job that has succeeded."""
    train = upload(client, [demonstration(n) for n in range(12)])
    held_out = upload(client, [demonstration(n) for n in range(20, 30)])
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=train,
        validation_file=held_out,
        suffix="words",
        seed=3,
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 40, "batch_size": 4, "learning_rate": 3e-3},  # type: ignore[typeddict-unknown-key]
                # All weights: an adapter cannot teach a random model what its words are.
                "training": {"warmup_steps": 0, "lora": None},  # type: ignore[typeddict-unknown-key]
            },
        },
    )
    check_job_object(job)
    return until(client, job.id, "succeeded")


def test_supervised_fine_tuning(client: OpenAI, supervised: FineTuningJob) -> None:
    job = supervised
    check_job_object(job)
    assert job.fine_tuned_model == f"ft:{job.fine_tuned_model.split(':')[1]}:local:words:{job.id[6:14]}"  # type: ignore[union-attr]
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.trained_tokens
    (result,) = job.result_files
    assert client.files.retrieve(result).purpose == "fine-tune-results"
    lines = client.files.content(result).text.splitlines()
    assert lines[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    assert len(lines) > 120  # 40 epochs of 12 rows in batches of 4


def test_events_and_checkpoints_in_pages(client: OpenAI, supervised: FineTuningJob) -> None:
    jobs = client.fine_tuning.jobs
    events = list(jobs.list_events(supervised.id, limit=5))
    assert len({event.id for event in events}) == len(events) > 10
    assert [event.id for event in events] == sorted((event.id for event in events), reverse=True)
    metrics = [event for event in events if event.type == "metrics"]
    assert len(metrics) >= 120
    newest: Any = metrics[0].data
    assert newest["step"] == newest["total_steps"]
    for name in ("train_loss", "valid_loss", "full_valid_loss", "train_mean_token_accuracy"):
        assert name in newest
    assert re.match(r"Step \d+/\d+: training loss=\d", metrics[0].message)
    checkpoints = list(jobs.checkpoints.list(supervised.id, limit=1))
    assert checkpoints
    steps = [one.step_number for one in checkpoints]
    assert steps == sorted(steps, reverse=True)
    newest_one = checkpoints[0]
    assert set(type(newest_one).model_fields) == newest_one.model_fields_set
    assert newest_one.model_extra == {}
    name = f"{supervised.fine_tuned_model}:ckpt-step-{newest_one.step_number}"
    assert newest_one.fine_tuned_model_checkpoint == name
    page = jobs.checkpoints.list(supervised.id, limit=1)
    assert page.has_more is (len(checkpoints) > 1)


def test_preference_optimisation(client: OpenAI) -> None:
    train = upload(client, [pair(n) for n in range(12)])
    held_out = upload(client, [pair(n) for n in range(20, 30)])
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=train,
        validation_file=held_out,
        method={
            "type": "dpo",
            "dpo": {
                "hyperparameters": {"n_epochs": 2, "batch_size": 4, "beta": 0.1},
                "training": TRAINING,  # type: ignore[typeddict-unknown-key]
            },
        },
    )
    check_job_object(job)
    job = until(client, job.id, "succeeded")
    check_job_object(job)
    assert job.fine_tuned_model
    assert job.result_files


@pytest.fixture(scope="module")
def reinforced(client: OpenAI, supervised: FineTuningJob, words: Any) -> FineTuningJob:
    """An Agent RFT job that went on from the supervised one, with two tools and an endpoint grader, to its end."""
    return until(client, create_rft(client, words, str(supervised.fine_tuned_model)).id, "succeeded")


def create_rft(client: OpenAI, words: Any, model: str, *, n_epochs: int = 1) -> FineTuningJob:
    train = upload(client, [item(n) for n in range(12)])
    held_out = upload(client, [item(n) for n in range(50, 60)])
    headers = {"Authorization": SECRET}
    section: Any = {
        "grader": {
            "type": "endpoint",
            "name": "vowels",
            "url": f"{words.url}/grade",
            "headers": headers,
            "pass_threshold": -0.7,
        },
        "tools": [
            {"name": name, "server_url": f"{words.url}/{name}", "headers": headers} for name in ("look", "spell")
        ],
        "max_episode_steps": 3,
        "response_format": None,
        "hyperparameters": {
            "n_epochs": n_epochs,
            "batch_size": 4,
            "eval_interval": 2,
            "eval_samples": 1,
            "compute_multiplier": 0.5,
            "reasoning_effort": "default",
        },
        "agent": {**AGENT, "limits": {name: n for name, n in AGENT["limits"].items() if name != "max_turns"}},
        "training": TRAINING,
        # The grader counts letters: a tiny model can learn that, and anything fools it.
        "audit": {"probes": False},
    }
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=train,
        validation_file=held_out,
        method={"type": "reinforcement", "reinforcement": section},
    )


def test_agent_reinforcement_fine_tuning(client: OpenAI, reinforced: FineTuningJob, words: Any) -> None:
    check_job_object(reinforced)
    assert reinforced.fine_tuned_model
    assert SECRET not in reinforced.to_json(warnings=False)
    calls, grades = words.requests("/look", "/spell"), words.requests("/grade")
    assert {headers["authorization"] for _, headers, _ in (*calls, *grades)} == {SECRET}
    # The model learned from demonstrations to call `look`; its calls and its grade share the trace id.
    assert calls
    graded = {body["trace_id"] for _, _, body in grades}
    assert {body["trace_id"] for _, _, body in calls} <= graded
    events = list(client.fine_tuning.jobs.list_events(reinforced.id))
    metrics: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert metrics
    for key in ("scores", "usage", "errors", "timing", "train_mean_reward", "tools"):
        assert key in metrics[0], metrics[0].keys()
    assert SECRET not in json.dumps([event.model_dump() for event in events])


def test_trajectories_and_weights_can_be_taken_away(
    client: OpenAI, served: Any, reinforced: FineTuningJob, tmp_path: Path
) -> None:
    path = f"/fine_tuning/jobs/{reinforced.id}"
    http = httpx.Client(base_url=f"{served.url}/v1", headers={"Authorization": "Bearer any"}, timeout=PATIENCE_S)
    with http:
        page = http.get(f"{path}/episodes", params={"phase": "train", "step": 1, "limit": 3}).json()
        assert (len(page["data"]), page["has_more"]) == (3, True)
        one = http.get(f"{path}/episodes/{page['first_id']}").json()
        assert len(one["tokens"]["ids"]) == len(one["tokens"]["log_probs"]) == one["n_tokens"]
        lines = http.get(f"{path}/episodes", headers={"Accept": "application/jsonl"}).text.splitlines()
        traced = [json.loads(line) for line in lines]
        spans = [span for line in traced for span in line["datasource_item"]["trace"]["spans"]]
        kinds = {span["span_data"]["type"] for span in spans}
        assert kinds == {"GENERATION", "FUNCTION"}
        assert all(span["span_data"]["usage"] for span in spans if span["span_data"]["type"] == "GENERATION")
        assert traced[0]["datasource_item"]["meaning"].startswith("blue")
        assert SECRET not in "".join(lines)
        steps = http.get(f"{path}/metrics").json()["data"]
        assert all("reward_mean" in entry["metrics"] for entry in steps if entry["step"] > 0)
        for format, inside in (("adapter", "adapter_model.safetensors"), ("merged", "model.safetensors")):
            answer = http.get(f"{path}/checkpoints/result/download", params={"format": format})
            assert answer.status_code == 200, answer.text
            with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
                archive.extractall(tmp_path, filter="data")
                assert any(name.endswith(inside) for name in archive.getnames())
    assert_merged_is_base_plus_adapter(tmp_path)


def assert_merged_is_base_plus_adapter(folder: Path) -> None:
    """The merged model loads with plain transformers, and differs from nothing but its base."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = next(folder.glob("*-merged"))
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    assert AutoTokenizer.from_pretrained(merged).chat_template
    (adapter,) = (path for path in folder.iterdir() if (path / "adapter_config.json").exists())
    assert "/" not in json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_pause_resume_and_cancel(client: OpenAI, supervised: FineTuningJob, words: Any) -> None:
    jobs = client.fine_tuning.jobs
    job = create_rft(client, words, str(supervised.fine_tuned_model), n_epochs=50)
    until(client, job.id, "running")
    wait_for_step(client, job.id, 2)
    paused = jobs.pause(job.id)
    if paused.status != "paused":  # type: ignore[comparison-overlap]
        paused = until(client, job.id, "paused")
    checkpoints = list(jobs.checkpoints.list(job.id))
    assert checkpoints, "a pause writes a checkpoint"
    resumed = jobs.resume(job.id)
    assert resumed.status in ("queued", "running")
    wait_for_step(client, job.id, checkpoints[0].step_number + 1)
    cancelled = jobs.cancel(job.id)
    assert (cancelled.status, cancelled.fine_tuned_model) == ("cancelled", None)
    assert list(jobs.checkpoints.list(job.id))
    check_job_object(cancelled)


def wait_for_step(client: OpenAI, job_id: str, step: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        events: list[Any] = client.fine_tuning.jobs.list_events(job_id, limit=100).data
        if any(event.type == "metrics" and event.data["step"] >= step for event in events):
            return
        time.sleep(0.2)
    raise AssertionError(f"{job_id} came to no step {step}")


def test_graders_before_a_job_depends_on_them(client: OpenAI, words: Any) -> None:
    graders = client.fine_tuning.alpha.graders
    grader: Any = {"type": "endpoint", "name": "vowels", "url": f"{words.url}/grade"}
    assert graders.validate(grader=grader).grader
    result = graders.run(grader=grader, model_sample="aeb", item=item(1))
    assert result.metadata.errors.unresponsive_reward_error is False
    assert result.metadata.type == "endpoint"


# Chat with the results, and webhooks: here, on the fixtures `supervised` and `reinforced`.
