"""Graders in an environment of their own: another interpreter for the worker, with packages that ours does not have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.graders import build_grader, sandboxes_of
from agentrft.graders.python_code import PythonSpec
from agentrft.sandbox import start
from agentrft.types import Item, Sample

DOCUMENT = {
    "type": "python",
    "name": "r",
    "source": (
        "import only_there, sys\n\ndef grade(sample, item):\n"
        "    return only_there.WORTH * (sys.prefix != item['ours'])\n"
    ),
}


@pytest.fixture
def use(monkeypatch):
    """use(path): graders get this interpreter."""

    def use_one(path: Path) -> None:
        monkeypatch.setenv("AGENTRFT_GRADER_PYTHON", str(path))
        start.measured.cache_clear()

    yield use_one
    start.measured.cache_clear()


@pytest.fixture
def environment(tmp_path):
    """The python of a fresh environment with one package more."""
    folder = tmp_path / "graders"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "only_there.py").write_text("WORTH = 0.25\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize("isolation", ["auto", "process"])
async def test_graders_run_with_the_packages_of_their_own_environment(use, environment, isolation):
    use(environment)
    grader = build_grader({**DOCUMENT, "isolation": isolation}, Path())
    item = Item(id="a", messages=(), fields={"ours": sys.prefix})
    grade = await grader.grade(Sample(output_text="x"), item, "t")
    await grader.close()
    assert (grade.value, grade.reason) == (0.25, None)
    name = "a jail" if isolation == "auto" else "a plain process"
    (sentence,) = sandboxes_of(PythonSpec.model_validate({**DOCUMENT, "isolation": isolation}))
    assert sentence == f"grader 'r' runs in {name} with {environment}"


@pytest.mark.parametrize("isolation", ["auto", "jail", "process"])
def test_an_interpreter_that_is_not_there_is_refused_and_nothing_takes_its_place(use, isolation):
    use(Path("/nowhere/python"))
    with pytest.raises(
        UserError, match="AGENTRFT_GRADER_PYTHON names '/nowhere/python', which is no program"
    ) as caught:
        build_grader({**DOCUMENT, "isolation": isolation}, Path())
    assert "Monty: " not in caught.value.message
    assert caught.value.code == "sandbox_unavailable"


def test_an_interpreter_that_cannot_be_a_worker_is_refused(use):
    use(Path("/bin/false"))
    with pytest.raises(UserError, match="no jail: the sandbox's worker did not start with /bin/false"):
        build_grader(DOCUMENT, Path())
