"""The rule of when a jail is enough, what comes instead when it is not, and what is said of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agentrft.errors import SandboxFault, UserError
from agentrft.graders import build_grader, sandboxes_of, warnings_of
from agentrft.graders.python_code import PythonSpec
from agentrft.sandbox import start
from agentrft.sandbox.layers import LAYERS, Report, read_report
from agentrft.sandbox.process import ForkServer, Program
from agentrft.types import Item, Sample

ALWAYS = ("seccomp", "no_new_privs", "capabilities", "limits")
WORLD = ("user", "pid", "net", "mnt", "root")


def _refusal(*enforced: str, **more: object) -> str | None:
    return Report(isolation="jail", enforced=enforced, **more).refusal


@pytest.mark.parametrize("enforced", [(*ALWAYS, "landlock"), (*ALWAYS, *WORLD), (*ALWAYS, *WORLD, "landlock")])
def test_the_filter_and_one_of_landlock_and_a_private_root_are_enough(enforced):
    assert _refusal(*enforced) is None


@pytest.mark.parametrize("absent", ALWAYS)
def test_four_layers_are_always_needed(absent):
    refusal = _refusal(*(set(ALWAYS) - {absent}), *WORLD, "landlock", missing={absent: "because"})
    assert refusal == f"this machine does not enforce enough layers: no {LAYERS[absent]} (because)"


@pytest.mark.parametrize("absent", WORLD)
def test_without_landlock_the_whole_world_is_needed(absent):
    refusal = _refusal(*ALWAYS, *(set(WORLD) - {absent})) or ""
    assert "no Landlock (it has no effect)" in refusal
    assert f"no {LAYERS[absent]}" in refusal


def test_a_hole_refuses_whatever_the_layers_say():
    refusal = _refusal(*ALWAYS, *WORLD, "landlock", holes=("files: /proc", *"abcd"))
    assert refusal == "a confined process could still do what it must not: files: /proc; a; b; c; and 1 more"


def test_a_plain_process_is_never_refused_because_it_claims_nothing():
    assert Report(isolation="process").refusal is None


def test_reports_go_over_the_wire():
    report = Report(isolation="jail", enforced=("seccomp",), missing={"landlock": "no"}, holes=("a",))
    assert read_report(report.as_json()) == report


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"isolation": "jail"},
        {"isolation": "none", "enforced": [], "missing": {}, "holes": []},
        {"isolation": "jail", "enforced": ["magic"], "missing": {}, "holes": []},
        {"isolation": "jail", "enforced": [], "missing": {"a": 1}, "holes": []},
    ],
)
def test_anything_else_is_no_report(document):
    with pytest.raises((ValueError, KeyError)):
        read_report(json.dumps(document).encode())


@pytest.mark.skipif(sys.platform != "linux", reason="the jail needs Linux")
async def test_the_report_of_this_machine_is_that_of_the_server():
    server = ForkServer()
    try:
        assert await server.report() == start.measured("jail")
    finally:
        await server.close()


@pytest.fixture
def no_jail(monkeypatch):
    """Another operating system, as far as the sandbox can tell."""
    monkeypatch.setattr(start, "platform_refusal", lambda: "it needs Linux, this is Plan9")
    start.measured.cache_clear()
    yield
    start.measured.cache_clear()


@pytest.fixture
def no_monty(monkeypatch):
    """A machine where pydantic-monty is not installed."""
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    start.measured.cache_clear()
    yield
    start.measured.cache_clear()


async def test_without_a_jail_and_monty_a_grader_is_refused_unless_it_asks_for_a_plain_process(no_jail, no_monty):
    document = {"type": "python", "name": "r", "source": "def grade(sample, item): return 0.5"}
    with pytest.raises(UserError, match=r"no sandbox here can run .*no jail: .*it needs Linux.*no Monty: ") as caught:
        build_grader(document, Path(), param="method.reinforcement.grader")
    assert (caught.value.param, caught.value.code) == ("method.reinforcement.grader.isolation", "sandbox_unavailable")
    assert "pip install 'agentrft[monty]'" in caught.value.message
    assert "next step: `agentrft doctor`" in caught.value.message
    server = ForkServer()
    with pytest.raises(SandboxFault, match="the sandbox refuses to run: it needs Linux"):
        await server.call(Program(source="def f(): return 1", function="f", filename="c"), [], timeout_s=5)
    await server.close()
    grader = build_grader({**document, "isolation": "process"}, Path())
    await grader.close()


async def test_without_a_jail_monty_grades_what_it_can_run_and_says_so(no_jail):
    document = {"type": "python", "name": "r", "source": "def grade(sample, item): return 0.5"}
    grader = build_grader(document, Path())
    grade = await grader.grade(Sample(output_text="x"), Item(id="a", messages=(), fields={}), "t")
    await grader.close()
    assert grade.value == 0.5
    spec = PythonSpec.model_validate(document)
    (sentence,), (warning,) = sandboxes_of(spec), warnings_of(spec, Path())
    assert sentence.startswith("grader 'r' runs in Monty 1.")
    assert sentence.endswith("; no jail: it needs Linux, this is Plan9")
    assert warning == f"{sentence}; it has a part of Python only, so its grades can differ from those of a jail"


def test_without_a_jail_what_monty_cannot_run_is_refused_with_what_it_lacks(no_jail):
    source = "import numpy as np\n\ndef grade(sample, item):\n    return float(np.mean([1]))\n"
    with pytest.raises(UserError, match=r"it cannot run this code, which needs module numpy \(line 1\);") as caught:
        build_grader({"type": "python", "name": "r", "source": source}, Path())
    assert "use `string_check`, `text_similarity`, `multi` or `endpoint`" in caught.value.message
    assert caught.value.code == "sandbox_unavailable"


def test_who_asks_for_the_jail_gets_nothing_else(no_jail):
    document = {"type": "python", "name": "r", "source": "def grade(a, b): return 1", "isolation": "jail"}
    with pytest.raises(UserError, match="no jail: "):
        build_grader(document, Path())


@pytest.mark.skipif(sys.platform != "linux", reason="the jail needs Linux")
def test_with_a_jail_it_is_the_jail_and_no_warning():
    spec = PythonSpec.model_validate({"type": "python", "name": "r", "source": "def grade(a, b): return 1"})
    assert (sandboxes_of(spec), warnings_of(spec, Path())) == (["grader 'r' runs in a jail"], [])


def test_the_choice_is_part_of_the_document():
    document = {"type": "python", "name": "r", "source": "x"}
    assert PythonSpec.model_validate({**document, "isolation": "process"}).model_dump()["isolation"] == "process"
    assert PythonSpec.model_validate(document).model_dump()["isolation"] == "auto"
