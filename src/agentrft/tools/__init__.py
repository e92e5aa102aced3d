"""Tools: what an agent may call, and the one path every call takes."""

from agentrft.tools.bindings import ToolBinding, open_toolset
from agentrft.tools.docs import ToolDoc
from agentrft.tools.guardrails import Guardrails, Policy
from agentrft.tools.guardrails.load import load_policy
from agentrft.tools.limits import ToolLimits, estimate_tokens, to_text
from agentrft.tools.output import OutputSpec
from agentrft.tools.present import Shaping
from agentrft.tools.python_tool import PythonBinding
from agentrft.tools.schema import ArgumentCheck, ArgumentError, spec_from_function
from agentrft.tools.toolset import JobTools

__all__ = [
    "ArgumentCheck",
    "ArgumentError",
    "Guardrails",
    "JobTools",
    "OutputSpec",
    "Policy",
    "PythonBinding",
    "Shaping",
    "ToolBinding",
    "ToolDoc",
    "ToolLimits",
    "estimate_tokens",
    "load_policy",
    "open_toolset",
    "spec_from_function",
    "to_text",
]
