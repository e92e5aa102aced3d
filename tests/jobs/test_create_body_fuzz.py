"""Whatever a body holds, it is a job or a UserError with a place: never a crash, never a secret."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.create_body import job_from_body

CANARY = "canary-7f31-b0c2"
GRADER = {
    "type": "string_check",
    "name": "e",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
TOOL = {"name": "t", "server_url": "https://x.example", "headers": {"Authorization": f"Bearer {CANARY}"}}
ENDPOINT = {"type": "endpoint", "url": "https://x.example", "headers": {"k": CANARY}}
BODIES: list[dict[str, Any]] = [
    {
        "model": "m",
        "training_file": "a",
        "validation_file": "b",
        "suffix": "s",
        "seed": 3,
        "metadata": {"k": "v"},
        "integrations": [],
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 1.5},
                "training": {"lora": {"rank": 4}},
                "agent": {"system": "x", "tools": [TOOL], "demos": "d"},
            },
        },
    },
    {
        "model": "m",
        "training_file": "a",
        "method": {
            "type": "dpo",
            "dpo": {
                "hyperparameters": {"beta": 0.1},
                "loss": {"type": "dpo", "beta": 0.1},
                "patience": 3,
                "data": {"test": "c", "splits": {"h": "x"}},
            },
        },
    },
    {
        "model": "m",
        "training_file": "a",
        "validation_file": "b",
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {
                    "type": "multi",
                    "name": "m",
                    "graders": {"a": GRADER, "b": ENDPOINT},
                    "calculate_output": "a + b",
                },
                "tools": [TOOL],
                "max_episode_steps": 5,
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
                "hyperparameters": {"compute_multiplier": 1, "eval_samples": 2, "n_epochs": 1, "batch_size": 4},
                "training": {"group_size": 4, "credit": "step_groups", "loss": {"type": "grpo"}},
                "guardrails": {"tools": {"t": {"max_calls": 3}}},
                "audit": {"grader": ENDPOINT},
            },
        },
    },
    {"model": "m", "training_file": "a", "hyperparameters": {"n_epochs": 2}},
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    10**30,
    1e308,
    1.5,
    "",
    "auto",
    "a" * 5000,
    "\0",
    "模",
    "{{item.a",
]
VALUES += ["../x", "/etc/passwd", [], [1], {}, {"a": 1}, {"type": "x"}, {"$ref": "#"}, [None], "mine.py:f", {"": ""}]
KEYS = [
    "type",
    "model",
    "name",
    "headers",
    "",
    "x" * 300,
    "a.b",
    "tools",
    "learning_rate",
    "steps",
    "group_size",
    "graders",
]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*place, key))


def spoilt(rng: random.Random) -> dict[str, Any]:
    """One of the bodies with up to three things in it replaced, removed or added."""
    body = copy.deepcopy(rng.choice(BODIES))
    for _ in range(rng.choice([1, 1, 2, 3])):
        *parents, last = rng.choice([place for place in places(body) if place])
        owner: Any = body
        for key in parents:
            owner = owner[key]
        what = rng.random()
        if what < 0.6:
            owner[last] = copy.deepcopy(rng.choice(VALUES))
        elif what < 0.75:
            del owner[last]
        elif isinstance(owner, dict):
            owner[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
    return body


@pytest.mark.parametrize("seed", range(4))
def test_a_body_is_a_job_or_a_mistake_with_a_place(tmp_path: Path, seed: int) -> None:
    (tmp_path / "f.jsonl").write_text("{}\n" * 12)
    rng = random.Random(seed)
    shown: list[str] = []
    refused: list[UserError] = []
    for _ in range(400):
        body = spoilt(rng)
        try:
            job = job_from_body(body, base_dir=tmp_path, files=lambda _, __: "f.jsonl", resolve_model=str)
            shown.append(json.dumps(job.request) + repr(job))
        except UserError as mistake:
            refused.append(mistake)
    assert len(shown) > 20
    assert len(refused) > 200
    assert [mistake.message for mistake in refused if mistake.param is None or len(mistake.message) > 6000] == []
    said = [*shown, *(mistake.message for mistake in refused)]
    assert [text for text in said if CANARY in text] == []
    assert [mistake.message for mistake in refused if str(tmp_path) in mistake.message] == []
