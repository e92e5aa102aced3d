"""The seams: what one part may ask of another. Each contract is in its docstring; two real implementations each.

Everything that waits is async. Nothing here imports torch: loops hand all model work to a Generator and a Learner.
"""

from agentrft.protocols.chat_model import ChatEndpoint, ChatModel, Judge, JudgeReply, OpenJudge
from agentrft.protocols.clock import Clock
from agentrft.protocols.engine import (
    BackwardReport,
    ChatFormat,
    Chunk,
    Constraint,
    GenerateRequest,
    Generator,
    Learner,
    OptimReport,
    Reply,
)
from agentrft.protocols.grading import Grader, Monitor
from agentrft.protocols.runtime import EndedWorker, Runtime, Worker
from agentrft.protocols.store import EpisodeFilter, EpisodeRecord, Store
from agentrft.protocols.tools import RestorableSession, Tool, ToolContext, ToolSession, ToolSet

__all__ = [
    "BackwardReport",
    "ChatEndpoint",
    "ChatFormat",
    "ChatModel",
    "Chunk",
    "Clock",
    "Constraint",
    "EndedWorker",
    "EpisodeFilter",
    "EpisodeRecord",
    "GenerateRequest",
    "Generator",
    "Grader",
    "Judge",
    "JudgeReply",
    "Learner",
    "Monitor",
    "OpenJudge",
    "OptimReport",
    "Reply",
    "RestorableSession",
    "Runtime",
    "Store",
    "Tool",
    "ToolContext",
    "ToolSession",
    "ToolSet",
    "Worker",
]
