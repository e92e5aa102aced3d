"""OpenAI's hyperparameters: bounds, "auto", what they set, and the table in docs/openai-api.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.hyperparameters import HYPERPARAMETERS, auto_batch_size, auto_n_epochs, translate

PARAM = "method.reinforcement.hyperparameters"


def rft(given: dict[str, Any], *, rows: int = 60, training: dict[str, Any] | None = None) -> Any:
    return translate("reinforcement", given, rows=rows, training=training or {}, param=PARAM)


def test_auto_of_a_reinforcement_job() -> None:
    settings = rft({})
    # 60 rows: a hundredth is 0, so the default of 6; ⌈12 × 6 / 60⌉ = 2 passes; ⌈2 × 60 / 6⌉ = 20 steps.
    assert settings.training == {"steps": 20, "group_size": 8}
    assert settings.hyperparameters == {"batch_size": 6, "learning_rate": 1e-4, "eval_interval": 4, "eval_samples": 2}
    assert settings.shown == {
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
        "n_epochs": "auto",
        "compute_multiplier": "auto",
        "eval_interval": "auto",
        "eval_samples": "auto",
        "reasoning_effort": "default",
    }
    assert settings.notes == ("20 steps of 6 items with 8 episodes each; validation every 4",)


def test_every_number_of_a_reinforcement_job_has_its_effect() -> None:
    given = {
        "batch_size": 16,
        "n_epochs": 3,
        "learning_rate_multiplier": 2.5,
        "compute_multiplier": 1.5,
        "eval_interval": 5,
        "eval_samples": 3,
        "reasoning_effort": "default",
    }
    settings = rft(given, rows=100)
    # ⌈3 × 100 / 16⌉ = ⌈18.75⌉; 1.5 × 8; 2.5 × 1e-4.
    assert settings.training == {"steps": 19, "group_size": 12}
    assert settings.hyperparameters == {
        "batch_size": 16,
        "learning_rate": 2.5e-4,
        "eval_interval": 5,
        "eval_samples": 3,
    }
    assert settings.shown == given


@pytest.mark.parametrize(("multiplier", "group_size"), [(0.2, 2), (0.3, 2), (1, 8), (1.06, 8), (1.1, 9), (10, 80)])
def test_the_compute_multiplier_is_a_whole_number_of_episodes(multiplier: float, group_size: int) -> None:
    # 8 × 0.2 = 1.6, 8 × 0.3 = 2.4, 8 × 1.06 = 8.48, 8 × 1.1 = 8.8
    assert rft({"compute_multiplier": multiplier}).training["group_size"] == group_size


@pytest.mark.parametrize(("multiplier", "base"), [(0.1, 8), (0.001, 8), (10, 32)])
def test_a_group_that_cannot_be_played_is_refused(multiplier: float, base: int) -> None:
    with pytest.raises(UserError, match="expected 2 to 256") as caught:
        rft({"compute_multiplier": multiplier}, training={"group_size": base})
    assert caught.value.param == f"{PARAM}.compute_multiplier"
    assert caught.value.code == "unsupported_option"


def test_many_steps_are_not_validated_all_the_time() -> None:
    # 1,000 rows: a batch of 10; 10 passes are 1,000 steps; 20 validations.
    settings = rft({"n_epochs": 10}, rows=1000)
    assert settings.training["steps"] == 1000
    assert settings.hyperparameters["eval_interval"] == 50


@pytest.mark.parametrize(
    ("rows", "default", "expected"),
    [(4, 8, 4), (10, 8, 8), (799, 8, 8), (900, 8, 9), (3200, 8, 32), (1_000_000, 8, 32), (0, 8, 1)],
)
def test_the_batch_grows_with_the_file(rows: int, default: int, expected: int) -> None:
    assert auto_batch_size(rows, default) == expected


@pytest.mark.parametrize(
    ("method", "rows", "batch_size", "expected"),
    [
        ("supervised", 10, 8, 10),  # 30 × 8 / 10 = 24, at most 10
        ("supervised", 100, 8, 3),  # 2.4
        ("supervised", 5000, 32, 1),
        ("dpo", 10, 8, 3),
        ("reinforcement", 24, 6, 3),  # 12 × 6 / 24
    ],
)
def test_passes_are_added_until_there_are_enough_steps(method: Any, rows: int, batch_size: int, expected: int) -> None:
    assert auto_n_epochs(method, rows, batch_size) == expected


def test_a_supervised_job() -> None:
    settings = translate(
        "supervised", {"n_epochs": 3.0, "batch_size": 4}, rows=50, training={}, param="hyperparameters"
    )
    assert settings.hyperparameters == {"batch_size": 4, "learning_rate": 5e-4, "n_epochs": 3}
    assert settings.training == {}
    assert settings.shown == {"batch_size": 4, "learning_rate_multiplier": "auto", "n_epochs": 3}
    assert type(settings.shown["n_epochs"]) is int


@pytest.mark.parametrize("beta", [None, "auto"])
def test_auto_leaves_beta_to_the_loss(beta: Any) -> None:
    settings = translate("dpo", {"beta": beta}, rows=50, training={}, param="p")
    assert "beta" not in settings.hyperparameters
    assert settings.shown["beta"] == "auto"


def test_beta_is_taken() -> None:
    assert translate("dpo", {"beta": 0.3}, rows=50, training={}, param="p").hyperparameters["beta"] == 0.3


BAD: list[tuple[str, str, Any]] = [
    ("supervised", "batch_size", 0),
    ("supervised", "batch_size", 257),
    ("supervised", "batch_size", 2.5),
    ("supervised", "batch_size", True),
    ("supervised", "batch_size", "8"),
    ("supervised", "batch_size", [8]),
    ("supervised", "n_epochs", 51),
    ("supervised", "n_epochs", 10**400),
    ("supervised", "learning_rate_multiplier", 0),
    ("supervised", "learning_rate_multiplier", -1),
    ("supervised", "learning_rate_multiplier", float("nan")),
    ("supervised", "learning_rate_multiplier", float("inf")),
    ("supervised", "learning_rate_multiplier", 1e9),
    ("dpo", "beta", 0),
    ("dpo", "beta", 2.1),
    ("reinforcement", "compute_multiplier", 1e-5),
    ("reinforcement", "compute_multiplier", 10.5),
    ("reinforcement", "eval_interval", 0),
    ("reinforcement", "eval_samples", 65),
    ("reinforcement", "reasoning_effort", "high"),
    ("reinforcement", "reasoning_effort", 3),
]


@pytest.mark.parametrize(("method", "name", "value"), BAD)
def test_what_is_out_of_bounds_is_refused_at_its_place(method: Any, name: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        translate(method, {name: value}, rows=50, training={}, param="method.x.hyperparameters")
    assert caught.value.param == f"method.x.hyperparameters.{name}"
    assert "expected" in caught.value.message
    assert len(caught.value.message) < 400


def test_an_effort_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="max_reply_tokens") as caught:
        rft({"reasoning_effort": "medium"})
    assert caught.value.code == "unsupported_option"


def test_an_unknown_name_is_refused_with_the_near_one() -> None:
    with pytest.raises(UserError, match="did you mean `eval_samples`") as caught:
        rft({"etest_samples": 2})
    assert caught.value.param == f"{PARAM}.etest_samples"
    assert caught.value.code == "unknown_parameter"


def test_a_rate_may_be_given_as_it_is() -> None:
    settings = rft({"learning_rate": 3e-4})
    assert settings.hyperparameters["learning_rate"] == 3e-4
    assert settings.shown["learning_rate"] == 3e-4
    with pytest.raises(UserError, match="same setting"):
        rft({"learning_rate": 3e-4, "learning_rate_multiplier": 2})
    with pytest.raises(UserError, match="from 0 to 1"):
        rft({"learning_rate": float("nan")})


def test_steps_may_be_given_as_they_are() -> None:
    assert rft({}, training={"steps": 7}).training["steps"] == 7
    with pytest.raises(UserError, match="set the same") as caught:
        rft({"n_epochs": 2}, training={"steps": 7})
    assert caught.value.param == f"{PARAM}.n_epochs"


def test_the_table_of_the_docs_is_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "openai-api.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, flags=re.MULTILINE)
    shown = [tuple(cell.strip() for cell in row) for row in rows]
    expected = [(one.method, one.name, f"{one.expected}", one.auto, one.effect) for one in HYPERPARAMETERS]
    assert shown == expected
