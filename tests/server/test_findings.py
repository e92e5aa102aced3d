"""What was found about a job's agent, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentrft.jobs.service import job_folder

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
URL = f"/v1/fine_tuning/jobs/{JOB}/findings"


def test_findings_are_those_of_the_job(server: Any, tmp_path: Path) -> None:
    spec = {"model": "tiny", "data": {}}
    store = server.state.store
    store.create_job({"id": JOB, "kind": "evaluation", "spec": spec, "base_dir": str(tmp_path)})
    none = server.http().get(URL)
    assert (none.status_code, none.json()["error"]["code"]) == (404, "not_found")
    assert server.http().get(URL.replace("aaaa", "bbbb")).status_code == 404

    report = {"verdict": "adopted", "bundle": "0" * 64}
    store.update_job(JOB, {"optimisation": {"key": "k", "report": report}})
    folder = job_folder(JOB)
    folder.mkdir(parents=True)
    (folder / "diagnosis.json").write_text(json.dumps({"n_items": 50}))
    found = server.http().get(URL).json()
    assert found == {
        "object": "fine_tuning.job.findings",
        "job_id": JOB,
        "diagnosis": {"n_items": 50},
        "decision": None,
        "optimisation": report,
    }
