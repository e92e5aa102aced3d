"""What a training loop is told (frozen, complete, without live objects) and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentrft.credit import PenaltiesSpec
from agentrft.errors import UserError
from agentrft.losses.spec import PolicyGradientLoss, PolicyLoss
from agentrft.train.checkpoint import Checkpoint
from agentrft.train.played import Crediting
from agentrft.train.reference_answers import ReferenceAnswers
from agentrft.types import Item, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class SftPlan:
    """Supervised fine-tuning on demonstrations."""

    run: str
    """Job id."""
    folder: Path
    """The job's folder; checkpoints go to `checkpoints/` in it."""
    rows: Sequence[Row]
    """Demonstrations, from `demonstration_row`."""
    bundle: str | None = None
    """Hash of the agent that is trained, kept with each checkpoint."""
    validation_rows: Sequence[Row] = ()
    """Held-out demonstrations; with them, the checkpoint with the lowest loss on them is the result."""
    seed: int = 0
    n_epochs: float = 1.5
    batch_size: int = 8
    learning_rate: float = 5e-4
    warmup_steps: int = 3
    checkpoint_interval: int = 8
    """Steps between checkpoints; there is always one after the last step."""
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        if not self.rows:
            raise UserError("There are no demonstrations; expected at least one.", param="data.demonstrations")

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, math.ceil(self.n_epochs * len(self.rows) / self.batch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class RftPlan:
    """Reinforcement fine-tuning with a grader."""

    run: str
    """Job id; ids and seeds of all episodes derive from it."""
    folder: Path
    """The job's folder; `checkpoints/` and `journal.jsonl` are in it."""
    items: Sequence[Item]
    bundle: str | None = None
    """Hash of the agent that is trained, kept with each checkpoint."""
    validation: Sequence[Item] = ()
    """Items that choose the best checkpoint; without them the last one is the result."""
    seed: int = 0
    steps: int = 12
    batch_size: int = 6
    """Groups that each step is trained on."""
    group_size: int = 8
    learning_rate: float = 1e-4
    warmup_steps: int = 3
    loss: PolicyLoss = field(default_factory=PolicyGradientLoss)
    credit: Crediting = field(default_factory=Crediting)
    """Who earned the reward; a loss that is defined with a credit of its own takes that instead."""
    reference: ReferenceAnswers | None = None
    """The answer whose likelihood credit goes by, where it does."""
    penalties: PenaltiesSpec = field(default_factory=PenaltiesSpec)
    """How a grade becomes a reward."""
    oversample: float = 3.0
    """Groups without signal are replaced until this many times `batch_size` groups have been played."""
    eval_interval: int = 4
    """Steps between validations, each with a checkpoint; also before the first step and after the last."""
    eval_samples: int = 2
    """Episodes per validation item."""
    pass_threshold: float = 0.5
    """An episode succeeds when its grade reaches this."""
    measure_kl: bool = True
    """Measure the KL to the reference at evaluations; needs a learner with an adapter to set aside."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept; the best one is always kept."""

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError("There are no items to train on; expected at least one.", param="data.train")
        if self.group_size < 2:
            raise UserError(
                f"group_size is {self.group_size}; expected at least 2: credit compares the members of a group.",
                param="training.group_size",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a training loop ended."""

    best: Checkpoint
    """The result: best on validation, or the last where there is no validation."""
    last: Checkpoint
    """Where a resume would go on."""
    stopped: str | None
    """Why it ended before its last step, in words for people; None when it is complete."""
    validations: Sequence[tuple[int, float]] = ()
    """(step, validation figure): mean reward in reinforcement, loss in supervised training."""
