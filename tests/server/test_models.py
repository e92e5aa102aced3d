"""Which models a server has, what their names mean, who may use them, and how they are deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from agentrft.jobs.names import ModelName
from agentrft.server.config import ServerConfig
from agentrft.server.engine import Engine
from agentrft.server.state import ServerState
from agentrft.store.permissions import Permissions
from agentrft.testing.serving import ScriptedEngine

HELLO: Any = [{"role": "user", "content": "Hello"}]
JOB = "ftjob-abcdefgh12345678"
RESULT = "ft:tiny:local:nav:abcdefgh"
STEP_2 = f"{RESULT}:ckpt-step-2"


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine("Hi.")


@pytest.fixture
def server(live: Any, home: Path, engine: ScriptedEngine) -> Any:
    """A server with the base model `tiny`, alias `o4-mini`, and a job of project A that has succeeded."""
    tiny = home / "models" / "tiny"
    tiny.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tiny / name).write_text("{}")

    server = live(ServerConfig(concurrency=0, models=("tiny",), aliases={"o4-mini": "tiny"}))
    server.state.engine = Engine(engine)
    trained_job(server.state, home)
    return server


def trained_job(state: ServerState, home: Path, job_id: str = JOB, project: str = "proj_a", **spec: Any) -> None:
    """A job with a result and checkpoints of steps 1 and 2, of which training has kept the second."""
    document = {"model": "tiny", "suffix": "nav", "agent": {"format": "hermes"}, **spec}
    state.store.create_job(
        {
            "id": job_id,
            "project_id": project,
            "status": "queued",
            "kind": "reinforcement",
            "spec": document,
            "fine_tuned_model": None,
        }
    )
    folder = home / "jobs" / job_id
    result = home / "models" / f"result-{job_id[6:12]}"
    base = str(home / "models" / "tiny")
    for place, card in ((result, "agentrft.json"), (folder / "checkpoints" / "step-00000002", "manifest.json")):
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16}))
        (place / "adapter_model.safetensors").write_bytes(b"")
        (place / card).write_text(json.dumps({"base_model": base, "bundle": "b" * 64, "step": 2}))
    state.store.add_checkpoint(job_id, 1, str(folder / "checkpoints" / "step-00000001"), {})
    state.store.add_checkpoint(job_id, 2, str(folder / "checkpoints" / "step-00000002"), {})
    job_file = {"id": job_id, "base_model": base, "result": result.name, "spec": document}
    (folder / "job.json").write_text(json.dumps(job_file))
    state.store.set_job_status(job_id, "running")
    state.store.update_job(job_id, {"fine_tuned_model": result.name})
    state.store.set_job_status(job_id, "succeeded")


def test_the_list_has_base_models_aliases_results_and_kept_checkpoints(server: Any) -> None:
    client = server.openai(server.key("proj_a"))
    models = list(client.models.list())
    assert [model.id for model in models] == ["tiny", "o4-mini", RESULT, STEP_2]
    assert [model.owned_by for model in models] == ["system", "system", "local", "local"]
    assert str(ModelName.of_job(server.state.store.get_job(JOB))) == RESULT
    for model in models:
        assert set(model.to_dict()) == {"id", "object", "created", "owned_by", "shutdown_date"}
        assert model.created > 1_600_000_000
        assert client.models.retrieve(model.id) == model


def test_names_mean_weights_and_the_format_they_were_trained_with(server: Any, engine: ScriptedEngine) -> None:
    client = server.openai(server.key("proj_a"))
    for name, folder in ((RESULT, "result-abcdef"), (STEP_2, "step-00000002")):
        answer = client.chat.completions.with_raw_response.create(model=name, messages=HELLO)
        asked = engine.requests[-1]
        assert asked.weights.trained
        assert (asked.weights.trained.name, asked.weights.folder.name, asked.weights.rank) == (folder, "tiny", 8)
        assert (asked.weights.name, asked.format) == (name, "hermes")
        assert answer.parse().model == name
        assert answer.headers["x-agentrft-bundle"] == "b" * 64
    base = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO)
    assert "x-agentrft-bundle" not in base.headers
    fingerprints = {
        client.chat.completions.create(model=name, messages=HELLO).system_fingerprint
        for name in ("tiny", "o4-mini", RESULT, STEP_2)
    }
    assert len(fingerprints) == 3  # the alias is its model


def test_another_bundle_is_refused_unless_forced(server: Any, engine: ScriptedEngine) -> None:
    client = server.openai(server.key("proj_a"))

    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model=RESULT, messages=HELLO, **options)

    for options in (
        {"extra_body": {"bundle": "c" * 64}},
        {"extra_headers": {"x-agentrft-bundle": "c" * 64}},
        {"extra_body": {"bundle": "c" * 64}, "stream": True},
    ):
        with pytest.raises(openai.ConflictError) as caught:
            ask(**options)
        assert caught.value.code == "bundle_changed"
    with pytest.raises(openai.ConflictError):
        client.responses.create(model=RESULT, input="Hello", extra_body={"bundle": "c" * 64})
    assert not engine.requests
    ask(extra_body={"bundle": "b" * 64})
    ask(extra_body={"bundle": "c" * 64, "force_bundle": True})
    client.chat.completions.create(model="tiny", messages=HELLO, extra_body={"bundle": "c" * 64})
    assert len(engine.requests) == 3


def test_other_projects_see_a_model_only_when_they_are_let(server: Any, engine: ScriptedEngine) -> None:
    theirs = server.openai(server.key("proj_b"))
    for name in (RESULT, STEP_2):
        for call in (
            lambda name=name: theirs.models.retrieve(name),
            lambda name=name: theirs.models.delete(name),
            lambda name=name: theirs.chat.completions.create(model=name, messages=HELLO),
            lambda name=name: theirs.responses.create(model=name, input="Hello"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            assert caught.value.code == "model_not_found"
    assert [model.id for model in theirs.models.list()] == ["tiny", "o4-mini"]

    Permissions(server.state.store.database).create(JOB, STEP_2, ["proj_b"])
    assert [model.id for model in theirs.models.list()] == ["tiny", "o4-mini", STEP_2]
    theirs.chat.completions.create(model=STEP_2, messages=HELLO)
    assert len(engine.requests) == 1
    with pytest.raises(openai.NotFoundError):
        theirs.chat.completions.create(model=RESULT, messages=HELLO)
    with pytest.raises(openai.PermissionDeniedError):
        theirs.models.delete(STEP_2)


def test_a_deleted_model_is_gone_with_its_weights(server: Any, home: Path) -> None:
    client = server.openai(server.key("proj_a"))
    for name, folder in (
        (RESULT, home / "models" / "result-abcdef"),
        (STEP_2, home / "jobs" / JOB / "checkpoints" / "step-00000002"),
    ):
        assert folder.is_dir()
        gone = client.models.delete(name)
        assert gone.to_dict() == {"id": name, "object": "model", "deleted": True}
        assert not folder.exists()
        for call in (
            lambda name=name: client.models.retrieve(name),
            lambda name=name: client.models.delete(name),
            lambda name=name: client.chat.completions.create(model=name, messages=HELLO),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
    assert [model.id for model in client.models.list()] == ["tiny", "o4-mini"]
    assert server.state.store.get_job(JOB)["status"] == "succeeded"


def test_base_models_and_what_a_job_still_needs_cannot_be_deleted(server: Any) -> None:
    client = server.openai(server.key("proj_a"))
    for name in ("tiny", "o4-mini"):
        with pytest.raises(openai.PermissionDeniedError):
            client.models.delete(name)
    store, job_id = server.state.store, "ftjob-zyxwvuts12345678"
    spec = {"model": "tiny", "suffix": "nav", "agent": {"format": "auto"}}
    store.create_job({"id": job_id, "project_id": "proj_a", "status": "queued", "kind": "supervised", "spec": spec})
    store.set_job_status(job_id, "running")
    checkpoint = Path(store.list_checkpoints(JOB)[1]["path"])
    store.add_checkpoint(job_id, 3, str(checkpoint), {})
    name = "ft:tiny:local:nav:zyxwvuts:ckpt-step-3"
    assert client.models.retrieve(name).id == name
    with pytest.raises(openai.ConflictError) as caught:
        client.models.delete(name)
    assert caught.value.code == "model_in_use"
    assert checkpoint.is_dir()


def test_models_that_are_none(server: Any) -> None:
    client = server.openai(server.key("proj_a"))
    wrong = (
        "gpt-9",
        "Qwen/Qwen2.5-0.5B",
        f"{RESULT}:ckpt-step-1",
        f"{RESULT}:ckpt-step-9",
        "ft:x",
        JOB,
        "../tiny",
        "ftjob-",
    )
    for name in (*wrong, "ft:tiny:local:other:abcdefgh"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


def test_weights_that_have_gone_from_the_disk(server: Any, home: Path) -> None:
    client = server.openai(server.key("proj_a"))
    shutil.rmtree(home / "models" / "result-abcdef")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=RESULT, messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert str(home) not in caught.value.message
    assert client.models.delete(RESULT).deleted
    assert RESULT not in [model.id for model in client.models.list()]


def test_scopes_are_held_to(server: Any) -> None:
    reader, jobs = server.openai(server.key("proj_a", "models:read")), server.openai(server.key("proj_a", "jobs:write"))
    assert list(reader.models.list())
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.delete(RESULT)
    with pytest.raises(openai.PermissionDeniedError):
        jobs.models.list()


def test_without_a_list_a_server_has_what_its_disk_has(
    live: Any, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    snapshot = cache / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    (cache / "models--half--loaded" / "snapshots" / "abc").mkdir(parents=True)
    mine = home / "models" / "mine"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("{}")
    trained = home / "models" / "trained"
    trained.mkdir()
    for name in ("config.json", "agentrft.json"):
        (trained / name).write_text("{}")
    models = [model.id for model in live().openai().models.list()]
    assert [name for name in models if name != "smollm2-135m-instruct"] == ["mine", "Qwen/Qwen2.5-0.5B"]
