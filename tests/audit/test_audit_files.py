"""The files that the audit inside a job leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrft.audit import AuditReport
from agentrft.errors import StoreFault
from agentrft.jobs.service import StoredJob
from agentrft.jobs.spec import JobSpec
from agentrft.runtime.audit import write_report

REPORT = AuditReport(
    lines=(), n_items=1, n_grades=0, n_failures=0, failure_limit=0.0, pass_threshold=0.5, baseline="none", seed=0
)


def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    spec = JobSpec.model_validate({"model": "m", "data": {}})
    job = StoredJob(
        id="ftjob-a", kind="reinforcement", spec=spec, base_dir=tmp_path, start_from=None, status="running",
        fine_tuned_model=None,
    )  # fmt: skip
    with pytest.raises(StoreFault, match=r"could not write the audit's report into .*free disk space"):
        write_report(REPORT, job)
    job.folder.mkdir(parents=True)
    assert write_report(REPORT, job) == job.folder / "audit.html"
    assert json.loads((job.folder / "audit.json").read_text())["passed"]
