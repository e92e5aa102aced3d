"""Fields of the job document, as the create body has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.body_paths import body_param, error_in_body, message_in_body

SFT: dict[str, Any] = {"model": "m"}
OLD: dict[str, Any] = {"hyperparameters": {"n_epochs": 3}}
DPO: dict[str, Any] = {"method": {"type": "dpo"}}
RFT: dict[str, Any] = {"method": {"type": "reinforcement", "reinforcement": {"max_episode_steps": None}}}
STEPS: dict[str, Any] = {"method": {"type": "reinforcement", "reinforcement": {"max_episode_steps": 5}}}
OWN: dict[str, Any] = {
    "method": {
        "type": "reinforcement",
        "reinforcement": {"training": {"steps": 3, "group_size": 4}, "hyperparameters": {"learning_rate": 0.1}},
    }
}


@pytest.mark.parametrize(
    ("body", "ours", "theirs"),
    [
        (SFT, None, None),
        (SFT, "model", "model"),
        (SFT, "data.demonstrations", "training_file"),
        (SFT, "data.demonstrations_validation", "validation_file"),
        (SFT, "data.splits.hard", "method.supervised.data.splits.hard"),
        (
            SFT,
            "method.supervised.hyperparameters.learning_rate",
            "method.supervised.hyperparameters.learning_rate_multiplier",
        ),
        (SFT, "agent.tools.0", "method.supervised.agent.tools.0"),
        (OLD, "method.supervised.hyperparameters.n_epochs", "hyperparameters.n_epochs"),
        (OLD, "method.supervised.hyperparameters.learning_rate", "hyperparameters.learning_rate_multiplier"),
        (DPO, "data.preferences", "training_file"),
        (DPO, "data.preferences_validation", "validation_file"),
        (DPO, "method.dpo.loss.beta", "method.dpo.loss.beta"),
        (RFT, "data.train", "training_file"),
        (RFT, "data.validation", "validation_file"),
        (RFT, "data", "method.reinforcement.data"),
        (RFT, "agent.tools.2.headers", "method.reinforcement.tools.2.headers"),
        (RFT, "agent.toolsmith", "method.reinforcement.agent.toolsmith"),
        (RFT, "agent.limits.max_turns", "method.reinforcement.agent.limits.max_turns"),
        (RFT, "training.steps", "method.reinforcement.hyperparameters.n_epochs"),
        (RFT, "training.group_size", "method.reinforcement.hyperparameters.compute_multiplier"),
        (RFT, "training.lora.rank", "method.reinforcement.training.lora.rank"),
        (RFT, "guardrails.tools.x.args", "method.reinforcement.guardrails.tools.x.args"),
        (RFT, "method.reinforcement.grader.graders.a.input", "method.reinforcement.grader.graders.a.input"),
        (STEPS, "agent.limits.max_turns", "method.reinforcement.max_episode_steps"),
        (OWN, "training.steps", "method.reinforcement.training.steps"),
        (OWN, "training.group_size", "method.reinforcement.training.group_size"),
        (
            OWN,
            "method.reinforcement.hyperparameters.learning_rate",
            "method.reinforcement.hyperparameters.learning_rate",
        ),
    ],
)
def test_places(body: dict[str, Any], ours: str | None, theirs: str | None) -> None:
    assert body_param(ours, body) == theirs


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("data.train has 5 items", "training_file has 5 items"),
        (
            "set `agent.limits.max_turns`; see `training.steps`.",
            "set `method.reinforcement.max_episode_steps`; see `method.reinforcement.hyperparameters.n_epochs`.",
        ),
        ("see audit.html and training.py", "see audit.html and training.py"),
        ("folder/data.train is a file", "folder/data.train is a file"),
        ("mydata.train", "mydata.train"),
        ("no `item.agent.system`", "no `item.agent.system`"),
        ("unicode: données.train, 数据data.train", "unicode: données.train, 数据data.train"),
    ],
)
def test_messages(message: str, expected: str) -> None:
    assert message_in_body(message, STEPS) == expected


def test_an_error_keeps_its_code_and_loses_the_servers_folder() -> None:
    error = UserError("/srv/jobs/x/file-1.jsonl, line 2: bad row", param="data.train", code="invalid_row")
    mapped = error_in_body(error, RFT, Path("/srv/jobs/x"))
    assert (mapped.message, mapped.param, mapped.code) == (
        "file-1.jsonl, line 2: bad row",
        "training_file",
        "invalid_row",
    )


@pytest.mark.parametrize(
    "body", [{}, {"method": None}, {"method": 3}, {"method": {}}, {"method": {"type": "dpo", "dpo": None}}]
)
def test_a_body_may_be_anything(body: dict[str, Any]) -> None:
    assert body_param("model", body) == "model"
