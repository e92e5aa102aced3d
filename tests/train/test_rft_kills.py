"""kill -9 at 20 random moments: the job ends with the same weights, state and metrics as one left alone."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("rft_worker.py")
KILLS = 20


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(folder / "home"), str(folder / "job")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


@pytest.mark.soak
def test_twenty_kills_change_nothing(tmp_path):
    expected = finish(start(tmp_path / "calm"))
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        with start(tmp_path / "killed") as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.4))
            if process.poll() is not None:  # a fast machine was done first
                break
            process.kill()
        kills += 1
    assert kills >= KILLS // 2, "give the worker more steps"
    assert finish(start(tmp_path / "killed")) == expected
