"""Names of processes, the lock of a job's folder, and what workers are told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrft.errors import StoreFault
from agentrft.runtime.lock import alone_in
from agentrft.runtime.processes import is_gone, owner_of, pid_of, this_owner
from agentrft.runtime.settings import WorkerSettings

HOLD = """
import sys, time
from pathlib import Path
from agentrft.runtime.lock import alone_in
with alone_in(Path(sys.argv[1]), int(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_is_gone_when_it_has_ended_reaped_or_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = owner_of(process.pid)
    assert pid_of(owner) == process.pid
    assert not is_gone(owner)
    process.kill()
    while not is_gone(owner):  # a zombie by then
        time.sleep(0.01)
    assert pid_of(owner) is None
    process.wait()
    assert is_gone(owner)


def test_a_later_process_of_the_same_pid_is_another_one() -> None:
    assert not is_gone(this_owner())
    host, pid, start = this_owner().split(":")
    assert is_gone(f"{host}:{pid}:1{start}")


@pytest.mark.parametrize("owner", ["elsewhere:1:x", f"{socket.gethostname()}:x:y", "", "name"])
def test_nothing_is_said_of_owners_that_are_no_process_of_this_machine(owner: str) -> None:
    assert not is_gone(owner)
    assert pid_of(owner) is None


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="cores are not shared by session here")
def test_niceness_holds_for_the_session_of_a_worker() -> None:
    program = (
        "from pathlib import Path; from agentrft.runtime.processes import be_nice_as_a_session\n"
        "be_nice_as_a_session(); print(Path('/proc/self/autogroup').read_text())"
    )
    command = ["nice", "-n", "7", sys.executable, "-c", program]
    shown = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith(f" nice {min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)}")


def holding(folder: Path, token: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(token)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_free_as_soon_as_its_holder_is_killed(tmp_path: Path) -> None:
    with holding(tmp_path / "job", 1) as holder:
        holder.kill()
        with alone_in(tmp_path / "job", 2):
            pass


def test_who_holds_a_newer_token_is_left_alone(tmp_path: Path) -> None:
    with holding(tmp_path, 7) as holder:
        with pytest.raises(StoreFault, match=r"is in use by .*\(token 7\)"), alone_in(tmp_path, 7):
            pass
        assert holder.poll() is None
        holder.kill()


def test_who_hangs_with_an_older_token_is_killed_after_a_while(tmp_path: Path) -> None:
    with holding(tmp_path, 7) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with alone_in(tmp_path, 8, patience_s=0.3):
            pass
        assert holder.wait() == -signal.SIGKILL


def test_what_a_worker_is_told_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerSettings.of_environment() == WorkerSettings()
    assert WorkerSettings().network() is None
    told = WorkerSettings(store="sqlite:////tmp/x.db", allow=("127.0.0.1:9000", "10.0.0.0/8"))
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings.of_environment() == told
    policy = told.network()
    assert policy is not None
    policy.check_url("http://127.0.0.1:9000/tool")
