import sys
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.runtime.machine import disk_fact


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
        assert word in text
    assert "dtype auto" in text or "pip install 'agentrft[torch]'" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_disk_that_is_full_or_read_only_is_said_with_what_to_do() -> None:
    read_only = disk_fact(Path("/somewhere"), is_writable=False, free_bytes=2**40)
    assert (read_only.state, read_only.advice) == ("bad", "Set AGENTRFT_HOME to a folder you may write to.")
    assert disk_fact(Path("/x"), is_writable=True, free_bytes=2**30).state == "warn"
    assert disk_fact(Path("/x"), is_writable=True, free_bytes=3 * 2**30).state == "ok"
