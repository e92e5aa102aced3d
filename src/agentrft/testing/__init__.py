"""Parts for tests, ours and yours: scripted engines that run without a model, and checks for your own parts.

Everything here is real code behind the same protocols as the real engines, so a test that uses it patches nothing:
`ScriptedGenerator` plays a function, `ScriptedLearner` is a small model that truly learns, `check_tool` and
`check_grader` tell you what is wrong with a part of yours before a job does.
"""

from agentrft.testing.chat import CharFormat, ScriptedChatModel
from agentrft.testing.checks import check_grader, check_tool
from agentrft.testing.clock import FakeClock
from agentrft.testing.generator import ScriptedGenerator
from agentrft.testing.learner import ScriptedLearner
from agentrft.testing.runtime import ScriptedMachine, ScriptedRuntime
from agentrft.testing.tools import ScriptedGrader, ScriptedTools
from agentrft.testing.worker import ScriptedDisk, ScriptedWorker

__all__ = [
    "CharFormat",
    "FakeClock",
    "ScriptedChatModel",
    "ScriptedDisk",
    "ScriptedGenerator",
    "ScriptedGrader",
    "ScriptedLearner",
    "ScriptedMachine",
    "ScriptedRuntime",
    "ScriptedTools",
    "ScriptedWorker",
    "check_grader",
    "check_tool",
]
