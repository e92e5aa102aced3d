"""What the preference loop is told: units of rows, a loss, and how long to go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentrft.errors import UserError
from agentrft.losses.spec import DpoLoss, KtoLoss, SimpoLoss
from agentrft.types import Row

PreferenceLoss = DpoLoss | SimpoLoss | KtoLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceUnit:
    """What is compared at once and never split: a pair, or one rated row."""

    rows: tuple[Row, ...]
    """From `pair_rows` or `rated_row`."""
    mismatched: Row | None = None
    """Its prompt with an answer to something else, from `mismatched_rows`; for KTO only."""

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Everything the reference must know of."""
        return self.rows if self.mismatched is None else (*self.rows, self.mismatched)


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoPlan:
    """Preference optimisation on pairs or rated rows."""

    run: str
    """Job id."""
    folder: Path
    """The job's folder; `checkpoints/` and `reference.json` are in it."""
    units: Sequence[PreferenceUnit]
    loss: PreferenceLoss = field(default_factory=DpoLoss)
    bundle: str | None = None
    """Hash of the agent that is trained, kept with each checkpoint."""
    validation_units: Sequence[PreferenceUnit] = ()
    """Held-out units; with them, the checkpoint with the lowest loss on them is the result."""
    seed: int = 0
    n_epochs: float = 1.0
    batch_size: int = 8
    """Units per optimiser step."""
    learning_rate: float = 5e-5
    warmup_steps: int = 3
    checkpoint_interval: int = 8
    """Steps between checkpoints, each with a validation; there is always one after the last step."""
    patience: int | None = None
    """Validations in a row without a lower loss after which training ends; None trains to the last step."""
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        if not self.units:
            raise UserError("There are no preferences; expected at least one.", param="data.preferences")

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, math.ceil(self.n_epochs * len(self.units) / self.batch_size))
