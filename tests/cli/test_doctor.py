import sys
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.runtime.machine import disk_fact, sandbox_facts
from agentrft.sandbox.choice import Choice
from agentrft.sandbox.layers import LAYERS, Report
from agentrft.sandbox.start import measured


def run_doctor(monkeypatch: pytest.MonkeyPatch, home: Path) -> int:
    monkeypatch.setenv("AGENTRFT_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["agentrft", "doctor"])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_doctor_says_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "my-model").mkdir(parents=True)
    assert run_doctor(monkeypatch, tmp_path) == 0
    text = capsys.readouterr().out
    for word in ("cores", "instruction sets", "memory", "sqlalchemy", "journal_mode=", "my-model", str(tmp_path)):
        assert word in text or word in "".join(text.split())  # a long path is folded
    assert "dtype auto" in text or "pip install 'agentrft[torch]'" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    as_one_line = " ".join(text.split())
    assert ("python graders jailed" in as_one_line) == (measured("jail").refusal is None)
    for layer in measured("jail").enforced:
        assert LAYERS[layer] in as_one_line


def test_a_machine_without_a_jail_gets_the_reason_and_the_next_step() -> None:
    layers = ("seccomp", "no_new_privs", "capabilities", "limits")
    report = Report(isolation="jail", enforced=layers, missing={"landlock": "not in this kernel", "user": "denied"})
    nothing = Choice(isolation=None, lacking=(f"no jail: {report.refusal}", "no Monty: it is not installed"))
    verdict, enforced, missing = sandbox_facts(nothing, report)
    assert verdict.state == "warn"
    assert verdict.value.startswith("refused: no jail: this machine does not enforce enough layers: no Landlock (not")
    assert verdict.value.endswith("no Monty: it is not installed")
    assert "`isolation: process`" in verdict.advice
    assert enforced.value == "system-call filter, no new privileges, no capabilities, resource limits"
    assert missing.value == "Landlock (not in this kernel); user namespace (denied)"


def test_a_machine_with_monty_instead_of_a_jail_says_both() -> None:
    report = Report(isolation="jail", missing={"seccomp": "not in this kernel"})
    verdict = sandbox_facts(Choice(isolation="monty", lacking=(f"no jail: {report.refusal}",)), report)[0]
    assert (verdict.name, verdict.state) == ("python graders", "warn")
    assert verdict.value.startswith("in Monty 1.")
    assert "graders that need more are refused; no jail: this machine does not enforce enough layers" in verdict.value


def test_a_disk_that_is_full_or_read_only_is_said_with_what_to_do() -> None:
    read_only = disk_fact(Path("/somewhere"), is_writable=False, free_bytes=2**40)
    assert (read_only.state, read_only.advice) == ("bad", "Set AGENTRFT_HOME to a folder you may write to.")
    assert disk_fact(Path("/x"), is_writable=True, free_bytes=2**30).state == "warn"
    assert disk_fact(Path("/x"), is_writable=True, free_bytes=3 * 2**30).state == "ok"
