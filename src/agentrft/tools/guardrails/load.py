"""From a job's `guardrails` to a policy: the user's functions loaded, secrets looked up."""

from __future__ import annotations

from pathlib import Path

from agentrft.tools.code_file import CodeFiles
from agentrft.tools.guardrails.approval import Place
from agentrft.tools.guardrails.plugin import Plugin
from agentrft.tools.guardrails.policy import Policy
from agentrft.tools.guardrails.secrets import Redaction
from agentrft.tools.guardrails.spec import WITHOUT_SECTION, Guardrails


def load_policy(guardrails: Guardrails | None, base_dir: Path, *, place: Place = "sandbox") -> Policy:
    """The guardrails of a job that is played at `place`; files are relative to `base_dir`.

    Raises UserError for an approver or a plugin that cannot be loaded, and for a secret that is not set.
    """
    guardrails = guardrails or WITHOUT_SECTION
    files = CodeFiles(base_dir)
    approver = None
    if guardrails.approver is not None:
        approver = files.load(guardrails.approver, what="approver", param="guardrails.approver")
    plugins = [
        Plugin(target, files.load(target, what="plugin", param=f"guardrails.plugins.{position}"))
        for position, target in enumerate(guardrails.plugins)
    ]
    return Policy(
        guardrails=guardrails,
        place=place,
        approver=approver,
        plugins=plugins,
        redaction=Redaction(guardrails.secrets),
    )
