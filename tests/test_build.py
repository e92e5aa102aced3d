"""What `build` decides before any model is loaded: adapters, limits, and what a wheel carries."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest

from agentrft import build
from agentrft.credit import CREDIT
from agentrft.errors import UserError
from agentrft.jobs.models import Weights, find_weights
from agentrft.jobs.spec import Data, JobSpec, Lora, Training
from agentrft.ladder import find_example

ROOT = Path(__file__).parents[1]
BASE = Weights(name="base", folder=Path("base"))
ADAPTER = Weights(name="mine", folder=Path("base"), trained=Path("mine"), rank=8, alpha=16.0)
FULL = Weights(name="full", folder=Path("base"), trained=Path("full"))


def job(lora: Lora | None) -> JobSpec:
    return JobSpec(model="base", data=Data(), training=Training(lora=lora))


@pytest.mark.parametrize(
    ("weights", "training", "wanted", "carried"),
    [
        (BASE, True, Lora(rank=4, alpha=8), Lora(rank=4, alpha=8)),
        (BASE, True, None, None),
        (BASE, False, None, Lora()),  # played through an untrained adapter: no float32 copies of all weights
        (ADAPTER, True, Lora(rank=8, alpha=16), Lora(rank=8, alpha=16)),
        (ADAPTER, False, None, Lora(rank=8, alpha=16)),
        (FULL, True, None, None),
        (FULL, False, Lora(), None),
    ],
)
def test_which_adapter_the_engine_carries(
    weights: Weights, training: bool, wanted: Lora | None, carried: Lora | None
) -> None:
    assert build.adapter_for(job(wanted), weights, training) == carried


@pytest.mark.parametrize(
    ("weights", "wanted", "advice"),
    [(ADAPTER, Lora(rank=16, alpha=32), "{rank: 8, alpha: 16}"), (FULL, Lora(), "null"), (ADAPTER, None, "rank: 8")],
)
def test_training_on_top_of_other_weights_is_refused_with_the_setting(
    weights: Weights, wanted: Lora | None, advice: str
) -> None:
    with pytest.raises(UserError) as caught:
        build.adapter_for(job(wanted), weights, True)
    assert advice in caught.value.message
    assert caught.value.param == "training.lora"


def test_the_limits_of_the_loop_are_the_jobs() -> None:
    limits = build.limits_of(JobSpec(model="m", data=Data()))
    assert (limits.max_turns, limits.max_reply_tokens, limits.max_episode_tokens) == (8, 256, None)


def test_every_credit_algorithm_can_be_named_in_a_job() -> None:
    for name in CREDIT:
        assert Training.model_validate({"credit": name}).credit.type == name


def test_an_unknown_job_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    with pytest.raises(UserError, match="is not known"):
        find_weights("ftjob-000000000000000000000000")


def test_the_quickstarts_task_is_found_in_a_checkout_and_others_are_named() -> None:
    assert find_example("filenav") == ROOT / "examples" / "filenav" / "job.yaml"
    with pytest.raises(UserError, match="filenav"):
        find_example("filenaw")


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="building a wheel needs hatchling")
def test_a_wheel_carries_the_quickstarts_task_and_the_pages_templates(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = set(zipfile.ZipFile(wheel).namelist())
    task = ("job.yaml", "tools.py", "grader.py", "data/train.jsonl", "data/demonstrations.jsonl")
    assert {f"agentrft/examples/filenav/{name}" for name in task} <= names
    assert {"agentrft/report/templates/page.css", "agentrft/report/templates/training.html.j2"} <= names
