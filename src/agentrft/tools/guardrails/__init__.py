"""Guardrails: what every tool call is held to, without a language model.

`spec` is what a job may write, `policy` asks one guard after the other, `history` is all that a guard may look at.
A guard is a plain function of (call, history, settings). To add one: a file with the function, one line in
`Policy.check`, its settings in `spec`, a row in docs/guardrails.md.
"""

from agentrft.tools.guardrails.policy import Policy
from agentrft.tools.guardrails.spec import Guardrails

__all__ = ["Guardrails", "Policy"]
