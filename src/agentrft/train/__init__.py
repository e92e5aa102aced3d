"""Training loops, each one `train()` that reads top to bottom: `sft.train`, `dpo.train` and `rft.train`.

`plan.py` says what a loop is told, `log.py` what it tells, `metrics.py` what its numbers mean, `evaluate.py` how good
an agent is on held-out items. Loops touch no tensors: all model work is a learner's and a generator's.
"""

from agentrft.train.checkpoint import Checkpoint, Checkpoints, verified
from agentrft.train.demos import demonstration_row
from agentrft.train.dpo_plan import DpoPlan, PreferenceUnit
from agentrft.train.evaluate import EvalPlan, Evaluation, evaluate
from agentrft.train.log import (
    CheckpointSaved,
    EpisodeDone,
    EvaluationDone,
    Notice,
    Progress,
    RunLog,
    StepDone,
)
from agentrft.train.metrics import METRICS, Metric
from agentrft.train.plan import RftPlan, SftPlan, TrainResult

__all__ = [
    "METRICS",
    "Checkpoint",
    "CheckpointSaved",
    "Checkpoints",
    "DpoPlan",
    "EpisodeDone",
    "EvalPlan",
    "Evaluation",
    "EvaluationDone",
    "Metric",
    "Notice",
    "PreferenceUnit",
    "Progress",
    "RftPlan",
    "RunLog",
    "SftPlan",
    "StepDone",
    "TrainResult",
    "demonstration_row",
    "evaluate",
    "verified",
]
