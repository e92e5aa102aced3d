"""Checkpoints of a job: in pages, taken away, and lent to other projects."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import openai
import pytest

from agentrft.jobs.models import publish
from agentrft.jobs.service import job_folder
from agentrft.store import SqlStore

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
URL = f"/v1/fine_tuning/jobs/{JOB}/checkpoints"
NAME = "ft:tiny:local:words:aaaabbbb"
ADAPTER = b"weights that nobody loads here"


@pytest.fixture
def job(server: Any, home: Path) -> SqlStore:
    """A reinforcement job of project `proj_a` that has succeeded: three checkpoints, one of them pruned since."""
    base = home / "models" / "tiny"
    base.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (base / name).write_text("{}")
    store: SqlStore = server.state.store
    document = {
        "kind": "reinforcement",
        "project_id": "proj_a",
        "runner": "server",
        "status": "queued",
        "spec": {
            "model": "tiny",
            "suffix": "words",
            "agent": {"system": "Be brief."},
            "method": {"type": "reinforcement", "reinforcement": {}},
        },
        "base_dir": "/",
        "fine_tuned_model": "tiny-words-aaaabb",
    }
    store.create_job({"id": JOB, **document})
    folder = job_folder(JOB)
    for step in (4, 8, 12):
        place = folder / "checkpoints" / f"step-{step:08d}"
        place.mkdir(parents=True)
        (place / "adapter_model.safetensors").write_bytes(ADAPTER * step)
        config = {"r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base)}
        (place / "adapter_config.json").write_text(json.dumps(config))
        (place / "optimizer.safetensors").write_bytes(b"not yours")
        (place / "manifest.json").write_text(json.dumps({"bundle": "b" * 64}))
        store.add_metrics(JOB, step, {"reward_mean": step / 100})
        store.add_checkpoint(JOB, step, str(place), {"valid_reward_mean": step / 10})
    (folder / "job.json").write_text(json.dumps({"base_model": str(base), "result": "tiny-words-aaaabb"}))
    best = folder / "checkpoints" / "step-00000008"
    publish(best, home / "models" / "tiny-words-aaaabb", {"base_model": str(base), "job": JOB, "step": 8}, base=base)
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    for status in ("running", "succeeded"):
        store.set_job_status(JOB, status)
    return store


def unpacked(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file}


def test_checkpoints_that_are_kept_newest_first(server: Any, job: SqlStore) -> None:
    client = server.openai(server.key("proj_a"))
    checkpoints = client.fine_tuning.jobs.checkpoints
    found = list(checkpoints.list(JOB, limit=1))
    assert [one.step_number for one in found] == [12, 8]
    newest = found[0]
    assert newest.fine_tuned_model_checkpoint == f"{NAME}:ckpt-step-12"
    assert newest.fine_tuning_job_id == JOB
    assert newest.model_extra == {}
    assert set(type(newest).model_fields) == newest.model_fields_set
    assert newest.metrics.step == 12
    assert newest.metrics.model_extra
    assert newest.metrics.model_extra["full_valid_mean_reward"] == 1.2
    page = checkpoints.list(JOB, limit=1)
    assert page.has_next_page()
    raw = server.http(server.key("proj_a")).get(f"{URL}?limit=1").json()
    assert (raw["first_id"], raw["last_id"], raw["has_more"]) == (newest.id, newest.id, True)
    with pytest.raises(openai.NotFoundError) as error:
        checkpoints.list(JOB, after="ftckpt_nothing")
    assert error.value.param == "after"


@pytest.mark.parametrize(("which", "step"), [("12", 12), ("result", 8), ("name", 12)])
def test_an_adapter_is_taken_away(server: Any, job: SqlStore, home: Path, which: str, step: int) -> None:
    http = server.http(server.key("proj_a"))
    ids = {str(one["step_number"]): one["id"] for one in http.get(URL).json()["data"]}
    named = {"result": "result", "name": f"{NAME}:ckpt-step-12"}.get(which) or ids[which]
    answered = http.get(f"{URL}/{named}/download")
    assert answered.status_code == 200, answered.text
    assert int(answered.headers["content-length"]) == len(answered.content)
    files = unpacked(answered.content)
    root = f"tiny-aaaabbbb-step-{step}"
    assert set(files) == {
        f"{root}/{name}" for name in ("adapter_model.safetensors", "adapter_config.json", "agentrft.json")
    }
    assert files[f"{root}/adapter_model.safetensors"] == ADAPTER * step
    assert json.loads(files[f"{root}/adapter_config.json"])["base_model_name_or_path"] == "tiny"
    card = json.loads(files[f"{root}/agentrft.json"])
    assert (card["base_model"], card["job"], card["step"], card["system"]) == ("tiny", JOB, step, "Be brief.")
    assert str(home).encode() not in answered.content


def test_what_is_not_there_cannot_be_taken(server: Any, job: SqlStore) -> None:
    http, stranger = server.http(server.key("proj_a")), server.http(server.key("proj_b"))
    gone = http.get(f"{URL}/ftckpt_nothing/download")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "checkpoint_id")
    assert http.get(f"{URL}/{NAME}:ckpt-step-4/download").status_code == 404
    assert stranger.get(f"{URL}/result/download").status_code == 404
    assert http.get(f"{URL}/result/download?format=gguf").status_code == 400
    path = http.get(f"{URL}/..%2f..%2f..%2fetc%2fpasswd/download")
    assert path.status_code == 404


def test_a_merge_that_fails_leaves_nothing_behind(server: Any, job: SqlStore, home: Path) -> None:
    failed = server.http(server.key("proj_a")).get(f"{URL}/result/download?format=merged", timeout=120)
    assert failed.status_code == 503
    assert str(home) not in failed.text
    assert not list((home / "tmp").iterdir())


def test_permissions_lend_a_checkpoint(server: Any, job: SqlStore) -> None:
    ours, theirs = server.openai(server.key("proj_a")), server.openai(server.key("proj_b"))
    model = f"{NAME}:ckpt-step-12"
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve(model)
    permissions = ours.fine_tuning.checkpoints.permissions
    made = list(permissions.create(model, project_ids=["proj_b", "proj_c", "proj_b"]))
    assert [one.project_id for one in made] == ["proj_b", "proj_c"]
    assert made[0].id.startswith("cp_")
    assert made[0].model_extra == {}
    assert theirs.models.retrieve(model).id == model
    with pytest.raises(openai.PermissionDeniedError):
        theirs.fine_tuning.checkpoints.permissions.create(model, project_ids=["proj_d"])
    again = list(permissions.create(model, project_ids=["proj_c"]))
    assert [one.id for one in again] == [made[1].id]
    assert [one.project_id for one in permissions.list(model)] == ["proj_c", "proj_b"]
    assert [one.project_id for one in permissions.list(model, order="ascending", limit=1)] == ["proj_b", "proj_c"]
    only = permissions.list(model, project_id="proj_b").data
    assert [one.id for one in only] == [made[0].id]
    with pytest.warns(DeprecationWarning, match="Retrieve is deprecated"):
        old = permissions.retrieve(model)
    assert (old.object, len(old.data), old.has_more) == ("list", 2, False)
    gone = permissions.delete(made[0].id, fine_tuned_model_checkpoint=model)
    assert (gone.id, gone.deleted, gone.object) == (made[0].id, True, "checkpoint.permission")
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve(model)
    with pytest.raises(openai.NotFoundError):
        permissions.delete(made[0].id, fine_tuned_model_checkpoint=model)


def test_permissions_need_an_admin_and_a_model(server: Any, job: SqlStore) -> None:
    admin, plain = server.openai(server.key("proj_a")), server.openai(server.key("proj_a", "jobs:write"))
    model = f"{NAME}:ckpt-step-12"
    with pytest.raises(openai.PermissionDeniedError):
        plain.fine_tuning.checkpoints.permissions.create(model, project_ids=["proj_b"])
    for unknown in ("ft:tiny:local:words:aaaabbbb:ckpt-step-99", "tiny", "ft:tiny"):
        with pytest.raises(openai.NotFoundError):
            admin.fine_tuning.checkpoints.permissions.create(unknown, project_ids=["proj_b"])
    for bad in ([], ["no spaces"], ["x" * 65]):
        with pytest.raises(openai.BadRequestError):
            admin.fine_tuning.checkpoints.permissions.create(model, project_ids=bad)
