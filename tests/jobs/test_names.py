"""`ft:` names: written, read again, and found on the disk with their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.errors import UserError
from agentrft.jobs.models import find_weights
from agentrft.jobs.names import ModelName, base_name, resolve_alias

JOB = {"id": "ftjob-ab12cd34ef56gh78", "spec": {"model": "smollm2-135m-instruct", "suffix": "filenav"}}


def test_a_name_says_base_suffix_and_job() -> None:
    name = ModelName.of_job(JOB)
    assert str(name) == "ft:smollm2-135m-instruct:local:filenav:ab12cd34"
    assert str(name.at_step(12)) == "ft:smollm2-135m-instruct:local:filenav:ab12cd34:ckpt-step-12"
    assert str(name.at_step(0)) == "ft:smollm2-135m-instruct:local:filenav:ab12cd34:ckpt-step-0"


def test_without_a_suffix_its_place_is_empty() -> None:
    assert str(ModelName.of_job({**JOB, "spec": {"model": "m", "suffix": None}})) == "ft:m:local::ab12cd34"


def test_the_name_has_what_was_asked_for_not_what_an_alias_means() -> None:
    assert ModelName.of_job({**JOB, "request": {"model": "o4-mini"}}).base == "o4-mini"


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"),
        ("/models/My Model/", "my-model"),
        ("ft:o4-mini:local:x:ab12cd34", "o4-mini"),
        ("ft:o4-mini:local:x:ab12cd34:ckpt-step-3", "o4-mini"),
        ("模型", "model"),
    ],
)
def test_the_base_of_a_name(model: str, base: str) -> None:
    assert base_name(model) == base


@given(
    st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{0,64}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{8}", fullmatch=True),
    st.none() | st.integers(0, 999_999_999),
)
def test_names_are_read_as_they_were_written(base: str, suffix: str, job: str, step: int | None) -> None:
    name = ModelName(base=base, suffix=suffix, job_prefix=job, step=step)
    assert ModelName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ft:",
        "ft:a:b:c",
        "ft:a:local:s:ABCDEFGH",
        "ft:a:local:s:ab12cd3",
        "ft:a:local:s:ab12cd34:ckpt-step-",
        "ft:a:local:s:ab12cd34:ckpt-step--1",
        "ft:a:local:s:ab12cd34:ckpt-step-01",
        "ft:a:local:s:ab12cd34:ckpt-step-1e3",
        "ft:a:local:s:ab12cd34:ckpt-step-٣",
        "ft:../x:local:s:ab12cd34",
        "ft:a:local:s/../..:ab12cd34",
        "ft:a:local:s:ab12cd34\n",
        "ft:a:local:" + "s" * 65 + ":ab12cd34",
        "ft:" + "a" * 1_000_000,
    ],
)
def test_what_is_no_name_is_not_found(text: str) -> None:
    with pytest.raises(UserError) as caught:
        ModelName.parse(text)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("o4-mini", "smollm2"),
        ("o4-mini-2025-04-16", "smollm2"),
        ("gpt-4o-2024-08-06", "dated"),
        ("gpt-4o", "gpt-4o"),
        ("o4-mini-high", "o4-mini-high"),
    ],
)
def test_aliases(asked: str, meant: str) -> None:
    assert resolve_alias(asked, {"o4-mini": "smollm2", "gpt-4o-2024-08-06": "dated"}) == meant


# ------------------------------------------------------------------------------------------------------- on the disk


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Path:
    """A finished job with a result and the checkpoints of steps 4 and 8."""
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    write_job(tmp_path, model_folder, "ftjob-ab12cd34ef56gh78", "filenav", steps=(4, 8))
    adapter(tmp_path / "models" / "result", base=model_folder)
    return tmp_path


def write_job(home: Path, base: Path, job_id: str, suffix: str, *, steps: tuple[int, ...] = ()) -> None:
    folder = home / "jobs" / job_id
    folder.mkdir(parents=True)
    document = {"id": job_id, "base_model": str(base), "result": "result", "spec": {"model": "m", "suffix": suffix}}
    (folder / "job.json").write_text(json.dumps(document))
    for step in steps:
        adapter(folder / "checkpoints" / f"step-{step:08d}")


def adapter(folder: Path, base: Path | None = None) -> None:
    folder.mkdir(parents=True)
    config: dict[str, Any] = {"r": 8, "lora_alpha": 16}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if base is not None:
        (folder / "agentrft.json").write_text(json.dumps({"base_model": str(base)}))


def test_the_name_of_a_job_means_its_result(home: Path, model_folder: Path) -> None:
    weights = find_weights("ft:o4-mini:local:filenav:ab12cd34")
    assert weights.name == "ft:o4-mini:local:filenav:ab12cd34"
    assert weights.trained == home / "models" / "result"
    assert weights.folder == model_folder


def test_a_checkpoint_is_found_by_its_step(home: Path) -> None:
    name = "ft:m:local:filenav:ab12cd34:ckpt-step-8"
    weights = find_weights(name)
    assert weights.name == name
    assert weights.trained == home / "jobs" / "ftjob-ab12cd34ef56gh78" / "checkpoints" / "step-00000008"
    assert weights.rank == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ft:m:local:filenav:ab12cd34:ckpt-step-12", "expected one of 4, 8"),
        ("ft:m:local:other:ab12cd34", "no job under"),
        ("ft:m:local:filenav:zzzzzzzz", "no job under"),
        ("ft:m:elsewhere:filenav:ab12cd34", "no job under"),
        ("ft:m", "is no name of a trained model"),
    ],
)
def test_what_is_not_there_is_said(home: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_weights(name)


def test_two_jobs_of_one_name_are_no_answer(home: Path, model_folder: Path) -> None:
    write_job(home, model_folder, "ftjob-ab12cd34zzzzzzzz", "filenav")
    with pytest.raises(UserError, match="more than one job"):
        find_weights("ft:m:local:filenav:ab12cd34")


def test_a_caller_may_say_which_job_a_name_means(home: Path, model_folder: Path) -> None:
    write_job(home, model_folder, "ftjob-ab12cd34zzzzzzzz", "filenav", steps=(2,))
    name = "ft:m:local:filenav:ab12cd34:ckpt-step-2"
    found = find_weights(name, find_job=lambda parsed: f"ftjob-{parsed.job_prefix}zzzzzzzz")
    assert found.trained is not None
    assert found.trained.parts[-3:] == ("ftjob-ab12cd34zzzzzzzz", "checkpoints", "step-00000002")
