"""parcels as a job: its checks, its audit, and the one command that starts the server and climbs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrft.audit import audit
from agentrft.graders import build_grader
from agentrft.jobs.audit import audit_plan
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job


def test_the_job_passes_every_check(parcels: Any) -> None:
    report = check_job(parcels.job, parcels.folder)
    assert [problem.message for problem in report.problems] == []
    assert report.warnings == []


def test_bindings_and_server_take_the_same_arguments(parcels: Any) -> None:
    spec, _ = load_job(parcels.folder / "job.yaml")
    depot = parcels.module("depot").Depot({})
    for binding in spec.agent.tools:
        assert binding.type == "http"
        code = getattr(depot, binding.name).__code__
        assert list((binding.parameters or {})["properties"]) == list(code.co_varnames[1 : code.co_argcount])


def test_the_audit_finds_nothing_to_fool_the_grader_with(parcels: Any) -> None:
    spec = parcels.job
    assert spec.method.reinforcement is not None
    grader = build_grader(spec.method.reinforcement.grader, parcels.folder)

    async def audited() -> list[tuple[str, str]]:
        try:
            report = await audit(audit_plan(spec, parcels.folder, n_items=2), grader)
        finally:
            await grader.close()
        return [(line.name, line.verdict) for line in report.lines if line.verdict not in ("safe", "skipped")]

    assert asyncio.run(audited()) == []


@pytest.fixture
def copy(parcels: Any, tmp_path: Path) -> tuple[Path, int]:
    """The example with a port of its own, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for path in parcels.folder.glob("*.*"):
        text = path.read_text(encoding="utf-8").replace(":8765/", f":{port}/")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path, port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("options", "code", "said"), [(["--help"], 0, "Usage: agentrft climb"), (["--seed"], 2, "requires an argument")]
)
def test_one_command_starts_the_server_and_stops_it(
    copy: tuple[Path, int], options: list[str], code: int, said: str
) -> None:
    folder, port = copy
    command = [sys.executable, str(folder / "run.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert is_free(port)


def test_a_taken_port_is_a_clear_error(parcels: Any, copy: tuple[Path, int]) -> None:
    folder, port = copy
    with parcels.serving(port):
        done = subprocess.run([sys.executable, str(folder / "run.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} cannot be used: Address already in use")
    assert "job.yaml" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_kill_ends_the_climb_and_then_the_server(copy: tuple[Path, int], number: signal.Signals) -> None:
    folder, port = copy
    script = folder / "run.py"
    # stands in for a climb that is under way: it says that it runs, and ends when it is asked to
    climb = "import signal, time; signal.signal(15, lambda *_: exit(7)); print('climbing', flush=True); time.sleep(60)"
    begun = '[AGENTRFT, "climb", JOB, "--only-train", *options]'
    assert begun in script.read_text()
    text = script.read_text().replace(begun, f"[sys.executable, '-c', {climb!r}]")
    script.write_text(text)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "climbing\n"
        os.kill(run.pid, number)
        if number is signal.SIGINT:  # the terminal sends it to the climb as well; here nobody did, so it goes on
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(timeout=0.5)
            assert not is_free(port)
            run.terminate()
        assert run.wait(timeout=30) == 7
    assert is_free(port)
