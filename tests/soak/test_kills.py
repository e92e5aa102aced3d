"""kill -9 of trainers, of the server and of both, inside saves too, and damaged checkpoints: nothing shows in the end.

Supervised, DPO and exact reinforcement jobs run side by side in real worker processes. Each round is a home of its own,
in which the jobs have the ids, and so the seeds, that they have undisturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest

from agentrft.jobs.load import load_job
from agentrft.jobs.service import Kind, create_job, job_folder
from agentrft.runtime.processes import is_gone, pid_of
from agentrft.store import open_store
from agentrft.store.states import FINAL
from agentrft.train.checkpoint import verified

KILLS = int(os.environ.get("AGENTRFT_SOAK_KILLS", "100"))
"""Kills in all; damaged checkpoints are a fifth of them."""
DAMAGES = KILLS // 5
KINDS: tuple[Kind, ...] = ("supervised", "dpo", "reinforcement")
assert set(KINDS) < set(get_args(Kind))
SERVER = Path(__file__).with_name("server_process.py")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2400)]


class Round:
    """One home with a job of each kind, and the server that runs them."""

    def __init__(self, home: Path, job_file: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("AGENTRFT_HOME", str(home))
        self.store = open_store()
        spec, base_dir = load_job(job_file)
        extra = {"runner": "server", "status": "queued"}
        self.jobs = {kind: create_job(self.store, spec, base_dir, kind=kind, extra=extra).id for kind in KINDS}
        self.bounds: dict[str, list[tuple[int, int]]] = {job_id: [] for job_id in self.jobs.values()}
        """By job: so many resumptions there had been when it was killed, and the step that the next must reach."""
        self.boot()

    def boot(self) -> None:
        self.server = subprocess.Popen([sys.executable, str(SERVER), "3"], start_new_session=True)

    # What is known

    def trainers(self) -> dict[str, int]:
        """Job → pid of the process that trains it now."""
        owners = {job_id: self.store.get_job(job_id)["owner"] for job_id in self.jobs.values()}
        pids = {job_id: pid_of(owner) for job_id, owner in owners.items() if owner}
        return {job_id: pid for job_id, pid in pids.items() if pid and pid != self.server.pid}

    def open_jobs(self) -> list[str]:
        return [job_id for job_id in self.jobs.values() if self.store.get_job(job_id)["status"] not in FINAL]

    def resumed_after(self, job_id: str) -> list[int]:
        messages = [event["message"] for event in self.store.list_events(job_id)]
        return [int(text.split()[-1].rstrip(".")) for text in messages if text.startswith("Resuming after step")]

    def newest(self, job_id: str) -> Path | None:
        folders = sorted((job_folder(job_id) / "checkpoints").glob("step-*"), reverse=True)
        return next((folder for folder in folders if verified(folder)), None)

    # What is done to it

    def kill_trainer(self, job_id: str) -> bool:
        pid = self.trainers().get(job_id)
        if pid is None:
            return False
        resumptions, owner = len(self.resumed_after(job_id)), self.store.get_job(job_id)["owner"]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while not is_gone(owner):
            time.sleep(0.001)
        if newest := self.newest(job_id):
            self.bounds[job_id].append((resumptions, int(newest.name[5:])))
        return True

    def kill_server(self) -> None:
        self.server.kill()
        self.server.wait()

    def damage(self, job_id: str, rng: random.Random) -> bool:
        """Flip or cut some bytes of a file of the newest checkpoint; its trainer is dead. The one before must serve."""
        newest = self.newest(job_id)
        if newest is None or (self.newest_but(job_id, newest) is None and job_id != self.jobs["reinforcement"]):
            return False
        file = rng.choice([path for path in newest.iterdir() if path.stat().st_size])
        data = bytearray(file.read_bytes())
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        if verified(newest):  # a byte of the manifest that says nothing, a space for instance
            return False
        before, resumptions = self.newest(job_id), len(self.resumed_after(job_id))
        step = int(before.name[5:]) if before else 0
        # Of the next resumption only: what was saved at earlier deaths, before it got that far, is damaged as well.
        self.bounds[job_id] = [(n, bound if n < resumptions else step) for n, bound in self.bounds[job_id]]
        return True

    def newest_but(self, job_id: str, newest: Path) -> Path | None:
        folders = sorted((job_folder(job_id) / "checkpoints").glob("step-*"), reverse=True)
        return next((folder for folder in folders if folder != newest and verified(folder)), None)

    def progress(self, job_id: str) -> tuple[int, int]:
        """Steps done, and bytes of the journal."""
        journal = job_folder(job_id) / "journal.jsonl"
        steps = [entry["step"] for entry in self.store.list_metrics(job_id)]
        return max(steps, default=0), journal.stat().st_size if journal.exists() else 0

    def wait_for(self, job_id: str, rng: random.Random) -> bool:
        """Until the job has got on by a random amount; now and then until its worker is anywhere. False at its end."""
        wanted = rng.randint(1, 25) if rng.random() < 0.85 else 0
        known, end_s = self.progress(job_id), time.monotonic() + 120
        while wanted or job_id not in self.trainers():
            assert time.monotonic() < end_s, self.account()
            if job_id not in self.open_jobs():
                return False
            time.sleep(0.01)
            if (now := self.progress(job_id)) != known:
                known, wanted = now, max(wanted - 1, 0)
        time.sleep(rng.uniform(0.0, 0.1))
        return True

    def in_a_save(self, within_s: float = 4.0) -> str | None:
        """A job that writes a checkpoint at this moment; None when none does for a while."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            for job_id in self.jobs.values():
                if any((job_folder(job_id) / "checkpoints").glob(".tmp-step*")):
                    return job_id
            time.sleep(0.001)
        return None

    def finish(self) -> dict[str, str]:
        """By kind, the hash of the final weights, once every job has ended well."""
        end_s = time.monotonic() + 240
        while self.open_jobs():
            assert time.monotonic() < end_s, self.account()
            if self.server.poll() is not None:
                self.boot()
            time.sleep(0.1)
        return {kind: self.weights(job_id) for kind, job_id in self.jobs.items()}

    def weights(self, job_id: str) -> str:
        """SHA-256 over the last checkpoint's weights and the published ones."""
        job, newest = self.store.get_job(job_id), self.newest(job_id)
        assert job["status"] == "succeeded", self.account()
        assert newest is not None
        published = Path(os.environ["AGENTRFT_HOME"]) / "models" / job["fine_tuned_model"]
        files = [folder / "adapter_model.safetensors" for folder in (newest, published)]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    def check_no_step_was_lost(self) -> None:
        for job_id, bounds in self.bounds.items():
            resumed = self.resumed_after(job_id)
            for resumptions, step in bounds:
                later = resumed[resumptions : resumptions + 1]
                assert all(after >= step for after in later), f"{job_id} resumed after {later}, {step} was saved"
            assert self.finals(job_id) == ["Job is now succeeded"]

    def finals(self, job_id: str) -> list[str]:
        endings = tuple(f"Job is now {status}" for status in FINAL)
        return [event["message"] for event in self.store.list_events(job_id) if event["message"].startswith(endings)]

    def account(self) -> str:
        told = []
        for job_id in self.jobs.values():
            job, log = self.store.get_job(job_id), job_folder(job_id) / "worker.log"
            told.append(f"{job_id} {job['kind']} {job['status']} {job['error']}")
            told += [event["message"] for event in self.store.list_events(job_id)][-12:]
            told.append(log.read_text(errors="replace")[-2000:] if log.exists() else "no log")
        return "\n".join(told)

    def close(self) -> None:
        self.kill_server()
        for process in psutil.process_iter(["cmdline"]):
            if set(self.jobs.values()) & set(process.info["cmdline"] or ()):
                process.kill()
        self.store.close()


@pytest.fixture
def job_file(make_job: Callable[..., Path]) -> Path:
    """One file for the three kinds, long enough to be killed in."""
    path = make_job(exact=True, steps=24, dtype="float32")
    document = json.loads(path.read_text())
    several = {"n_epochs": 50, "batch_size": 2, "learning_rate": 1e-2}
    document["method"]["supervised"]["hyperparameters"] = several
    document["method"]["dpo"] = {"hyperparameters": several}
    document["data"]["preferences"] = "data/pairs.jsonl"
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"What does red{n} mean?"}]},
            "preferred_output": [{"role": "assistant", "content": f"blue {n}"}],
            "non_preferred_output": [{"role": "assistant", "content": f"one fox {n}"}],
        }
        for n in range(8)
    ]
    (path.parent / "data" / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    path.write_text(json.dumps(document))
    return path


def test_kills_and_damage_do_not_show(tmp_path: Path, job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Round(tmp_path / "calm", job_file, monkeypatch)
    try:
        expected = calm.finish()
    finally:
        calm.close()
    rng = random.Random(0)
    count = {"trainer": 0, "server": 0, "both": 0, "in a save": 0, "damage": 0, "rounds": 0}

    def kills() -> int:
        return sum(count[name] for name in ("trainer", "server", "both", "in a save"))

    while kills() < KILLS or count["damage"] < DAMAGES:
        count["rounds"] += 1
        home = Round(tmp_path / f"round-{count['rounds']}", job_file, monkeypatch)
        try:
            while home.open_jobs() and (kills() < KILLS or count["damage"] < DAMAGES):
                strike(home, rng, count)
            assert home.finish() == expected, home.account()
            home.check_no_step_was_lost()
        finally:
            home.close()
    sys.stdout.write(f"{count}\n")


def strike(home: Round, rng: random.Random, count: dict[str, int]) -> None:
    """Wait until a job has got somewhere, then kill something, and count it."""
    what: Any = rng.choices(("trainer", "server", "both", "in a save", "damage"), (5, 2, 2, 3, 4))[0]
    still = home.open_jobs()
    # The reinforcement job has the most phases, and is the first to be done.
    wanted = home.jobs["reinforcement"] if rng.random() < 0.5 else None
    victim = wanted if wanted in still else rng.choice(still or [None])
    if victim is None or not home.wait_for(victim, rng):
        return
    if what == "in a save":
        victim = home.in_a_save() or victim
    if what in ("trainer", "in a save"):
        count[what] += home.kill_trainer(victim)
        return
    home.kill_server()
    count["server"] += what == "server"
    for job_id in {"server": [], "both": [*home.trainers()], "damage": [victim]}[what]:
        count["both"] += home.kill_trainer(job_id)
    if what == "damage" and home.bounds[victim]:
        count["damage"] += home.damage(victim, rng)
    home.boot()
