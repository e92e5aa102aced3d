"""Secrets in what tools say, replaced before anyone sees them: model, tokens, journal, store and logs alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from agentrft.errors import UserError
from agentrft.tools.guardrails.spec import Secrets

_SHORTEST = 4
"""A shorter value would be replaced inside ordinary words."""


class Redaction:
    """What to replace, compiled once a job."""

    def __init__(self, secrets: Secrets, environ: Mapping[str, str] | None = None) -> None:
        """Raises UserError for a variable that is not set, or too short to be told from ordinary text."""
        environ = os.environ if environ is None else environ
        self._patterns = [(name, re.compile(pattern)) for name, pattern in secrets.patterns.items()]
        for name in secrets.env:
            value = environ.get(name, "")
            if len(value) < _SHORTEST:
                raise UserError(
                    f"guardrails.secrets.env: {name} is {'not set' if not value else 'shorter than 4 characters'}; "
                    "expected a variable that holds a secret. Set it, or take it out",
                    param="guardrails.secrets.env",
                    code="invalid_guardrails",
                )
            self._patterns.append((name, re.compile(re.escape(value))))

    def __call__(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text without secrets, and the names of those found."""
        found = []
        for name, pattern in self._patterns:
            text, times = pattern.subn(f"[redacted:{name}]", text)
            if times:
                found.append(name)
        return text, tuple(found)
