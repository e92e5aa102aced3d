"""Tools: what an agent may call, and the one path every call takes."""

from agentrft.tools.call import OfferedTool, call_tool
from agentrft.tools.python_tool import PythonBinding
from agentrft.tools.schema import ArgumentCheck, ArgumentError, spec_from_function
from agentrft.tools.shape import Shaped, ToolLimits, cut, estimate_tokens, shape, to_text
from agentrft.tools.toolset import ToolBinding, build_toolset

__all__ = [
    "ArgumentCheck",
    "ArgumentError",
    "OfferedTool",
    "PythonBinding",
    "Shaped",
    "ToolBinding",
    "ToolLimits",
    "build_toolset",
    "call_tool",
    "cut",
    "estimate_tokens",
    "shape",
    "spec_from_function",
    "to_text",
]
