"""The audit inside a reinforcement job: before step 1, with the episodes that its first validation played."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agentrft.audit import AuditReport, audit
from agentrft.build import Live
from agentrft.errors import StoreFault, UserError
from agentrft.jobs.audit import audit_items, audit_plan, honest_episodes
from agentrft.jobs.probe import GRADER
from agentrft.jobs.service import StoredJob
from agentrft.report.audit import write_audit_page
from agentrft.train.log import RunLog
from agentrft.train.rft import Audit
from agentrft.types import Group

_SHOWN = 5


def audit_of(live: Live, job: StoredJob, log: RunLog) -> Audit | None:
    """The job's audit, as training calls it; None where the job says `audit: false` or `audit.probes: false`.

    It leaves `audit.json` and `audit.html` in the job's folder, and raises UserError (`audit_failed`) when the grader
    can be fooled, StoreFault when the folder cannot be written.
    """
    wanted = live.spec.audit
    if not wanted or not wanted.probes:
        log.notice("The grader was not audited: the job says so.", "warn")
        return None

    async def look(groups: Sequence[Group]) -> None:
        played = [pair for group in groups for pair in zip(group.episodes, group.grades, strict=True)]
        honest = honest_episodes(played, audit_items(live.spec, live.base_dir))
        report = await audit(audit_plan(live.spec, live.base_dir, honest=honest), live.graded())
        page = write_report(report, job)
        if not report.passed:
            raise _refusal(report, str(page))
        log.notice(f"The audit of the grader passed: {report.count('safe')} probes and checks, {report.baseline}.")

    return look


def write_report(report: AuditReport, job: StoredJob) -> Path:
    """The page; raises StoreFault when the job's folder cannot be written."""
    document = report.to_json()
    try:
        (job.folder / "audit.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        return write_audit_page(document, f"the grader of {job.id}", job.folder / "audit.html")
    except OSError as error:
        raise StoreFault(f"could not write the audit's report into {job.folder}: {error}; free disk space") from error


def _refusal(report: AuditReport, page: str) -> UserError:
    failed = [line for line in report.lines if line.verdict == "failed"]
    shown = ", ".join(f"{line.name} ({line.tries})" for line in failed[:_SHOWN])
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return UserError(
        f"the grader can be fooled: {len(failed)} probes or checks failed, expected none: {shown}{more}. Next: read "
        f"{page}, mend the grader and try `agentrft audit`; or train anyway with `audit: {{probes: false}}`",
        param=GRADER,
        code="audit_failed",
    )
