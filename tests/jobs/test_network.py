"""The network policy reaches everything of a job that asks services: its tools, its graders, and the checks of both."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from agentrft import build
from agentrft.errors import UserError
from agentrft.jobs.check import check_job
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.net.exchange import Lost
from agentrft.net.policy import NetworkPolicy
from agentrft.net.reach import reach
from agentrft.types import Item, Sample, ToolCall


def job(url: str, folder: Path) -> JobSpec:
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}]} for n in range(3)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grader = {"type": "endpoint", "name": "judge", "url": f"{url}/grade"}
    tool = {"name": "look", "server_url": f"{url}/look", "parameters": {"type": "object", "properties": {}}}
    return JobSpec.model_validate(
        {
            "model": "owner/model",
            "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
            "data": {"train": "train.jsonl"},
            "agent": {"tools": [tool]},
            "audit": {"grader": grader, "probes": False},
        }
    )


@pytest.fixture
def service(serve: Any, answer: Any) -> Any:
    return serve(lambda asked: answer(body={"score": 0.5, "output": "blue"}))


def listed(service: Any) -> NetworkPolicy:
    return NetworkPolicy.public([service.url.removeprefix("http://")])


async def ask_everything(spec: JobSpec, folder: Path, network: NetworkPolicy) -> tuple[str, list[float | None]]:
    """What the tool says, and the grades of the job's two graders."""
    tools = await open_tools(spec, folder, network=network)
    graders = [build.grader_of(spec, folder, network), build.audit_grader_of(spec, folder, network)]
    item = Item(id="i", messages=())
    try:
        session = await tools.open(item, "trace_x")
        (result,) = await session.run([ToolCall(id="c", name="look", arguments="{}")])
        grades = [await grader.grade(Sample(output_text=""), item, "trace_x") for grader in graders if grader]
        return result.output, [grade.value for grade in grades]
    finally:
        await tools.close()
        for grader in graders:
            if grader:
                await grader.close()


def test_what_the_operator_lists_is_asked(service: Any, tmp_path: Path) -> None:
    spec = job(service.url, tmp_path)
    assert asyncio.run(ask_everything(spec, tmp_path, listed(service))) == ("blue", [0.5, 0.5])
    assert {asked.path for asked in service.asked} == {"/look", "/grade"}


def test_nothing_else_is(service: Any, tmp_path: Path) -> None:
    spec, public = job(service.url, tmp_path), NetworkPolicy.public()
    with pytest.raises(UserError) as tool:
        asyncio.run(open_tools(spec, tmp_path, network=public))
    assert tool.value.param == "agent.tools.0.server_url"
    with pytest.raises(UserError) as grader:
        build.grader_of(spec, tmp_path, public)
    assert grader.value.param == "method.reinforcement.grader.url"
    with pytest.raises(UserError) as audit:
        build.audit_grader_of(spec, tmp_path, public)
    assert audit.value.param == "audit.grader.url"
    assert service.asked == []


def test_the_checks_go_by_it(service: Any, tmp_path: Path) -> None:
    spec = job(service.url, tmp_path)
    refused = check_job(spec, tmp_path, network=NetworkPolicy.public())
    assert [problem.param for problem in refused.problems] == [
        "agent.tools.0.server_url",
        "method.reinforcement.grader.url",
        "audit.grader.url",
    ]
    assert service.asked == []
    assert check_job(spec, tmp_path, network=listed(service)).problems == []
    assert check_job(spec, tmp_path).problems == []
    assert {asked.path for asked in service.asked} == {"/grade"}


async def test_reaching_asks_nothing(service: Any) -> None:
    await reach(service.url, listed(service), within_s=5)
    with pytest.raises(Lost, match="could not be reached"):
        await reach(service.url, NetworkPolicy.public(), within_s=5)
    assert service.asked == []


async def test_nobody_there_and_not_allowed_look_alike() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    for policy in (NetworkPolicy.public([address]), NetworkPolicy.public()):
        with pytest.raises(Lost, match=r"^could not be reached$"):
            await reach(f"http://{address}", policy, within_s=5)
