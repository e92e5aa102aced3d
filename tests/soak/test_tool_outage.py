"""A tool's server goes down for 10,000 calls in the middle of a job and comes back: nothing of it is ever seen again.

The model is trained first to call the tool in every episode; then each step plays 3,072 of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrft.jobs.service import stored_job
from agentrft.types import StopReason

ITEMS, MEMBERS, TRIES = 48, 64, 4
DOWN_AFTER = int(1.05 * ITEMS * MEMBERS)
"""Calls that are answered before the outage: one an episode, those of step 1 and a few of step 2."""
MOST_GROWTH_MB = 50
MOST_RECOVERY_S = 10

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


class Dictionary:
    """The tool's web service. It goes down early in step 2, and comes back when it is told to."""

    def __init__(self, serve: Any, answer: Any) -> None:
        self.is_mended = False
        self.answered = self.failed = 0
        self._answer = answer
        self.url = serve(self._reply).url

    @property
    def is_down(self) -> bool:
        return self.answered >= DOWN_AFTER and not self.is_mended

    def _reply(self, asked: Any) -> Any:
        if self.is_down:
            self.failed += 1
            return self._answer(status=503, body=b"down for maintenance")
        self.answered += 1
        return self._answer(body={"output": "blue"})


def caller(bench: Any, make_job: Callable[..., Path]) -> str:
    """The name of a model that calls the tool and then answers, whatever it is asked."""
    path = make_job("caller", lora=None, dtype="float32")
    document = json.loads(path.read_text())
    document["method"]["supervised"]["hyperparameters"] = {"n_epochs": 50, "batch_size": 4, "learning_rate": 5e-3}
    path.write_text(json.dumps(document))
    demonstrations = path.parent / "data" / "demonstrations.jsonl"
    lines = demonstrations.read_text()
    for n in range(8):
        lines = lines.replace(f'\\"red{n}\\"', '\\"red\\"').replace(f'"blue {n}"', '"blue"')
    demonstrations.write_text(lines)
    job_id = bench.job(path, "supervised")
    bench.until_status(job_id, "succeeded", "failed")
    assert bench.status(job_id) == "succeeded", bench.account()
    bench.until_left()
    return stored_job(bench.store, job_id).fine_tuned_model or ""


def reinforcement(make_job: Callable[..., Path], model: str, url: str) -> Path:
    path = make_job("outage", lora=None, dtype="float32", group_size=MEMBERS, steps=3, oversample=1.0)
    document = json.loads(path.read_text())
    document["model"] = model
    reinforcement = document["method"]["reinforcement"]
    # A rate at which it goes on calling.
    sizes = {"batch_size": ITEMS, "eval_interval": 1, "eval_samples": 1}
    reinforcement["hyperparameters"] |= {**sizes, "learning_rate": 1e-6}
    reinforcement["grader"] = {
        "type": "text_similarity",
        "name": "close",
        "input": "{{sample.output_text}}",
        "reference": "blue {{item.word}}",
        "evaluation_metric": "fuzzy_match",
        "pass_threshold": 0.5,
    }
    document["agent"]["tools"] = [
        {
            "name": "look",
            "server_url": url,
            "description": "Say what WORD means.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        }
    ]
    document["agent"]["limits"]["max_reply_tokens"] = 24
    rows = [
        {"id": f"i{n}", "messages": [{"role": "user", "content": f"What does red{n} mean?"}], "word": f"red{n}"}
        for n in range(ITEMS)
    ]
    (path.parent / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text(json.dumps(document))
    return path


def test_ten_thousand_calls_fail_and_nothing_of_them_is_kept(
    bench: Any, make_job: Callable[..., Path], serve: Any, answer: Any
) -> None:
    tool = Dictionary(serve, answer)
    job = bench.job(reinforcement(make_job, caller(bench, make_job), tool.url))
    calm_mb = watched(bench, lambda: tool.is_down)
    assert bench.steps(job) == [0, 1]
    assert tool.answered > 0.95 * ITEMS * MEMBERS
    down_mb = watched(bench, lambda: bench.status(job) == "paused")
    found = bench.store.get_job(job)
    assert found["error"]["code"] == "tool"
    failed_episodes = int(found["error"]["message"].split()[0])
    failed_calls = failed_episodes * TRIES  # the few others are of episodes in which the model did not call
    assert f"({TRIES} tries)" in found["error"]["message"]
    assert failed_calls > 10_000, found["error"]["message"]
    pid = bench.pid
    down_mb = max(down_mb, watched_for(bench, 15.0))
    assert bench.status(job) == "paused"
    assert bench.pid == pid  # the same worker waits

    tool.is_mended = True
    mended_s = time.monotonic()
    bench.until_status(job, "running", "succeeded")
    recovery_s = time.monotonic() - mended_s
    assert recovery_s < MOST_RECOVERY_S
    after_mb = watched(bench, lambda: bench.status(job) in ("succeeded", "failed"))
    assert bench.status(job) == "succeeded", bench.account()
    episodes = bench.store.list_episodes(job, limit=100_000)
    assert not any(record.episode.stop_reason is StopReason.FAULT for record in episodes)
    played = Counter(record.episode.step for record in episodes if record.phase == "train")
    assert played == dict.fromkeys((1, 2, 3), ITEMS * MEMBERS)  # those that failed were played again
    growth_mb = max(down_mb, after_mb) - calm_mb
    sys.stdout.write(
        f"{failed_calls} failed calls, {tool.failed} requests answered with 503; running after {recovery_s:.1f} s; "
        f"memory {calm_mb:.0f} MB before, {down_mb:.0f} MB during, {after_mb:.0f} MB after\n"
    )
    assert growth_mb < MOST_GROWTH_MB


def watched(bench: Any, reached: Callable[[], bool]) -> float:
    """Passes until something is so; the most memory that the worker held meanwhile, in MB."""
    most_mb = 0.0

    def look() -> bool:
        nonlocal most_mb
        most_mb = max(most_mb, memory_mb(bench))
        return reached()

    bench.until(look, within_s=600.0)
    return most_mb


def watched_for(bench: Any, seconds: float) -> float:
    end_s = time.monotonic() + seconds
    return watched(bench, lambda: time.monotonic() > end_s)


def memory_mb(bench: Any) -> float:
    if not bench.runtime.workers():
        return 0.0
    try:
        return psutil.Process(bench.pid).memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0
