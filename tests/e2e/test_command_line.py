"""The command line over a tiny real model: train, measure, look, talk, interrupt, go on."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.jobs.load import load_job
from agentrft.jobs.service import create_job
from agentrft.store import open_store

MakeJob = Callable[..., Path]
Cli = Callable[..., "Result"]


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def cli(own_home: Path, command_line: Callable[..., tuple[int, str, str]]) -> Cli:
    """cli("jobs", "list"): runs the command in this process, in a home of its own."""

    return lambda *args: Result(*command_line(*args))


def newest_job() -> dict[str, object]:
    store = open_store()
    try:
        return store.list_jobs(limit=1)[0]
    finally:
        store.close()


def test_a_grader_that_can_be_fooled_is_not_trained_on(cli: Cli, make_job: MakeJob, own_home: Path) -> None:
    job = make_job()
    job.write_text(job.read_text().replace('"probes": false', '"probes": true'))
    refused = cli("run", str(job))
    assert refused.code == 2
    assert "the grader can be fooled: " in refused.err
    stored = newest_job()
    assert stored["status"] == "failed"
    assert stored["error"]["code"] == "audit_failed"  # type: ignore[index]
    folder = own_home / "jobs" / str(stored["id"])
    assert not json.loads((folder / "audit.json").read_text())["passed"]
    assert "solution" in (folder / "audit.html").read_text()
    assert not list((folder / "checkpoints").glob("step-*"))


def test_supervised_then_reinforcement_then_everything_that_looks_at_them(cli: Cli, make_job: MakeJob) -> None:
    job = make_job(steps=4)

    supervised = cli("run", str(job), "--method", "supervised")
    assert supervised.code == 0, supervised.err
    first = newest_job()
    assert first["status"] == "succeeded"
    store = open_store()
    nll = [entry["metrics"]["nll"] for entry in store.list_metrics(str(first["id"]))]
    # 8 demonstrations × 6 epochs / 4 = 12 steps; a random model over about 400 tokens starts near ln 400 = 5.99.
    assert len(nll) == 12
    assert 5.5 < nll[0] < 6.5
    assert nll[-1] < nll[0] - 0.3
    store.close()

    reinforced = cli("run", str(job), "--from", str(first["fine_tuned_model"]))
    assert reinforced.code == 0, reinforced.err
    second = newest_job()
    assert second["start_from"] == first["fine_tuned_model"]
    assert "4/4" in reinforced.err
    assert "validation after step 4" in reinforced.err
    home = Path(os.environ["AGENTRFT_HOME"])
    report = (home / "jobs" / str(second["id"]) / "report.html").read_text()
    assert "Validation reward went from" in report or "No checkpoint did better" in report
    card = json.loads((home / "models" / str(second["fine_tuned_model"]) / "agentrft.json").read_text())
    assert card["job"] == second["id"]

    listed = cli("jobs", "list")
    assert listed.out.count("succeeded") == 2
    shown = cli("jobs", "show", str(second["id"])[:12])
    assert "reward" in shown.out
    assert "step-00000004" in shown.out
    episode = next(word for word in shown.out.split() if word.startswith("ep_"))
    transcript = cli("show", episode)
    assert transcript.code == 0
    assert "What does red" in transcript.out
    assert "grade -0." in transcript.out


def test_eval_prints_figures_and_json(cli: Cli, make_job: MakeJob) -> None:
    job = make_job()
    table = cli("eval", str(job), "--split", "new_names", "--samples", "3")
    assert table.code == 0, table.err
    assert "6 items, 18 graded episodes" in table.out
    document = json.loads(cli("eval", str(job), "--items", "4", "--json").out)
    assert document["split"] == "test"
    assert document["reward"]["n_items"] == 4
    assert document["reward"]["n_episodes"] == 8
    assert document["reward"]["low"] <= document["reward"]["mean"] <= document["reward"]["high"] <= 0


def test_an_unknown_split_is_a_user_error(cli: Cli, make_job: MakeJob) -> None:
    result = cli("eval", str(make_job()), "--split", "tets")
    assert result.code == 2
    assert "no split 'tets'" in result.err
    assert "test" in result.err


def test_ctrl_c_checkpoints_and_the_job_goes_on_where_it_was(cli: Cli, make_job: MakeJob) -> None:
    job = make_job(steps=200)
    stopper = threading.Thread(target=interrupt_after, args=(2,))
    stopper.start()
    result = cli("run", str(job))
    stopper.join()
    assert result.code == 130
    stored = newest_job()
    assert stored["status"] == "paused"
    assert "stopped after step" in result.out
    assert f"agentrft run {stored['id']}" in result.out
    store = open_store()
    reached = store.list_metrics(str(stored["id"]))[-1]["step"]
    store.close()
    assert 2 <= reached < 200

    stopper = threading.Thread(target=interrupt_after, args=(reached + 2,))
    stopper.start()
    again = cli("run", str(stored["id"]))
    stopper.join()
    assert again.code == 130
    assert f"Resuming after step {reached}" in again.err


def interrupt_after(step: int) -> None:
    """Send this process a Ctrl-C as soon as the newest job has done `step` steps."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        store = open_store()
        jobs = store.list_jobs(limit=1)
        done = store.list_metrics(jobs[0]["id"]) if jobs else []
        running = jobs and jobs[0]["status"] == "running"
        store.close()
        if running and done and done[-1]["step"] >= step:
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.05)


def test_chat_plays_an_episode_for_each_question(
    cli: Cli, make_job: MakeJob, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What does red1 mean?\nAnd red2?\n"))
    result = cli("chat", str(tiny_model), "--job", str(make_job()), "--item", "i203")
    assert result.code == 0, result.err
    assert "i203" in result.err
    assert result.out.count(">") >= 2


def test_a_finished_job_is_not_run_again(cli: Cli, make_job: MakeJob) -> None:
    assert cli("run", str(make_job(steps=1))).code == 0
    result = cli("run", str(newest_job()["id"]))
    assert result.code == 2
    assert "complete" in result.err


def test_an_adapter_of_another_rank_is_refused_with_the_setting_to_change(cli: Cli, make_job: MakeJob) -> None:
    assert cli("run", str(make_job(steps=1)), "--method", "supervised").code == 0
    result = cli("run", str(make_job("other", lora={"rank": 2, "alpha": 8})), "--from", str(newest_job()["id"]))
    assert result.code == 2
    assert "{rank: 4, alpha: 8}" in result.err


def test_full_fine_tuning_gives_a_folder_that_stands_alone(cli: Cli, make_job: MakeJob) -> None:
    result = cli("run", str(make_job(steps=1, lora=None)), "--method", "supervised")
    assert result.code == 0, result.err
    folder = Path(os.environ["AGENTRFT_HOME"]) / "models" / str(newest_job()["fine_tuned_model"])
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert cli("eval", str(make_job("other")), "--model", str(folder), "--items", "2").code == 0


def test_a_job_that_a_dead_process_of_this_machine_holds_is_taken_over(cli: Cli, make_job: MakeJob) -> None:
    spec, base_dir = load_job(make_job(steps=1))
    store = open_store()
    job = create_job(store, spec, base_dir)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store.claim_job(job.id, f"{socket.gethostname()}:{dead.pid}", 3600.0)
    store.set_job_status(job.id, "running")
    assert cli("run", job.id).code == 0
    assert newest_job()["status"] == "succeeded"
    store.close()


def test_a_job_that_a_living_process_holds_is_refused(cli: Cli, make_job: MakeJob) -> None:
    spec, base_dir = load_job(make_job(steps=1))
    store = open_store()
    job = create_job(store, spec, base_dir)
    store.claim_job(job.id, f"elsewhere:{os.getpid()}", 3600.0)
    refused = cli("run", job.id)
    assert refused.code == 2
    assert "being worked on by elsewhere" in refused.err
    assert newest_job()["status"] == "queued"
    store.close()
