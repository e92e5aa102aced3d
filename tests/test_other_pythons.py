"""The base install on the other Pythons we support, each in a fresh environment with the pinned packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys, tempfile
import agentrft.build, agentrft.cli, agentrft.jobs.check, agentrft.ladder, agentrft.report, agentrft.train.rft
from agentrft.jobs.load import load_job
from agentrft.store import open_store

store = open_store(tempfile.mkdtemp())
store.create_job({"id": "ftjob-a"})
store.set_job_status("ftjob-a", "queued")
load_job("examples/filenav/job.yaml")
print(*sys.version_info[:2], store.get_job("ftjob-a")["status"])
store.close()
"""


def interpreter(version: str) -> str | None:
    """A Python of that version on this machine: on the path, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_base_install_works_on(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    fresh = tmp_path / "venv" / "bin" / "python"
    install = [fresh, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
    subprocess.run(install, check=True, capture_output=True)
    # Only what was installed: not this checkout, and nothing of the environment that runs the tests.
    done = subprocess.run([fresh, "-W", "error", "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*version.split("."), "queued"]
