"""At least 10,000 requests made from the server's own OpenAPI document, by two tenants, over real HTTP.

No answer is a 5xx, none is other than the document says, none hangs, and none shows one tenant what is the other's:
the first tenant's objects carry a canary and their ids are known to the second.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from agentrft.jobs.load import parse_job
from agentrft.jobs.service import create_job
from agentrft.runtime.serving.wire import Ended, TextDelta
from agentrft.server.config import Limits, ServerConfig
from agentrft.server.response_answer import Assembly
from agentrft.server.response_context import kept_items
from agentrft.server.responses_wire import ResponseBody
from agentrft.server.run import config_of
from agentrft.server.state import ServerState, open_state
from agentrft.types import TokenUsage

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2400)]

CASES = int(os.environ.get("AGENTRFT_FUZZ_CASES", "10000"))
LONGEST_ANSWER_S = 15.0
"""Above the ten seconds that a pause may wait for its checkpoint."""
CANARY = "canary-7d1f0c52"
ROWS = b'{"messages": [{"role": "user", "content": "%s"}]}\n' % CANARY.encode() * 12


@dataclass
class Fuzzed:
    """A live server with two tenants, and what became of the requests."""

    url: str
    state: ServerState
    document: dict[str, Any]
    keys: tuple[str, str]
    """Of the tenant that has objects, and of the one that has none."""
    ids: dict[str, list[str]]
    """Path parameter → ids of the first tenant's."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRFT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(socket, "getaddrinfo", _no_names(socket.getaddrinfo))
        limits = Limits(requests_per_minute=10_000_000, json_s=5, progress_s=5)
        state = open_state(ServerConfig(concurrency=0, limits=limits))
        sock = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(config_of(state))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        keys = tuple(state.keys.create(project, ["admin"])[1] for project in ("proj_a", "proj_b"))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        document = httpx.get(f"{url}/openapi.json").json()
        yield Fuzzed(url, state, document, keys, _objects(url, keys[0], state))
        server.should_exit = True
        thread.join()
        state.close()


def _no_names(real: Any) -> Any:
    """Name look-ups as on a machine without a network: they fail, at once."""

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", "localhost", b"127.0.0.1", b"localhost"):
            return real(host, *arguments, **options)
        raise socket.gaierror(socket.EAI_NONAME, "no network")

    return getaddrinfo


def _objects(url: str, key: str, state: ServerState) -> dict[str, list[str]]:
    """What the first tenant has: one of everything, with the canary in it."""
    client = httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"})
    form = {"purpose": "fine-tune"}
    files = [client.post("/files", files={"file": (f"{CANARY}.jsonl", ROWS)}, data=form).json()["id"]]
    upload = {"bytes": 5, "filename": CANARY, "mime_type": "a/b", "purpose": "batch"}
    uploads = [client.post("/uploads", json=upload).json()["id"]]
    hook = {"name": CANARY, "url": "https://hooks.example/h", "event_types": ["fine_tuning.job.succeeded"]}
    hooks = [client.post("/webhook_endpoints", json=hook).json()["id"]]
    # None is running: a pause would wait ten seconds for a worker that is not there.
    jobs = [_job(state, status) for status in ("queued", "paused", "succeeded", "failed", "cancelled")]
    checkpoints = [state.store.add_checkpoint(job, 3, f"/{CANARY}/step-00000003", {"valid_loss": 1.0}) for job in jobs]
    client.close()
    return {
        "response_id": [_response(state) for _ in range(4)],
        "file_id": files,
        "upload_id": uploads,
        "fine_tuning_job_id": jobs,
        "checkpoint_id": checkpoints,
        "webhook_endpoint_id": hooks,
    }


def _response(state: ServerState) -> str:
    """A kept response."""
    body = ResponseBody(model="tiny", input=CANARY, metadata={"of": CANARY})
    assembly = Assembly(body, time.time())
    usage = TokenUsage(prompt_tokens=1, completion_tokens=1)
    for event in (TextDelta(text=CANARY), Ended(finish_reason="stop", usage=usage, policy_version=0)):
        list(assembly.take(event, time.time()))
    state.responses.add("proj_a", assembly.response, kept_items(body.input))
    return assembly.response["id"]


def _job(state: ServerState, status: str) -> str:
    """A job that nothing will run, in that status, with events and metrics."""
    document = {
        "model": "smollm2-135m-instruct",
        "suffix": CANARY,
        "metadata": {"of": CANARY},
        "data": {"demonstrations": "rows.jsonl"},
        "method": {"type": "supervised", "supervised": {}},
    }
    job_id = create_job(state.store, parse_job(document), Path("/"), extra={"project_id": "proj_a"}).id
    for step in () if status == "queued" else ("running", status):
        state.store.set_job_status(job_id, step)
    state.store.add_event(job_id, CANARY, data={"step": 3})
    state.store.add_metrics(job_id, 3, {"train_loss": 1.0})
    return job_id


@pytest.mark.filterwarnings("ignore")  # of what schemathesis does inside hypothesis
def test_ten_thousand_requests(fuzzed: Fuzzed) -> None:
    import schemathesis

    schema = schemathesis.openapi.from_dict(fuzzed.document)
    labels = [(path, method) for path, methods in fuzzed.document["paths"].items() for method in methods]
    each = -(-CASES // (2 * len(labels)))
    for path, method in labels:
        for mode in schemathesis.GenerationMode:
            _fuzz(fuzzed, schema[path][method.upper()], mode, each)
    total = sum(fuzzed.statuses.values())
    assert total >= CASES * 0.98, f"only {total} requests were made"
    reached = {label for (label, status), n in fuzzed.statuses.items() if status < 300 and n}
    must = {"GET /v1/files", "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}", "POST /v1/uploads", "GET /v1/models"}
    assert must <= reached, sorted(fuzzed.statuses.items())
    assert httpx.get(f"{fuzzed.url}/healthz").status_code == 200


def _fuzz(fuzzed: Fuzzed, operation: Any, mode: Any, cases: int) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]

    @seed(0)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_owner=st.booleans(), pick=st.integers(0, 19))
    def ask(case: Any, is_owner: bool, pick: int) -> None:
        # Strangers always know real ids; the owner's own requests reach further with them.
        if not is_owner or pick < 14:
            for name in sorted(fuzzed.ids.keys() & (case.path_parameters or {}).keys()):
                case.path_parameters[name] = fuzzed.ids[name][pick % len(fuzzed.ids[name])]
        headers = {"Authorization": f"Bearer {fuzzed.keys[0 if is_owner else 1]}"}
        began = time.monotonic()
        response = case.call(base_url=fuzzed.url, headers=headers, timeout=LONGEST_ANSWER_S)
        assert time.monotonic() - began < LONGEST_ANSWER_S
        fuzzed.statuses[operation.label, response.status_code] += 1
        case.validate_response(response, checks=checks)
        assert response.headers["x-request-id"][0].startswith("req_")
        if not is_owner:
            assert CANARY.encode() not in response.content, "a tenant sees what is another's"
            if fuzzed.ids.keys() & (case.path_parameters or {}).keys():
                assert response.status_code >= 400, "a tenant reaches what is another's"

    try:
        ask()
    except Exception as error:
        if re.search("Unsatisfiable|no valid", f"{type(error).__name__} {error}"):
            return  # nothing wrong can be sent to an operation that takes nothing
        raise
    assert Path(os.environ["AGENTRFT_HOME"]).is_dir()
