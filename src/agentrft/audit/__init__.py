"""The audit: whether a grader can be fooled, found out before training does.

`audit(plan, grader)` plays adversarial outputs (`probes.PROBES`) and checks (`checks.CHECKS`) against a grader, and
compares what they earn with honest failures.
"""

from agentrft.audit.honest import Honest
from agentrft.audit.plan import AuditPlan
from agentrft.audit.probes import PROBES
from agentrft.audit.report import AuditLine, AuditReport
from agentrft.audit.run import audit

__all__ = ["PROBES", "AuditLine", "AuditPlan", "AuditReport", "Honest", "audit"]
