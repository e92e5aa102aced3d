"""The server starts and answers without a model engine: files, jobs, graders; and says what chat needs."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENGINE = {"torch", "transformers", "peft", "safetensors", "gguf", "accelerate"}


def distributions(extra: str) -> set[str]:
    """Names of everything that `pip install agentrft[extra]` brings, agentrft itself left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    wanted = [(Requirement(line), "") for line in project["dependencies"] + project["optional-dependencies"][extra]]
    while wanted:
        requirement, asked_for = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": asked_for})):
            continue
        found.add(name)
        inner = next(iter(requirement.extras), "")
        wanted += [(Requirement(line), inner) for line in metadata.requires(name) or []]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages of the install with the server, and to nothing else."""
    folder = tmp_path_factory.mktemp("server-install") / "site-packages"
    folder.mkdir()
    for name in distributions("server"):
        distribution = metadata.distribution(name)
        for entry in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "/")}:
            source, link = Path(str(distribution.locate_file(entry))), folder / entry
            if source.exists() and source.suffix != ".pth" and not link.exists():
                link.symlink_to(source)
    (folder / "agentrft").symlink_to(ROOT / "src" / "agentrft")
    return folder


@pytest.fixture(scope="module")
def url(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process that has no torch; warnings are errors there too."""
    home = tmp_path_factory.mktemp("home")
    command = "import sys; sys.argv[0] = 'agentrft'; from agentrft.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-W", "error", "-c", command, "serve", "--port", "0"],
        env={"PYTHONPATH": str(site), "AGENTRFT_HOME": str(home), "PATH": os.environ["PATH"], "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    lines: list[str] = []
    address = None
    for line in process.stdout:
        lines.append(line)
        if address := re.search(r"http://127\.0\.0\.1:[0-9]+", line):
            break
    if not address:
        process.stdout.close()
        pytest.fail(f"the server ended with {process.wait(30)}: {''.join(lines)}")
    rest = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    rest.start()
    yield address[0]
    process.terminate()
    assert process.wait(30) == 0, "".join(lines)
    rest.join()
    process.stdout.close()
    assert not [line for line in lines if "Traceback" in line], "".join(lines)


def test_no_engine_is_installed_there(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    assert ENGINE & names == set()
    assert {"fastapi", "uvicorn", "cryptography"} <= names


def test_it_is_healthy(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    assert "agentrft_engine_up 0" in httpx.get(f"{url}/metrics").text


def test_it_answers_files_jobs_models_and_graders(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0)
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    assert client.files.content(file.id).read() == b"{}\n"
    assert client.fine_tuning.jobs.list().data == []
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model="smollm2-135m-instruct", training_file=file.id)
    assert error.value.param == "training_file"
    client.models.list()
    grader = {
        "type": "string_check",
        "name": "g",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "a",
    }
    answer = client.fine_tuning.alpha.graders.run(grader=grader, model_sample="a")  # type: ignore[arg-type]
    assert answer.reward == 1.0
    client.close()


def test_chat_says_what_to_install(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0)
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(model="smollm2-135m-instruct", messages=[{"role": "user", "content": "hi"}])
    assert error.value.status_code in (400, 404)
    client.close()
