"""Which weights played a stored episode, from what the store and the disk know of its job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import parse_job
from agentrft.jobs.recorded import item_of, model_of
from agentrft.jobs.service import StoredJob, create_job
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import EpisodeKey
from agentrft.store import SqlStore, open_store
from agentrft.types import Episode, Grade, Message, StopReason, TokenTrace

TOKENS = TokenTrace(ids=[1], trained=[False], log_probs=[0.0], prompt_tokens=1, policy_version=0)
QUESTION = (Message(role="user", content="Why?"),)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    opened = open_store()
    yield opened
    opened.close()


@pytest.fixture
def job(store: SqlStore, tmp_path: Path) -> Callable[..., StoredJob]:
    for name, content in (("train", "Why?"), ("test", "How?")):
        row = {"id": "one", "messages": [{"role": "user", "content": content}]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    grader = {
        "type": "string_check",
        "name": "g",
        "input": "{{sample.output_text}}",
        "reference": "x",
        "operation": "eq",
    }
    document = {
        "model": "base-model",
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
    }

    def make(kind: str = "evaluation", **more: object) -> StoredJob:
        return create_job(store, parse_job(document, source="test"), tmp_path, kind=kind, **more)  # type: ignore[arg-type]  # any kind

    return make


def record(job: StoredJob, **fields: object) -> EpisodeRecord:
    step = int(fields.pop("step", 0))  # type: ignore[call-overload]  # a number
    key = EpisodeKey(run=job.id, step=step, item="one", member=0)
    episode = Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id="one",
        step=step,
        member=0,
        attempt=0,
        messages=QUESTION,
        turns=(),
        stop_reason=StopReason.ANSWERED,
        tokens=TOKENS,
    )
    given = {"phase": "test", "stage": "base", **fields}
    return EpisodeRecord(job_id=job.id, episode=episode, grade=Grade(value=1.0), **given)  # type: ignore[arg-type]  # as given


def test_an_evaluations_model_and_a_ladders_stages(store: SqlStore, job: Callable[..., StoredJob]) -> None:
    evaluation, warm_up = job(start_from="ftjob-other"), job("supervised")
    assert model_of(store, evaluation, record(evaluation, stage="anything")) == "ftjob-other"
    assert model_of(store, warm_up, record(warm_up, stage="base")) == "base-model"
    assert model_of(store, warm_up, record(warm_up, stage="sft")) == warm_up.id


def test_a_step_is_played_by_the_checkpoint_before_it(store: SqlStore, job: Callable[..., StoredJob]) -> None:
    trained = job("reinforcement", start_from="warm")
    first = record(trained, phase="train", stage="rft", step=1)
    assert model_of(store, trained, first) == "warm"  # nothing is kept of step 0, and nothing had been learnt
    for step in (0, 4):
        (trained.folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    assert model_of(store, trained, first).endswith("step-00000000")
    fifth = record(trained, phase="train", stage="rft", step=5)
    assert model_of(store, trained, fifth).endswith("step-00000004")
    checked = record(trained, phase="validation", stage="step-00000004", step=4)
    assert model_of(store, trained, checked).endswith("step-00000004")
    with pytest.raises(UserError, match=r"after step 3 of job .* are not kept; the nearest that are: .*step-00000004"):
        model_of(store, trained, record(trained, phase="train", stage="rft", step=4))


def test_what_is_not_known_is_asked_for(store: SqlStore, job: Callable[..., StoredJob]) -> None:
    climb, other = job(extra={"climb": {"key": "k"}}), job()
    with pytest.raises(UserError, match="rung 'optimised' of a climb") as caught:
        model_of(store, climb, record(climb, stage="optimised"))
    assert (caught.value.param, caught.value.code) == ("--model", "model_not_found")
    text = record(other)
    with pytest.raises(UserError, match="--endpoint URL"):
        model_of(store, other, replace(text, episode=replace(text.episode, tokens=None)))


def test_the_item_is_that_of_the_recorded_split_or_prompt(job: Callable[..., StoredJob]) -> None:
    stored = job()
    # Both splits have an item `one`; the episode was asked what the training one asks.
    assert item_of(stored, record(stored, extra={"split": "train"})).messages == QUESTION
    assert item_of(stored, record(stored, extra={"split": "test"})).messages == QUESTION
    rows = stored.base_dir / "train.jsonl"
    rows.write_text(rows.read_text().replace("one", "two"))
    assert item_of(stored, record(stored)).messages == (Message(role="user", content="How?"),)
