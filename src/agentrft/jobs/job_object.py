"""A stored job as OpenAI's `fine_tuning.job` object, and its checkpoints as `fine_tuning.job.checkpoint`.

A job that was created over the API keeps the body it was created with, as it is shown, under `request` in its document;
a job of the command line is shown by its job file: names of files stand where ids belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrft.jobs.body_paths import FILES, body_param, message_in_body
from agentrft.jobs.event_data import loss_figures, reward_figures
from agentrft.jobs.hyperparameters import as_openai
from agentrft.jobs.names import ORGANISATION, ModelName
from agentrft.jobs.vault import masked_fields

EXTRA_FIELDS = frozenset({"user_provided_suffix", "usage_metrics"})
"""What job objects have beyond the SDK's type; OpenAI's own answers have them too."""
EXTRA_REINFORCEMENT_FIELDS = frozenset({"tools", "max_episode_steps", "response_format"})
"""The same, in `method.reinforcement`: Agent RFT's, and what the body had of ours (`agent`, `training`, …)."""
EXTRA_STATUSES = frozenset({"paused"})

_THREE = ("batch_size", "learning_rate_multiplier", "n_epochs")
_METHODS = ("supervised", "dpo", "reinforcement")


def job_object(job: Mapping[str, Any], *, estimated_finish: int | None = None) -> dict[str, Any]:
    """The job object of a job as `Store.get_job` gives it; every field of the SDK's type is there.

    Times are whole seconds. A job of kind `evaluation` has no job object: leave those out of lists.
    """
    request = job.get("request") or request_of_file(job["spec"])
    method = request["method"]
    section = method[method["type"]]
    finished_at, created_at = job.get("finished_at"), job["created_at"]
    return {
        "id": job["id"],
        "object": "fine_tuning.job",
        "created_at": int(created_at),
        "finished_at": None if finished_at is None else int(finished_at),
        "estimated_finish": estimated_finish if job["status"] == "running" else None,
        "model": request["model"],
        "fine_tuned_model": str(ModelName.of_job(job)) if job.get("fine_tuned_model") else None,
        "organization_id": f"org-{ORGANISATION}",
        "status": job["status"],
        "error": error_object(job, request),
        "hyperparameters": {name: section.get("hyperparameters", {}).get(name, "auto") for name in _THREE},
        "method": {"type": method["type"], **{name: method.get(name) for name in _METHODS}},
        "training_file": request["training_file"],
        "validation_file": request["validation_file"],
        "result_files": list(job.get("result_files") or ()),
        "trained_tokens": job.get("trained_tokens"),
        "seed": request["seed"],
        "integrations": list(request["integrations"]),
        "metadata": dict(request["metadata"]),
        "user_provided_suffix": request["suffix"],
        "usage_metrics": job.get("usage_metrics"),
    }


def error_object(job: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The job's error with `param` and message in the words of the create body; None when there is none."""
    error = job.get("error")
    if not error:
        return None
    base_dir = Path(job["base_dir"]) if job.get("base_dir") else None
    return {
        "code": error.get("code") or "server_error",
        "message": message_in_body(error.get("message") or "The job failed.", request, base_dir),
        "param": body_param(error.get("param"), request),
    }


def request_of_file(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A job document that no body made, in the form of `request`.

    Its own numbers stand beside what they would be as OpenAI's; a fraction of a pass is rounded up.
    """
    kind = spec["method"]["type"]
    train, held_out = FILES[kind]
    section = masked_fields(spec["method"][kind])
    return {
        "model": spec["model"],
        "training_file": spec["data"].get(train) or "",
        "validation_file": spec["data"].get(held_out),
        "suffix": spec.get("suffix"),
        "seed": spec["seed"],
        "metadata": spec.get("metadata") or {},
        "integrations": [],
        "method": {"type": kind, kind: {**section, "hyperparameters": as_openai(kind, spec)}},
    }


def estimated_finish(job: Mapping[str, Any], metrics_events: Sequence[Mapping[str, Any]]) -> int | None:
    """When a running job will end, at the pace between the first and the last of these `metrics` events, in any order.

    None while there are fewer than two steps to tell by.
    """
    seen = sorted(
        (event["data"]["step"], event["created_at"], event["data"]["total_steps"])
        for event in metrics_events
        if event.get("data") and event["data"].get("total_steps")
    )
    if job["status"] != "running" or len(seen) < 2 or seen[-1][0] == seen[0][0]:
        return None
    (first, began, _), (last, now, total) = seen[0], seen[-1]
    return int(now + max(0, total - last) * max(0.0, now - began) / (last - first))


def checkpoint_object(
    job: Mapping[str, Any], checkpoint: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    """A checkpoint as `Store.list_checkpoints` gives it; `metrics` are those that `Store.list_metrics` has of its step.

    Reinforcement has rewards beside the SDK's fields, whose losses and accuracies are null then.
    """
    step, figures = checkpoint["step"], {**metrics, **checkpoint["metrics"]}
    kind = job["spec"]["method"]["type"]
    more = reward_figures(figures) if kind == "reinforcement" else {}
    return {
        "id": checkpoint["id"],
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(checkpoint["created_at"]),
        "fine_tuned_model_checkpoint": str(ModelName.of_job(job).at_step(step)),
        "fine_tuning_job_id": job["id"],
        "metrics": {"step": step, **loss_figures(kind, figures), **more},
        "step_number": step,
    }


def usage_fields(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`trained_tokens` and `usage_metrics`, to be set on a job that ends, from `Store.list_metrics`.

    Tokens in the loss, tokens generated, tokens that judges took, and the seconds of playing, learning and validation.
    """

    def total(*names: str) -> float:
        return sum(entry["metrics"].get(name) or 0.0 for entry in metrics for name in names)

    return {
        "trained_tokens": int(total("tokens_trained")),
        "usage_metrics": {
            "tokens_generated": int(total("tokens_generated")),
            "judge_tokens": int(total("judge_tokens")),
            "training_s": round(total("rollout_s", "learn_s", "measure_s", "valid_s"), 3),
        },
    }
