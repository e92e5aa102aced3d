"""Twenty canaries: secrets that clients send, or that the server makes, are nowhere but where they are used.

Planted in headers of tools, of graders and of the audit's grader, of calls that are only tried, and in signing secrets;
looked for in the store's files, the jobs' folders, logs, events and every answer.
"""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import parse_job
from agentrft.jobs.rotation import rotate
from agentrft.jobs.service import create_job, stored_job, write_job_file
from agentrft.jobs.vault import ENVIRONMENT, MasterKey, Vault, is_sealed, master_file, open_vault
from agentrft.net.secrets import MASK
from agentrft.server.config import Network, ServerConfig
from agentrft.server.logs import CleanFormatter
from agentrft.store import open_store

WORDS = [
    {"messages": [{"role": "user", "content": f"What does red{n} mean?"}], "word": f"red{n}", "meaning": f"b{n}"}
    for n in range(12)
]


class Canaries:
    """Secrets that nobody may find; `made` counts those that were planted."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self) -> str:
        self.made.append(f"canary{len(self.made):02d}-5f3e9a1c7b2d4e60")
        return self.made[-1]

    def found_in(self, text: str | bytes) -> list[str]:
        data = text if isinstance(text, bytes) else text.encode()
        return [canary for canary in self.made if canary.encode() in data]


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    """What the server would have written to its log, at the most talkative level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(CleanFormatter())
    root, level = logging.getLogger(), logging.getLogger().level
    ours = [logging.getLogger(name) for name in ("agentrft", "sqlalchemy")]
    root.addHandler(handler)
    for logger in ours:
        logger.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)
    for logger in ours:
        logger.setLevel(logging.NOTSET)


def tools(url: str, plant: Canaries, n: int) -> list[Any]:
    """Tools with a secret each, in the three forms that services use."""
    forms = ["Bearer {}", "{}", "Basic {}"]
    return [
        {"name": f"t{k}", "server_url": f"{url}/t{k}", "headers": {"Authorization": forms[k % 3].format(plant())}}
        for k in range(n)
    ]


def schemas(n: int) -> list[Any]:
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    named = [{"name": f"t{k}", "description": "Look up.", "parameters": parameters} for k in range(n)]
    return [{"type": "function", "function": function} for function in named]


def endpoint(url: str, plant: Canaries, name: str = "grade") -> Any:
    return {"type": "endpoint", "name": name, "url": f"{url}/{name}", "headers": {"x-api-key": plant(), "x-b": plant()}}


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    data = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", data.encode()), purpose="fine-tune").id


def everything_on_disk(home: Path) -> bytes:
    """All files but the training files themselves, and the store as it is after a checkpoint of its journal."""
    with sqlite3.connect(home / "store.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(FULL)")
    connection.close()
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_twenty_canaries_are_nowhere(live: Any, home: Path, serve: Any, answer: Any, logged: Callable[[], str]) -> None:
    plant, answers = Canaries(), []
    leaky = serve(lambda asked: answer(body={"score": 0.5, "output": json.dumps(dict(asked.headers))}))
    server = live(ServerConfig(concurrency=0, network=Network(allow=(leaky.url.removeprefix("http://"),))))
    client = server.openai()
    file = upload(client, [{**row, "tools": schemas(9)} for row in WORDS])
    held_out = upload(client, [{**row, "word": row["word"] + "x", "tools": schemas(9)} for row in WORDS])
    section = {
        "tools": tools(leaky.url, plant, 9),
        "grader": {
            "type": "multi",
            "name": "both",
            "graders": {"a": endpoint(leaky.url, plant), "b": endpoint(leaky.url, plant, "other")},
            "calculate_output": "a + b",
        },
        "audit": {"grader": endpoint(leaky.url, plant, "independent"), "probes": False},
    }
    http = server.http(headers={"Idempotency-Key": "once"})
    body = {
        "model": "smollm2-135m-instruct",
        "training_file": file,
        "validation_file": held_out,
        "method": {"type": "reinforcement", "reinforcement": section},
    }
    made = http.post("/v1/fine_tuning/jobs", json=body)
    assert made.status_code == 200, made.text
    job_id = made.json()["id"]
    answers += [made, http.post("/v1/fine_tuning/jobs", json=body)]
    plain = server.http()
    run = {"grader": endpoint(leaky.url, plant), "model_sample": "a", "item": {}}
    answers.append(plain.post("/v1/fine_tuning/alpha/graders/run", json=run))
    answers.append(plain.post("/v1/fine_tuning/alpha/graders/validate", json={"grader": endpoint(leaky.url, plant)}))
    call = {"type": "function_call", "name": "t", "server_url": f"{leaky.url}/t", "arguments": "{}"}
    answers.append(plain.post("/v1/fine_tuning/alpha/tool/run", json={**call, "headers": {"X-Key": plant()}}))
    bad = {**section, "grader": {**endpoint(leaky.url, plant), "rate_limit": "fast"}}
    broken = {**body, "method": {"type": "reinforcement", "reinforcement": bad}}
    answers.append(plain.post("/v1/fine_tuning/jobs", json=broken))
    assert answers[-1].status_code == 400
    for path in ("", f"/{job_id}", f"/{job_id}/events", f"/{job_id}/checkpoints", f"/{job_id}/metrics"):
        answers.append(plain.get(f"/v1/fine_tuning/jobs{path}"))
    hook = plain.post("/v1/webhook_endpoints", json=WEBHOOK, headers={"Idempotency-Key": "hook"})
    assert hook.status_code == 200, hook.text
    plant.made.append(hook.json()["signing_secret"].removeprefix("whsec_"))
    answers.append(plain.get("/v1/webhook_endpoints"))
    write_job_file(stored_job(server.state.store, job_id), Path("base"), None)
    assert len(plant.made) >= 20

    # The positive controls: the secrets do arrive where they belong, and the job that will be run has them.
    headers = " ".join(str(dict(asked.headers)) for asked in leaky.asked)
    assert plant.found_in(headers)
    runnable = stored_job(server.state.store, job_id).spec.model_dump_json(context={"secrets": True})
    assert set(plant.found_in(runnable)) >= set(plant.made[:15])

    assert [plant.found_in(found.text) for found in answers] == [[]] * len(answers)
    assert MASK in answers[0].text
    assert plant.found_in(logged()) == []
    assert "/v1/fine_tuning/jobs" in logged()
    assert plant.found_in(everything_on_disk(home)) == []
    assert (home / "jobs" / job_id / "job.json").exists()
    assert httpx.get(f"{server.url}/metrics").status_code == 200


WEBHOOK = {"name": "hook", "url": "https://example.com/hook", "event_types": ["fine_tuning.job.succeeded"]}


def test_a_jobs_id_does_not_depend_on_the_sealing(live: Any, home: Path, tmp_path: Path) -> None:
    store = live().state.store
    spec = parse_job(
        {
            "model": "m",
            "data": {"train": "t.jsonl"},
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {"type": "endpoint", "name": "g", "url": "https://e.com", "headers": {"k": "s3cret"}}
                },
            },
        }
    )
    job = create_job(store, spec, tmp_path)
    elsewhere = open_store(tmp_path / "elsewhere")
    assert create_job(elsewhere, spec, tmp_path).id == job.id
    elsewhere.close()
    sealed: Any = store.get_job(job.id)["spec"]["method"]["reinforcement"]["grader"]["headers"]["k"]
    assert is_sealed(sealed)
    master_file().unlink()
    second = create_job(store, spec, tmp_path)
    again: Any = store.get_job(second.id)["spec"]["method"]["reinforcement"]["grader"]["headers"]["k"]
    assert again != sealed
    with pytest.raises(UserError) as error:
        stored_job(store, job.id)
    assert error.value.code == "secret_unreadable"
    assert "s3cret" not in error.value.message


def test_rotating_seals_everything_anew_while_the_server_runs(live: Any, home: Path) -> None:
    server = live()
    http = server.http()
    first = http.post("/v1/webhook_endpoints", json=WEBHOOK).json()
    old = master_file().read_text()
    done = rotate(server.state.store.database)
    assert (done.n_values, done.n_unreadable) == (1, 0)
    assert master_file().read_text().split() != old.split()
    assert len(master_file().read_text().split()) == 1
    assert master_file().stat().st_mode & 0o777 == 0o600
    second = http.post("/v1/webhook_endpoints", json=WEBHOOK).json()
    assert rotate(server.state.store.database).n_values == 2
    former = Vault(lambda: (MasterKey.read(old, "old"),))
    for made in (first, second):
        endpoint = server.state.webhooks.get("proj_local", made["id"])
        context = f"webhook_endpoints/{made['id']}/signing_secret"
        assert open_vault().unseal(endpoint.secrets[0].sealed, context) == made["signing_secret"]
        with pytest.raises(UserError):
            former.unseal(endpoint.secrets[0].sealed, context)


def test_a_text_that_looks_sealed_stops_nobody(live: Any, home: Path) -> None:
    server = live()
    answer = server.http().post("/v1/webhook_endpoints", json={**WEBHOOK, "name": "sealed:1:x:y:z"})
    assert answer.status_code == 200
    done = rotate(server.state.store.database)
    assert (done.n_values, done.n_unreadable) == (1, 1)
    assert len(master_file().read_text().split()) == 2


def test_the_environment_s_key_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [MasterKey.made() for _ in range(2)]
    monkeypatch.setenv(ENVIRONMENT, keys[0].line())
    sealed = open_vault().seal("text", "context")
    monkeypatch.setenv(ENVIRONMENT, f"{keys[1].line()},{keys[0].line()}")
    assert open_vault().unseal(sealed, "context") == "text"
    assert open_vault().seal("text", "context").split(":")[2] == keys[1].id
    assert not master_file().exists()
    monkeypatch.setenv(ENVIRONMENT, "nonsense-that-nobody-may-see")
    with pytest.raises(UserError) as error:
        open_vault().seal("text", "context")
    assert error.value.code == "invalid_master_key"
    assert "nonsense" not in error.value.message
